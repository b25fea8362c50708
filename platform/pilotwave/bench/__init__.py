"""The comparison of algorithms: tasks, runs, statistics and tables of `pilotwave bench`."""
