#!/usr/bin/env bash
# Two of the kernels of numpyro.contrib.hsgp (Gaussian processes by Hilbert spaces) draw functions of another kernel, without a word.
# numpyro 0.22.0, jax 0.10.2, tfp-nightly 0.26.0.dev20261027 for the Bessel functions, as the released one does not import with this jax.
# Periodic: hsgp_periodic_non_centered weighs its waves by their variances where their square roots belong. Expected, amplitude a, length
# l, frequency w: covariance a^2 exp(-2 sin(w d / 2)^2 / l^2), the standard deviation a everywhere (Riutort-Mayol et al. 2023, appendix B).
# Seen: .63 for a = l = 1; 2.52 for a = 2; .49 for l = .5. Slow waves weigh too much as well: a correlation .29 where .16 is right.
# PyMC 5.28.5's HSGPPeriodic does the same, which is known there (its issue 8167); NumPyro's squared exponential and Matern are right.
# Rational quadratic in D dimensions: the spectral density lacks a factor l^(D - 1). Expected: the variance alpha at every point. Seen,
# alpha = 1, D = 2: 2.00 for l = .5, .50 for l = 2; D = 1 is right, l = 1 too. A length that is learned is then another one.
# What to do: the square root of diag_spectral_density_periodic, by hand; alpha times l^(D - 1).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpyro==0.22.0 jax==0.10.2 jaxlib==0.10.2 tfp-nightly==0.26.0.dev20261027 scipy==1.17.1
"$folder/venv/bin/python" -W ignore - <<'PY'
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.contrib.hsgp.approximation import hsgp_periodic_non_centered, hsgp_rational_quadratic, hsgp_squared_exponential


def covariance(function, num_draws=20_000):
    """Of draws of a function at its points."""
    draw = jax.vmap(lambda key: numpyro.handlers.seed(function, key)())
    return np.cov(np.asarray(draw(jax.random.split(jax.random.key(0), num_draws))).T)


line = jnp.array([0.0, 0.5, 1.0, 1.5])
for amplitude, length, seen in ((1.0, 1.0, 0.631), (2.0, 1.0, 2.523), (1.0, 0.5, 0.494)):
    found = covariance(lambda: hsgp_periodic_non_centered(line, amplitude, length, w0=2.0, m=30))
    exact = amplitude**2 * np.exp(-2 * np.sin(2.0 * np.asarray(line) / 2) ** 2 / length**2)
    print(f"periodic, a = {amplitude}, l = {length}: sd {found[0, 0] ** 0.5:.3f} for {amplitude:.3f};", end=" ")
    print(f"correlation at .5 {found[0, 1] / found[0, 0]:.2f} for {exact[1] / exact[0]:.2f}")
    assert abs(found[0, 0] ** 0.5 / seen - 1) < 0.03, "the behaviour has changed: periodic"
plane = jnp.array([[0.0, 0.0], [0.4, -0.3]])
for length in (0.5, 1.0, 2.0):
    smooth = covariance(lambda: hsgp_squared_exponential(plane, 1.0, length, ell=6.0, m=40), 4_000)[0, 0]
    found = covariance(lambda: hsgp_rational_quadratic(plane, 1.0, length, scale_mixture=3.0, ell=6.0, m=40), 4_000)[0, 0]
    one = covariance(lambda: hsgp_rational_quadratic(plane[:, 0], 1.0, length, scale_mixture=3.0, ell=6.0, m=40), 4_000)[0, 0]
    print(f"l = {length}: variance of the rational quadratic, D = 2: {found:.2f}, D = 1: {one:.2f}; squared exponential: {smooth:.2f}")
    assert abs(smooth - 1) < 0.1 and abs(one - 1) < 0.1
    assert abs(found * length - 1) < 0.1, "the behaviour has changed: rational quadratic"
PY
