"""Which rows are up to date, and where they run."""
