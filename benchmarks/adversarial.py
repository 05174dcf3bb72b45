"""Steps of the game on the grid of 25 beside a hand-written eager torch loop of the same nets, by turns in one process.

    python benchmarks/adversarial.py speed [--steps 200] [--rounds 5] [--algorithms gan wgan_gp]

Nets of PacGAN's sizes for points in the plane (Lin et al. 2018), without batch normalisation: a generator with two hidden layers of
400 relus, a critic with one hidden layer of 200 maxout units of five pieces. Batches of 100 points, Adam, one thread of torch.
Told are milliseconds a step of the program (with its steps of the critic), the least over rounds, of wall and of processor time,
and the loop's time in units of ours: above 1 we are faster. On a busy machine only processor time means something.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import harness
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import pyro
import pyro.distributions as pd
import torch
from torch import nn

from probgen import catalog, datasets
from probgen.nets.flows import registered as jax_net
from probgen.nets.pyro_modules import perceptron
from probgen.nets.pyro_modules import registered as torch_net

BATCH, WIDTH, UNITS, PIECES = 100, 400, 200, 5


# ---- the nets, three times


class Maxout(eqx.Module):
    inner: Any
    outer: Any

    def __init__(self, key: Any):
        one, two = jax.random.split(key)
        self.inner, self.outer = eqx.nn.Linear(2, UNITS * PIECES, key=one), eqx.nn.Linear(UNITS, "scalar", key=two)

    def __call__(self, x: Any) -> Any:
        return self.outer(self.inner(x).reshape(UNITS, PIECES).max(1))


class TorchMaxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2, UNITS * PIECES), nn.Linear(UNITS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.inner(x).unflatten(1, (UNITS, PIECES)).amax(2))[:, 0]


def jax_program(x=None):
    z = numpyro.sample("z", nd.Normal(0, 1).expand([2]).to_event(1))
    f = jax_net("generator", lambda key: eqx.nn.MLP(2, 2, WIDTH, 2, jax.nn.relu, key=key))
    numpyro.sample("x", nd.Delta(f(z), event_dim=1), obs=x)


def jax_critic(x):
    return jax_net("critic", Maxout)(x)


def torch_program(x):
    f = torch_net("generator", perceptron, 2, 2, WIDTH, 2)
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", pd.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", pd.Delta(f(z), event_dim=1), obs=x)


def torch_critic(x):
    return torch_net("critic", TorchMaxout)(x)


# ---- the contestants: each a function that makes so many steps


def ours(
    engine: Any, program: Any, critic: Any, name: str, x: np.ndarray, settings: dict[str, Any]
) -> Callable[..., Any]:
    target = engine.guided(engine.prepare(program, {"x": x}, "float32", True), None, critic)
    inference = catalog.inference(name, settings)
    return harness.steps_of(engine.Executor(inference, inference.prepare(target), 0, 1))


def loop(name: str, x: np.ndarray, settings: dict[str, Any]) -> Callable[..., Any]:
    """As one writes it by hand; the same losses, batches, optimisers and average."""
    points = torch.from_numpy(x).float()
    generator, critic = perceptron(2, 2, WIDTH, 2), TorchMaxout()
    average = [p.detach().clone() for p in generator.parameters()]
    betas = (settings["beta1"], settings["beta2"])
    model, rival = (torch.optim.Adam(net.parameters(), lr=1e-4, betas=betas) for net in (generator, critic))
    softplus = nn.functional.softplus

    def critic_step() -> None:
        real = points[torch.randint(len(points), (BATCH,))]
        with torch.no_grad():
            fake = generator(torch.randn(BATCH, 2))
        if name == "gan":
            loss = softplus(-critic(real)).mean() + softplus(critic(fake)).mean()
        else:
            share = torch.rand(BATCH, 1)
            between = (share * real + (1 - share) * fake).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            penalty = ((slope.square().sum(1) + 1e-12).sqrt() - 1).square().mean()
            loss = critic(fake).mean() - critic(real).mean() + settings["penalty"] * penalty
        rival.zero_grad()
        loss.backward()
        rival.step()

    def advance(steps: int) -> None:
        for _ in range(steps):
            for _ in range(settings["critic_steps"]):
                critic_step()
            said = critic(generator(torch.randn(BATCH, 2)))
            loss = softplus(-said).mean() if name == "gan" else -said.mean()
            model.zero_grad()
            loss.backward()
            model.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, list(generator.parameters()), 0.001)

    return advance


# ---- the race


def timed(advance: Callable[..., Any], steps: int) -> tuple[float, float]:
    """Wall and processor time of a step, in milliseconds."""
    wall, own = time.perf_counter(), time.process_time()
    advance(steps)
    return (time.perf_counter() - wall) / steps * 1e3, (time.process_time() - own) / steps * 1e3


def speed(algorithms: list[str], steps: int, rounds: int) -> None:
    from probgen.engine.numpyro import engine as jax_engine
    from probgen.engine.pyro import engine as torch_engine

    x = np.asarray(datasets.load("grid_25"))
    torch.set_num_threads(1)
    for name in algorithms:
        inference = catalog.inference(name, {"batch_size": BATCH})
        settings = inference.settings() | {"num_steps": 10**6}
        own = {"batch_size": BATCH, "num_steps": 10**6}
        race = {
            "loop": loop(name, x, settings),
            "pyro": ours(torch_engine, torch_program, torch_critic, name, x, own),
            "numpyro": ours(jax_engine, jax_program, jax_critic, name, x, own),
        }
        for word, advance in race.items():
            advance(steps)  # compiles, and warms caches
            print(f"{name}: {word} is warm", flush=True)
        times: dict[str, list[tuple[float, float]]] = {word: [] for word in race}
        for i in range(rounds):
            for word, advance in race.items():
                times[word].append(timed(advance, steps))
            print(f"{name}: round {i + 1} of {rounds}", flush=True)
        least = {word: np.min(found, axis=0) for word, found in times.items()}
        for word, (wall, cpu) in least.items():
            ratio = least["loop"] / (wall, cpu)
            print(
                f"{name:8} {word:8} {wall:7.2f} ms wall, {cpu:7.2f} ms processor; "
                f"the loop takes {ratio[0]:.2f}x the wall time and {ratio[1]:.2f}x the processor time",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed"])
    parser.add_argument("--algorithms", nargs="+", default=["gan", "wgan_gp"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    speed(given.algorithms, given.steps, given.rounds)


if __name__ == "__main__":
    jnp.zeros(())  # JAX starts before torch's threads
    main()
