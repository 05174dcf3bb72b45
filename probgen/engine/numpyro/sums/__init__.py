"""Sums over finite unknowns, and draws of them."""
