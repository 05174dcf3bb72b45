"""Learners of denoisers: from noise that was put on a point, back to the point."""
