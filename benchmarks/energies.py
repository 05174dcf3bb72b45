"""Energies: the likelihood of a Boltzmann machine learned on MNIST, and the speed of learning and sampling.

    python benchmarks/energies.py mnist --hidden 20            exact log-likelihood, and AIS against it
    python benchmarks/energies.py mnist --hidden 500           a forward and a reverse AIS estimate
    python benchmarks/energies.py digits                       CD-1, CD-10 and PCD in five seeds, exact log-likelihoods
    python benchmarks/energies.py speed                        scikit-learn, a loop by hand; thrml, torchebm where installed

MNIST is read from data/mnist.npz in $PROBGEN_SHARED; each pixel is drawn with its grey level as probability, in the test rows
once, in the training rows as often as --draws says. Results are appended to a file.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import SHARED, say

# Settings by hidden units: learning rate, chains, and steps in a minute of two cores.
RATES, CHAINS = {20: 0.2, 500: 0.1}, 100
LIMITS = {20: 1.0, 500: 15.0}  # minutes
DRAWS = {20: 1, 500: 4}  # of every training row's pixels
BARS = {20: -137.5, 500: -84.5}
TEST_SEED = 1  # of the test rows' binarisation


def mnist(draws: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Binarised training and test rows, (draws * 60000, 784) and (10000, 784); ends the program where the file is missing."""
    from probgen.datasets import binarised

    file = SHARED / "data" / "mnist.npz"
    if not file.is_file():
        sys.exit(f"No MNIST in {file}.\nPut it there, or set PROBGEN_SHARED to the folder that holds data/mnist.npz.")
    with np.load(file) as arrays:
        train, test = arrays["x_train"], arrays["x_test"]
    rows = lambda x, seed: binarised(x, seed).reshape(len(x), -1)  # noqa: E731
    seeds = [seed for seed in range(draws + 1) if seed != TEST_SEED]
    return np.concatenate([rows(train, seed) for seed in seeds]), rows(test, TEST_SEED)


def learned(rows: np.ndarray, num_hidden: int, num_steps: int, rate: float, seed: int) -> tuple[Any, float]:
    """The fit by PCD-1, and its seconds."""
    import probgen as pg

    begun = time.perf_counter()
    data = {"v": rows, "num_visible": rows.shape[1], "num_hidden": num_hidden}
    settings = {"num_steps": num_steps, "learning_rate": rate, "num_chains": CHAINS}
    fit = pg.fit("rbm", data, "pcd", seed=seed, progress=False, **settings)
    return fit, time.perf_counter() - begun


def likelihood(asked: argparse.Namespace) -> dict[str, Any]:
    """Learn, then the mean test log-likelihood in nats with its exact constant, or between two estimates."""
    from probgen.engine.numpyro.sums.exact import TooLarge
    from probgen.evaluate import ais, energy

    train, test = mnist(asked.draws or DRAWS.get(asked.hidden, 1))
    rate = asked.rate or RATES.get(asked.hidden, 0.1)
    steps = asked.steps
    if not steps:  # as many as the minutes allow, by two short runs, the first to compile
        learned(train, asked.hidden, 100, rate, asked.seed)
        _, seconds = learned(train, asked.hidden, 101, rate, asked.seed)
        _, more = learned(train, asked.hidden, 400, rate, asked.seed)
        steps = int(60 * (asked.minutes or LIMITS.get(asked.hidden, 5.0)) / max(more - seconds, 1e-3) * 300)
    say(f"PCD-1: {steps} steps of 100 rows, rate {rate}, {CHAINS} chains, seed {asked.seed}")
    fit, seconds = learned(train, asked.hidden, steps, rate, asked.seed)
    record = {"benchmark": "mnist", "hidden": asked.hidden, "seed": asked.seed, "steps": steps, "rate": rate,
              "seconds": seconds, "machine": harness.machine(),
              "binarisation": f"{len(train) // 60000} draws of training rows, 1 of test rows (seed {TEST_SEED})"}  # fmt: skip
    record["rollbacks"] = int(fit.records["rollbacks"][0, -1])
    up = {k: -energy.free_energies(fit.target, fit.answer, {"v": rows}).mean()
          for k, rows in (("test", test), ("train", train[:10000]))}  # fmt: skip
    target = fit.condition().blocked()
    begun = time.perf_counter()
    found = ais.estimate(
        target, {"v": train}, seed=asked.seed, num_chains=asked.chains, num_temperatures=asked.temperatures,
        num_pilot=asked.temperatures // 5, num_burn=5000,
    )  # fmt: skip
    record |= {"ais": found._asdict(), "ais_seconds": time.perf_counter() - begun}
    record |= {f"{k}_from_reverse": float(x - found.reverse) for k, x in up.items()}
    record |= {f"{k}_from_forward": float(x - found.forward) for k, x in up.items()}
    try:
        record["exact"] = energy.log_z(target).value
        record |= {k: float(x - record["exact"]) for k, x in up.items()}
    except TooLarge:
        record |= {k: float(x - found.value) for k, x in up.items()}
    return record


def told(record: dict[str, Any]) -> str:
    """A record in words."""
    found, bar = record["ais"], BARS.get(record["hidden"])
    kind = "exact" if "exact" in record else "by AIS, reverse to forward " \
        f"{record['test_from_reverse']:.2f} to {record['test_from_forward']:.2f}"  # fmt: skip
    lines = [
        f"RBM 784-{record['hidden']}, {record['steps']} steps in {record['seconds']:.0f} s, seed {record['seed']}, "
        f"binarisation {record['binarisation']}, {record['rollbacks']} rollbacks",
        f"test {record['test']:.2f} nats ({kind}){f'; bar {bar}' if bar else ''}; train {record['train']:.2f}",
        f"log Z: {found['message']}, {found['num_temperatures']} temperatures, {record['ais_seconds']:.0f} s",
    ]
    if "exact" in record:
        lines.append(
            f"log Z exact {record['exact']:.3f}; forward {found['forward'] - record['exact']:+.3f}, reverse "
            f"{found['reverse'] - record['exact']:+.3f}, their mean {found['value'] - record['exact']:+.3f}"
        )
    return "\n".join(lines)


# ---- digits ------------------------------------------------------------------------------------------------------

DIGITS = {
    "CD-1": ("cd", {}),
    "CD-10": ("cd", {"num_sweeps": 10}),
    "PCD": ("pcd", {"num_chains": 1000}),
}  # the last two cost the same


def digits(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Exact log-likelihoods in nats of binarised digits, 16 hidden units, and in how many seeds CD-1 < CD-10 <= PCD."""
    import probgen as pg

    good = 0
    for seed in range(asked.seeds):
        found, seconds = {}, {}
        for name, (inference, settings) in DIGITS.items():
            begun = time.perf_counter()
            given = {"num_steps": asked.steps, "learning_rate": 0.1, "seed": seed, "progress": False} | settings
            fit = pg.fit("rbm", "digits", inference, **given)
            seconds[name] = time.perf_counter() - begun
            found[name] = float(fit.log_prob().value.mean())
        ordered = found["CD-1"] < found["CD-10"] <= found["PCD"]
        good += ordered
        say(f"seed {seed}: {', '.join(f'{k} {v:.3f} ({seconds[k]:.0f} s)' for k, v in found.items())}: {ordered}")
        yield {"benchmark": "digits", "hidden": 16, "seed": seed, "nats": found, "seconds": seconds, "steps": asked.steps,
               "ordered": ordered, "machine": harness.machine()}  # fmt: skip
    say(f"CD-1 < CD-10 <= PCD in {good} of {asked.seeds} seeds")


# ---- speed -------------------------------------------------------------------------------------------------------


def best(job: Callable[[], Any], repeats: int = 3) -> float:
    """The least seconds of a few runs, after one that is not counted."""
    job()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        job()
        found.append(time.perf_counter() - begun)
    return min(found)


def epoch_ours(rows: np.ndarray) -> float:
    """Seconds of an epoch of PCD-1, 784-500, batches of 100: of 1200 steps less those of 600."""
    seconds = {}
    for steps in (600, 1200):
        seconds[steps] = best(lambda steps=steps: learned(rows, 500, steps, 0.05, 0), 2)
    return seconds[1200] - seconds[600]


def epoch_sklearn(rows: np.ndarray) -> float:
    """The same by scikit-learn's partial_fit."""
    from sklearn.neural_network import BernoulliRBM

    model = BernoulliRBM(500, learning_rate=0.05, batch_size=100, random_state=0)
    rows = rows.astype(np.float32)

    def epoch() -> None:
        for start in range(0, len(rows), 100):
            model.partial_fit(rows[start : start + 100])

    return best(epoch, 2)


def sweeps_ours(weights: np.ndarray, chains: int, steps: int) -> float:
    """Sweeps a second of the sampler that is derived from the density."""
    import jax

    from probgen import runtime
    from probgen.run import conditioned

    def program(W: Any) -> None:
        import numpyro

        from probgen.measures import bits

        v, h = numpyro.sample("v", bits(W.shape[0])), numpyro.sample("h", bits(W.shape[1]))
        numpyro.factor("energy", v @ W @ h)

    with runtime.jax_scope("float32"):
        target = conditioned(program, {"W": weights}, precision="float32")[1].blocked()

        @jax.jit
        def run(target: Any, key: Any, values: Any) -> Any:
            one = lambda i, x: jax.vmap(target.sweep)(jax.random.split(jax.random.fold_in(key, i), chains), x)  # noqa: E731
            return jax.lax.fori_loop(0, steps, one, values)

        values = jax.vmap(target.start)(jax.random.split(jax.random.key(0), chains))
        return steps / best(lambda: jax.block_until_ready(run(target, jax.random.key(1), values)))


def sweeps_by_hand(weights: np.ndarray, chains: int, steps: int) -> float:
    """Sweeps a second of block Gibbs written out in JAX."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def run(W: Any, key: Any, h: Any) -> Any:
        def one(i: Any, h: Any) -> Any:
            k1, k2 = jax.random.split(jax.random.fold_in(key, i))
            v = (jax.random.uniform(k1, (chains, W.shape[0])) < jax.nn.sigmoid(h @ W.T)).astype(W.dtype)
            return (jax.random.uniform(k2, h.shape) < jax.nn.sigmoid(v @ W)).astype(W.dtype)

        return jax.lax.fori_loop(0, steps, one, h)

    W, h = jnp.asarray(weights, "float32"), jnp.zeros((chains, weights.shape[1]), "float32")
    return steps / best(lambda: jax.block_until_ready(run(W, jax.random.key(0), h)))


def sweeps_thrml(weights: np.ndarray, chains: int, steps: int) -> float:
    """Sweeps a second of thrml's block Gibbs on the same machine."""
    import jax
    import jax.numpy as jnp
    from thrml import Block, SamplingSchedule, SpinNode, sample_states
    from thrml.models import IsingEBM, IsingSamplingProgram, hinton_init

    size, other = weights.shape
    left, right = [SpinNode() for _ in range(size)], [SpinNode() for _ in range(other)]
    edges = [(a, b) for a in left for b in right]
    model = IsingEBM([*left, *right], edges, jnp.zeros(size + other), jnp.asarray(weights.ravel() / 4), jnp.array(1.0))
    blocks = [Block(left), Block(right)]
    program, schedule = IsingSamplingProgram(model, blocks, []), SamplingSchedule(steps, 1, 1)
    start = hinton_init(jax.random.key(0), model, blocks, (chains,))
    sample = lambda k, s: sample_states(k, program, schedule, s, [], [Block(right)])  # noqa: E731
    run = jax.jit(jax.vmap(sample))
    keys = jax.random.split(jax.random.key(1), chains)
    return steps / best(lambda: jax.block_until_ready(run(keys, start)))


def langevin_ours(weights: list[np.ndarray], chains: int) -> float:
    """Langevin steps a second of all chains together, by `ula` without warm-up: of 300 steps less those of 100."""
    import probgen as pg

    def program(W1: Any, W2: Any, w3: Any) -> None:
        import jax
        import numpyro

        from probgen.measures import reals

        x = numpyro.sample("x", reals(2))
        numpyro.factor("energy", jax.nn.silu(jax.nn.silu(x @ W1) @ W2) @ w3 - 0.5 * x @ x)

    data = dict(zip(("W1", "W2", "w3"), weights, strict=True))
    settings = {"num_chains": chains, "num_warmup": 0, "step_size": 0.1, "thin": 25, "start": "uniform",
                "metric": "diagonal", "precision": "float32", "progress": False}  # fmt: skip
    seconds = {n: best(lambda n=n: pg.fit(program, data, "ula", num_samples=n, **settings), 2) for n in (4, 12)}
    return 200 / (seconds[12] - seconds[4])


def langevin_torchebm(weights: list[np.ndarray], chains: int) -> float:
    """The same by torchebm's LangevinDynamics, on as many threads as there are cores."""
    import torch
    from torchebm.core import BaseModel
    from torchebm.samplers import LangevinDynamics

    class Energy(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.W1, self.W2, self.w3 = (torch.nn.Parameter(torch.tensor(w, dtype=torch.float32)) for w in weights)

        def forward(self, x: Any) -> Any:
            silu = torch.nn.functional.silu
            return 0.5 * (x * x).sum(-1) - silu(silu(x @ self.W1) @ self.W2) @ self.w3

    sampler = LangevinDynamics(Energy(), step_size=0.005, noise_scale=1.0)
    start = torch.randn(chains, 2)
    return 200 / best(lambda: sampler.sample(x=start, n_steps=200), 2)


def speed(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Every comparison as a record: what, ours, theirs, and how many times faster ours is."""
    rng, records = np.random.default_rng(0), []

    def add(what: str, unit: str, ours: float, theirs: float) -> None:
        ratio = theirs / ours if unit == "s" else ours / theirs
        records.append({"benchmark": "speed", "hidden": what, "seed": asked.seed, "unit": unit, "ours": ours,
                        "theirs": theirs, "ratio": ratio, "machine": harness.machine()})  # fmt: skip
        say(f"{what}: {ours:.4g} against {theirs:.4g} {unit}, {ratio:.2f} times")

    weights = 0.05 * rng.normal(size=(784, 500))
    add("Gibbs sweeps 784x500, 100 chains, against a loop by hand", "sweeps/s",
        sweeps_ours(weights, 100, 1000), sweeps_by_hand(weights, 100, 1000))  # fmt: skip
    if importlib.util.find_spec("thrml"):
        small = 0.1 * rng.normal(size=(64, 32))
        add("Gibbs sweeps 64x32, 100 chains, against thrml", "sweeps/s",
            sweeps_ours(small, 100, 5000), sweeps_thrml(small, 100, 5000))  # fmt: skip
    else:
        say("thrml is not installed: not compared.")
    if importlib.util.find_spec("torchebm"):
        layers = [rng.normal(size=shape) / np.sqrt(shape[0]) for shape in ((2, 128), (128, 128), (128,))]
        add("Langevin steps, perceptron 2-128-128, 10,000 chains, against torchebm", "steps/s",
            langevin_ours(layers, 10_000), langevin_torchebm(layers, 10_000))  # fmt: skip
    else:
        say("torchebm is not installed: not compared.")
    train, _ = mnist()
    add("RBM epoch 784-500, batch 100, PCD-1, against scikit-learn", "s", epoch_ours(train), epoch_sklearn(train))
    return records


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("mnist", help="test log-likelihood of an RBM learned by PCD-1")
    one.add_argument("--hidden", type=int, default=20, help="hidden units (default 20; exact up to 25)")
    one.add_argument("--minutes", type=float, help="time to learn (default: 1 for 20 hidden units, 15 for 500)")
    one.add_argument("--steps", type=int, help="steps instead of minutes: repeatable to the bit")
    one.add_argument("--draws", type=int, help=f"of every training row's pixels (default by hidden units: {DRAWS})")
    one.add_argument("--rate", type=float, help=f"learning rate (default by hidden units: {RATES})")
    one.add_argument("--chains", type=int, default=2000, help="particles of AIS (default 2000)")
    one.add_argument("--temperatures", type=int, default=2000, help="of AIS (default 2000)")
    three = commands.add_parser("digits", help="contrastive divergence beside persistent chains, exact log-likelihoods")
    three.add_argument("--seeds", type=int, default=5)
    three.add_argument("--steps", type=int, default=10_000)
    two = commands.add_parser("speed", help="epochs and sweeps, side by side")
    for command in (one, two, three):
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--out", type=Path, default=harness.HERE / "energies.jsonl", help="results, appended")
        command.add_argument("--fresh", action="store_true", help="forget the results in --out first")
    return parser.parse_args()


def main() -> None:
    asked = options()
    results = harness.Results(asked.out, ("benchmark", "hidden", "seed"), asked.fresh)
    if asked.command == "mnist":
        record = likelihood(asked)
        results.add(record)
        say(told(record))
    else:
        for record in (digits if asked.command == "digits" else speed)(asked):
            results.add(record)


if __name__ == "__main__":
    main()
