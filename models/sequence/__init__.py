"""Sequences: one unit after the other, each given those before it."""
