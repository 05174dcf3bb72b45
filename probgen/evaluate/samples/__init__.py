"""Measures of samples against held-out rows, a file a measure: distances of feature sets, coverage, modes, memorisation."""
