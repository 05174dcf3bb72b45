"""Distributions that NumPyro lacks or is slow at, and the exponential families among its own."""
