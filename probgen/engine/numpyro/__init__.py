"""The NumPyro engine: `engine.prepare` makes the target of a program on data."""
