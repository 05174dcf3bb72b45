"""Predator and prey: the Lotka-Volterra equations fitted to the pelts of hare and lynx, 1900-1920, in thousands.

    du/dt = (theta_1 - theta_2 v) u,  dv/dt = (theta_4 u - theta_3) v,  (u, v) = z_init at the first time
    theta_1, theta_3 ~ HalfNormal(1, 0.5),  theta_2, theta_4 ~ HalfNormal(0.05, 0.05)
    z_init ~ LogNormal(log 10, 1),  sigma ~ LogNormal(-1, 1),  y_tk ~ LogNormal(log z_k(t), sigma_k)

Shapes: ts: (time,), y: (time, species), theta: (rate,), z_init, sigma: (species,). HalfNormal(m, s) is N(m, s) above 0.
Classical Runge-Kutta with `substeps` steps between observations is within 1e-6 of the exact log density on the
posterior, and finite far from it. Source: posteriordb, lotka_volterra; Carpenter 2018,
"Predator-prey population dynamics"; the data: Howard 2009 after Odum, "Fundamentals of Ecology".
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from scipy import integrate, stats

from probgen.model import Model, Oracle

PELTS = """
30.0 47.2 70.2 77.4 36.3 20.6 18.1 21.4 22.0 25.4 27.1 40.3 57.0 76.6 52.3 19.5 11.2  7.6 14.6 16.2 24.7
 4.0  6.1  9.8 35.2 59.4 41.7 19.0 13.0  8.3  9.1  7.4  8.0 12.3 19.5 45.7 51.1 29.7 15.8  9.7 10.1  8.6
"""
DATA = {"ts": np.arange(21.0), "y": np.array([row.split() for row in PELTS.strip().splitlines()], float).T}
PRIOR = np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])


def trajectory(theta, z_init, ts, substeps):
    """Hare and lynx at the times ts: (time, species)."""

    birth, predation, death, growth = theta

    def slope(u, v):
        return (birth - predation * v) * u, (growth * u - death) * v

    @jax.checkpoint  # recomputing a step in the backward pass is many times faster here than storing its stages
    def step(state, h):
        u, v = state
        a, b = slope(u, v)
        c, d = slope(u + h / 2 * a, v + h / 2 * b)
        e, f = slope(u + h / 2 * c, v + h / 2 * d)
        g, k = slope(u + h * e, v + h * f)
        state = u + h / 6 * (a + 2 * c + 2 * e + g), v + h / 6 * (b + 2 * d + 2 * f + k)
        return state, jnp.stack(state)

    steps = jnp.repeat(jnp.diff(ts) / substeps, substeps)
    _, path = lax.scan(step, (z_init[0], z_init[1]), steps)
    return jnp.concatenate([z_init[None], path[substeps - 1 :: substeps]])


def lotka_volterra(ts, y=None, substeps=30):
    theta = numpyro.sample("theta", dist.TruncatedNormal(*PRIOR, low=0.0).to_event(1))
    z_init = numpyro.sample("z_init", dist.LogNormal(np.log(10.0), 1.0).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]).to_event(1))
    z = trajectory(theta, z_init, ts, substeps)
    with numpyro.plate("species", 2, dim=-1), numpyro.plate("time", len(ts), dim=-2):
        numpyro.sample("y", dist.LogNormal(jnp.log(z), sigma), obs=y)


def log_density(values, data):
    theta, z_init, sigma = (np.asarray(values[site]) for site in ("theta", "z_init", "sigma"))
    prior = stats.norm.logpdf(theta, *PRIOR).sum()
    prior += stats.lognorm.logpdf(z_init, 1, scale=10).sum() + stats.lognorm.logpdf(sigma, 1, scale=np.exp(-1)).sum()

    def slope(t, z):
        return [(theta[0] - theta[1] * z[1]) * z[0], (theta[3] * z[0] - theta[2]) * z[1]]

    span = data["ts"][0], data["ts"][-1]
    z = integrate.solve_ivp(slope, span, z_init, "DOP853", t_eval=data["ts"], rtol=1e-11, atol=1e-11).y.T
    return prior + stats.lognorm.logpdf(data["y"], sigma, scale=z).sum()


model = Model(
    program=lotka_volterra,
    data=DATA,
    dims={"theta": ["rate"], "z_init": ["species"], "sigma": ["species"], "y": ["time", "species"]},
    coords={"rate": ["hare birth", "predation", "lynx death", "lynx birth"], "species": ["hare", "lynx"]},
    oracle=Oracle("log density", log_density),
    reference="hudson_lynx_hare-lotka_volterra",
)
