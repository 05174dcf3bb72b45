"""The density of points on the plane by an ODE beside zuko's CNF: the same weights, the same tolerance, one run.

    pip install zuko        (and torch)
    python benchmarks/diffusion_ode.py

zuko's own net learns two moons by flow matching, its weights go over to JAX, and both find log p of 1,000 points by their defaults
at a relative tolerance of 1e-5 and an absolute one of 1e-6. Printed: seconds, compilation apart; the ratio, whose bar is 3; and by
how much each is off from a solve in float64 at 1e-10. probgen counts one solve, as zuko does; `density`, whose second solve
is there to know the error, is a row of its own. zuko switches torch's validation of distributions off for the process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import torch
import zuko

from probgen.data.toys import two_moons
from probgen.nets.diffusion.flow import ContinuousFlow, Solver, density

SOLVER = Solver(rtol=1e-5, atol=1e-6)


def learned(width: int, depth: int, steps: int) -> Any:
    """A CNF of zuko's whose velocity has learned straight paths from two moons, t = 0, to noise, t = 1."""
    torch.manual_seed(0)
    flow = zuko.flows.CNF(2, hidden_features=(width,) * depth, rtol=SOLVER.rtol, atol=SOLVER.atol)
    optimiser = torch.optim.Adam(flow.parameters(), 1e-3)
    rows = torch.tensor(two_moons(20_000, seed=0), dtype=torch.float32)
    for _ in range(steps):
        x = rows[torch.randint(len(rows), (256,))]
        e, t = torch.randn(256, 2), torch.rand(256)
        z = (1 - t[:, None]) * x + t[:, None] * e
        loss = (flow.transform.f(t, z) - (e - x)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return flow.eval()


def ported(flow: Any, dtype: Any) -> Callable[[Any, Any], Any]:
    """The same velocity in JAX, in our time: 0 is noise."""
    layers = [m for m in flow.transform.ode.modules() if hasattr(m, "weight")]  # of zuko's own kind
    weights = [
        (jnp.asarray(m.weight.detach().numpy(), dtype), jnp.asarray(m.bias.detach().numpy(), dtype)) for m in layers
    ]
    freqs = jnp.asarray(flow.transform.freqs.numpy(), dtype)

    def velocity(x: Any, u: Any) -> Any:
        t = freqs * (1 - u)
        h = jnp.concatenate([jnp.cos(t), jnp.sin(t), x])
        for w, b in weights[:-1]:
            h = jax.nn.elu(w @ h + b)
        return -(weights[-1][0] @ h + weights[-1][1])

    return velocity


def of_flow(velocity: Any, solver: Solver) -> Any:
    noise = dist.Normal(0, 1).expand((2,)).to_event(1)
    return jax.jit(dist.TransformedDistribution(noise, [ContinuousFlow(velocity, 2, solver=solver)]).log_prob)


def seconds(*calls: Callable[[], Any], repeats: int) -> list[float]:
    """The median of each, in turns so that what else the machine does falls on all."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, times in zip(calls, taken, strict=True):
            begun = time.perf_counter()
            call()
            times.append(time.perf_counter() - begun)
    return [statistics.median(times) for times in taken]


def theirs(flow: Any, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return flow().log_prob(x).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=2000, help="of learning")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    x = two_moons(given.points, seed=1).astype(np.float32)
    print(
        f"zuko {zuko.__version__}, torch {torch.__version__}, jax {jax.__version__}; {torch.get_num_threads()} threads of torch"
    )
    print("net | zuko s | probgen s | ratio | with its error s | compile s | zuko's largest error | ours")
    for width, depth in ((64, 2), (256, 3)):
        flow = learned(width, depth, given.steps)
        velocity = ported(flow, jnp.float32)
        ask, rows, points = of_flow(velocity, SOLVER), jnp.asarray(x), torch.tensor(x)
        begun = time.perf_counter()
        ours = np.asarray(ask(rows))
        compiled = time.perf_counter() - begun
        both = lambda: jax.block_until_ready(density(velocity, rows, solver=SOLVER))  # noqa: E731, B023
        both()
        times = seconds(
            lambda: theirs(flow, points), lambda: ask(rows).block_until_ready(), both, repeats=given.repeats  # noqa: B023
        )  # fmt: skip
        with jax.enable_x64(True):
            tight = of_flow(ported(flow, jnp.float64), Solver("dopri8", rtol=1e-10, atol=1e-10))
            exact = np.asarray(tight(jnp.asarray(x, jnp.float64)))
        errors = [np.abs(found - exact).max() for found in (theirs(flow, points), ours)]
        print(
            f"{width} x {depth} | {times[0]:.3f} | {times[1]:.3f} | {times[0] / times[1]:.1f} | {times[2]:.3f} | {compiled:.1f} "
            f"| {errors[0]:.1e} | {errors[1]:.1e}"
        )


if __name__ == "__main__":
    main()
