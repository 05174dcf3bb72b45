"""Schedules of noise, denoisers, samplers and densities of diffusion models: one point at a time, in JAX."""
