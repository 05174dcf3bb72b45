"""Sums over finite unknowns of Pyro programs, and draws of them."""
