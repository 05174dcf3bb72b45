"""Targets: what algorithms ask of a NumPyro program, a file a kind."""
