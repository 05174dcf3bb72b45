"""Kernels compiled and run by XLA."""
