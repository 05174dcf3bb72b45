"""Checks of programs that were learned from their draws: the draws beside rows, and how the game went."""

from probgen.diagnostics.samples import beside, looks

CHECKS = (*beside.CHECKS, *looks.CHECKS)
