"""A VAE as the examples of NumPyro and Pyro write it: their own loop beside `pg.fit(..., "svi", guide=...)`, in one run.

    python benchmarks/pairs.py numpyro|pyro [rows] [epochs]

Reports of both seconds an epoch without compilation, and the mean loss of every epoch, in nats a row.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import probgen as pg

HIDDEN, LATENT, BATCH, RATE = 400, 50, 128, 1e-3


def rows(count: int) -> np.ndarray:
    """Bits of 784 pixels: blobs at random places, which a decoder has to learn."""
    rng = np.random.default_rng(0)
    at, grid = rng.uniform(6, 22, (count, 1, 1, 2)), np.stack(np.meshgrid(np.arange(28), np.arange(28)), -1)
    level = np.exp(-((grid - at) ** 2).sum(-1) / rng.uniform(8, 40, (count, 1, 1)))
    return (rng.random(level.shape) < level).reshape(count, 784).astype(np.float32)


def ours(model, guide, x, epochs):
    steps = epochs * (len(x) // BATCH)
    settings = {"batch_size": BATCH, "learning_rate": RATE, "decay": "constant", "average": 0.0, "progress": False}
    pg.fit(model, {"x": x}, "svi", guide=guide, num_steps=steps, **settings)  # compiles
    fit = pg.fit(model, {"x": x}, "svi", guide=guide, num_steps=steps, seed=1, **settings)
    return fit.seconds / epochs, fit.records["loss"][0].reshape(epochs, -1).mean(1)


def numpyro_pair():
    import numpyro
    import numpyro.distributions as dist
    from jax.example_libraries import stax

    def encoder():
        spread = stax.parallel(stax.Dense(LATENT), stax.serial(stax.Dense(LATENT), stax.Exp))
        return stax.serial(stax.Dense(HIDDEN), stax.Softplus, stax.FanOut(2), spread)

    def model(x):
        net = stax.serial(stax.Dense(HIDDEN), stax.Softplus, stax.Dense(784))
        decode = numpyro.module("decoder", net, (len(x), LATENT))
        with numpyro.plate("batch", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([LATENT]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    def guide(x):
        encode = numpyro.module("encoder", encoder(), (len(x), 784))
        mean, sd = encode(x)
        with numpyro.plate("batch", len(x)):
            numpyro.sample("z", dist.Normal(mean, sd).to_event(1))

    return model, guide


def numpyro_loop(model, guide, x, epochs):
    import jax
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.optim import Adam

    svi, count = SVI(model, guide, Adam(RATE), Trace_ELBO()), len(x) // BATCH
    x = jax.device_put(x)

    @jax.jit
    def epoch(state, key):
        order = jax.random.permutation(key, len(x))

        def body(i, carry):
            total, state = carry
            batch = x[jax.lax.dynamic_slice_in_dim(order, i * BATCH, BATCH)]
            state, loss = svi.update(state, batch)
            return total + loss, state

        return jax.lax.fori_loop(0, count, body, (0.0, state))

    state = svi.init(jax.random.PRNGKey(0), x[:BATCH])
    epoch(state, jax.random.PRNGKey(1))[0].block_until_ready()
    begun = time.perf_counter()
    losses = []
    for i in range(epochs):
        total, state = epoch(state, jax.random.PRNGKey(i))
        losses.append(float(total) / count / BATCH)
    return (time.perf_counter() - begun) / epochs, np.array(losses)


def pyro_pair():
    import pyro
    import pyro.distributions as dist
    import torch
    from torch import nn

    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Softplus(), nn.Linear(HIDDEN, 784))
            self.encoder = nn.Sequential(nn.Linear(784, HIDDEN), nn.Softplus(), nn.Linear(HIDDEN, 2 * LATENT))

        def model(self, x):
            pyro.module("decoder", self.decoder)
            with pyro.plate("data", x.shape[0]):
                loc = x.new_zeros(x.shape[0], LATENT)
                z = pyro.sample("z", dist.Normal(loc, torch.ones_like(loc)).to_event(1))
                pyro.sample("x", dist.Bernoulli(logits=self.decoder(z), validate_args=False).to_event(1), obs=x)

        def guide(self, x):
            pyro.module("encoder", self.encoder)
            with pyro.plate("data", x.shape[0]):
                mean, log_sd = self.encoder(x).chunk(2, -1)
                pyro.sample("z", dist.Normal(mean, log_sd.exp()).to_event(1))

    vae = Vae()
    return vae.model, vae.guide


def pyro_loop(model, guide, x, epochs):
    import pyro
    import torch
    from pyro.infer import SVI, Trace_ELBO

    pyro.clear_param_store()
    svi, data = SVI(model, guide, pyro.optim.Adam({"lr": RATE}), Trace_ELBO()), torch.from_numpy(x)
    svi.step(data[:BATCH])
    begun = time.perf_counter()
    losses = []
    for _ in range(epochs):
        batches = torch.randperm(len(data)).split(BATCH)
        losses.append(np.mean([svi.step(data[part]) for part in batches if len(part) == BATCH]) / BATCH)
    return (time.perf_counter() - begun) / epochs, np.array(losses)


if __name__ == "__main__":
    engine, count, epochs = sys.argv[1], *(int(a) for a in [*sys.argv[2:], *("12800", "3")[len(sys.argv) - 2 :]])
    pair, loop = (numpyro_pair, numpyro_loop) if engine == "numpyro" else (pyro_pair, pyro_loop)
    x = rows(count)
    found = {"probgen": ours(*pair(), x, epochs), "its loop": loop(*pair(), x, epochs)}
    for name, (seconds, loss) in found.items():
        print(f"{engine} {name:9s} {seconds:7.3f} s an epoch; nats a row: {np.array2string(loss, precision=1)}")
    print(f"{engine} ratio of times {found['probgen'][0] / found['its loop'][0]:.2f}")
