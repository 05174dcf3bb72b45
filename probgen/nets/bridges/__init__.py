"""Diffusions that go from one kind of rows to another in a finite time."""
