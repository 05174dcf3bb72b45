"""Simulation-based calibration: does an algorithm, on a program, return the posterior?

Draw unknowns from the prior and data from the program given them, fit the data, and rank the unknowns among the draws
of the fit: ranks are uniform where those are draws of the posterior (Talts, Betancourt, Simpson, Vehtari and Gelman
2018, arXiv:1804.06788). The joint log density is ranked as well, which sees a fit that ignores the data (Modrák et al.
2023, arXiv:2211.02383). Uniformity is tested by simultaneous bands of the distribution function (Säilynoja, Bürkner and
Vehtari 2022, arXiv:2103.10522).

calibrating  pg.sbc                        result    ranks, their uniformity, the verdict
ranking      one simulation and its ranks  kept      what came of simulations, on disk
"""

from probgen.calibration.calibrating import sbc as sbc
from probgen.calibration.result import SBC as SBC
