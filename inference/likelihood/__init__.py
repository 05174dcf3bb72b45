"""Learning by the likelihood of rows, or by a bound on it."""
