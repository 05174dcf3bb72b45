"""Learning parameters from rows of data."""
