"""Checks of programs that were learned from their draws: the draws beside rows, and how the game went."""

from probgen.diagnostics.samples import beside, bridges, denoisers, learned_energies, looks

CHECKS = (*beside.CHECKS, *looks.CHECKS)
OF_NOISE = (*denoisers.CHECKS, *beside.CHECKS)  # of diffusion models
OF_BRIDGES = (*beside.CHECKS, *bridges.CHECKS)
OF_ENERGIES = learned_energies.CHECKS
