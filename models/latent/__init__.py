"""Latent-variable models: unknowns of every point, which are integrated out or inferred."""
