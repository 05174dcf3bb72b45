"""The Pyro engine: `engine.prepare` makes the target of a program on data. JAX is never imported."""
