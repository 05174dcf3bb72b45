"""Guides that are normalizing flows."""
