"""Checks of learned programs by their draws: the draws beside rows, and of games how they went."""

from probgen.diagnostics.samples import beside, bridges, denoisers, densities, learned_energies, looks

CHECKS = (*beside.CHECKS, *looks.CHECKS)
OF_NOISE = (*denoisers.CHECKS, *beside.CHECKS)  # of diffusion models
OF_BRIDGES = (*beside.CHECKS, *bridges.CHECKS)
OF_ENERGIES = learned_energies.CHECKS
OF_DENSITIES = densities.CHECKS  # of likelihoods and bounds on them
