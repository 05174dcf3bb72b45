"""Tractable densities: programs that are probabilities of one point, learned by maximum likelihood."""
