"""Numbers about fits and targets: sums, bounds and estimates of log Z and log p, energies, two-sample measures, products."""
