"""Draws of Pyro programs as smooth functions of their parameters, and critics of them."""
