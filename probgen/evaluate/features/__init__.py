"""Nets whose features rows are compared by: a classifier trained here, your own function, Inception's from a file, or none."""
