"""Bayesian posteriors: programs whose joint density of unknowns and data can be evaluated."""
