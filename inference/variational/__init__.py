"""Variational inference: optimise a family of distributions."""
