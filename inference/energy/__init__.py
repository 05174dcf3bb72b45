"""Learning energies, whose constant is not known."""
