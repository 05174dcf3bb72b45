"""Diffusion models, scores and flow matching."""
