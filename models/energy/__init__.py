"""Energies: log densities up to a constant, of which everything else is derived."""
