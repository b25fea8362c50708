"""The Ray runtime of pilotwave: optimizer, generator and evaluator actors."""
