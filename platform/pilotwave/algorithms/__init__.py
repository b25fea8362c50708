"""Query algorithms, one paper per file, all with ask and tell by id."""
