"""Draws that are too many to hold: read from a run's segments, written to scratch, worked on in blocks."""
