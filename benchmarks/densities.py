"""Tractable densities: test log-likelihoods in the plane, on digits and on MNIST, and speed beside other libraries.

    python benchmarks/densities.py plane --models realnvp maf neural_spline --seeds 5
    python benchmarks/densities.py digits                     every model on one split, bits and grey levels apart
    python benchmarks/densities.py dequantisation             bits a pixel of digits' levels, by uniform noise and by a learned one
    python benchmarks/densities.py mnist --models made fvsbn  test nats, binarised
    python benchmarks/densities.py grey --models glow         MNIST's grey levels, bits a pixel
    python benchmarks/densities.py speed                      MADE beside a torch loop, PixelCNN's sampling, flows beside FlowJAX
    python benchmarks/densities.py table                      densities.md, from the results

MNIST is read from data/mnist.npz in $PROBGEN_SHARED; each pixel is a draw with its grey level as probability, of the test rows
once, of the training rows anew at each step, or as often as --draws says. Results are appended to a file.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
from energies import TEST_SEED, best
from harness import SHARED, say

PLANE = {"realnvp": 0.015, "maf": 0.03, "neural_spline": 0.006}  # nats above the truth that a flow may be, on two moons
BITS = ("bernoulli_mixture", "fvsbn", "nade", "made", "pixelrnn", "pixelcnn")
GREY = ("gaussian", "gaussian_mixture", "maf", "realnvp", "neural_spline")
MNIST: dict[str, tuple[dict[str, Any], str, dict[str, Any], float, float]] = {
    # name: settings of the model, algorithm, its settings, bar and published figure in nats
    "bernoulli_mixture_10": ({"num_components": 10}, "em", {"num_steps": 100, "tolerance": 1e-3}, -170, -168.95),
    "bernoulli_mixture_100": ({"num_components": 100}, "em", {"num_steps": 60, "tolerance": 1e-3}, -144, -142.63),
    "bernoulli_mixture_500": ({"num_components": 500}, "em", {"num_steps": 40, "tolerance": 1e-3}, -139, -137.64),
    "fvsbn": ({}, "mle", {"num_steps": 20_000, "batch_size": 100, "learning_rate": 0.003}, -97.5, -96.58),
    "nade": ({"num_hidden": 500}, "mle", {"num_steps": 10_000, "batch_size": 100, "learning_rate": 0.003}, -88, -88.33),
    "made": ({"width": 500}, "mle", {"num_steps": 40_000, "batch_size": 100, "learning_rate": 0.003}, -88, -88.40),
    "made_orders": (
        {"width": 1000, "depth": 2, "num_orders": 2}, "mle",
        {"num_steps": 30_000, "batch_size": 100, "learning_rate": 0.002}, -86, -86.64,
    ),
    "pixelcnn": (
        {"num_layers": 7, "num_filters": 32, "first": 7}, "mle",
        {"num_steps": 6000, "batch_size": 64, "learning_rate": 0.001}, -86, -81.30,
    ),
    "pixelcnn_pyro": (
        {"num_layers": 7, "num_filters": 32}, "mle",
        {"num_steps": 12_000, "batch_size": 16, "learning_rate": 0.002, "ema": 0.998, "compiled": True}, -86, -81.30,
    ),
}  # fmt: skip
BITS_PER_DIM: dict[str, tuple[dict[str, Any], dict[str, Any], float, float]] = {
    # name: settings of the model and of mle, bar and published figure in bits a pixel
    "glow": (
        {"num_levels": 2, "num_steps": 8, "hidden": 64},
        {"num_steps": 10_000, "batch_size": 50, "learning_rate": 0.001, "ema": 0.999}, 1.25, 1.05,
    ),
    "realnvp_images": (
        {"num_levels": 2, "num_steps": 2, "hidden": 32, "knots": 8},
        {"num_steps": 10_000, "batch_size": 16, "learning_rate": 0.002, "ema": 0.998}, 1.25, 1.06,
    ),
}  # fmt: skip


# ---- the plane ---------------------------------------------------------------------------------------------------


def plane(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Test nats of flows above those of the true density, after 5,000 steps of 512 rows; a mean over seeds."""
    import probgen as pg
    from probgen.data.toys import TOYS

    toy = TOYS[asked.toy]
    test = toy(50_000, seed=10_001)
    truth = -toy.log_prob(test).mean()
    for name in asked.models or PLANE:
        gaps = []
        for seed in range(asked.seeds):
            data = {"x": toy(500_000, seed=seed + 1), "dim": 2}
            begun = time.perf_counter()
            fit = pg.fit(name, data, "mle", num_steps=5000, batch_size=512, seed=seed, progress=False)
            seconds = time.perf_counter() - begun
            size = sum(v.size for v in fit.parameters.values())
            gap = float(-fit.log_prob(x=test).value.mean() - truth)
            gaps.append(gap)
            record = {"benchmark": f"plane {asked.toy}", "model": name, "seed": seed, "gap": gap, "parameters": size,
                          "seconds": seconds, "truth": float(truth), "machine": harness.machine()}  # fmt: skip
            yield record
            say(
                f"{name} on {asked.toy}, seed {seed}: truth {truth:.4f} + {gap:.4f} nats; {size} parameters, {seconds:.0f} s"
            )
        bar = f"; bar {PLANE[name]}" if asked.toy == "two_moons" and name in PLANE else ""
        say(f"{name}: mean of {len(gaps)} seeds + {np.mean(gaps):.4f}{bar}")


# ---- digits ------------------------------------------------------------------------------------------------------


def digits(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Test nats on the last 360 of the 1797 digits: of bits, and of grey levels with uniform noise."""
    import probgen as pg
    from probgen import catalog, datasets

    rng, cut = np.random.default_rng(0), 1437
    bits = datasets.digits()
    grey = (datasets.digits_grey() * 16 + rng.random(bits.shape)) / 17
    for kind, images, names in (("bits", bits, BITS), ("grey levels with uniform noise", grey, GREY)):
        for name in asked.models or names:
            if name not in names:
                continue
            data = catalog.model(name).given_rows(images[:cut])
            mixture = "mixture" in name
            data |= {"num_components": 10} if mixture else {}
            settings = {} if mixture or name == "gaussian" else {"validation": 0.1, "num_steps": asked.steps or 4000}
            begun = time.perf_counter()
            fit = pg.fit(name, data, "mle" if settings else "em", seed=asked.seed, progress=False, **settings)
            seconds = time.perf_counter() - begun
            rows = catalog.model(name).given_rows(images[cut:])["x"]
            nats = float(fit.log_prob(x=rows).value.mean())
            yield {"benchmark": f"digits, {kind}", "model": name, "seed": asked.seed, "nats": nats,
                          "seconds": seconds, "machine": harness.machine()}  # fmt: skip
            say(f"{name} on digits, {kind}: {nats:.2f} nats on test rows, {seconds:.0f} s")


def dequantisation(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Bits a pixel of the last 360 digits' 17 levels, bounds by one spline flow with uniform noise and with a flow's."""
    import probgen as pg
    from probgen import catalog
    from probgen.evaluate.density import bits_per_dim

    whole, cut = catalog.model("dequantised_spline").default_data(), 1437
    for noise in asked.models or ("uniform", "flow"):
        data = {**whole, "x": whole["x"][:cut], "noise": noise}
        begun = time.perf_counter()
        steps = asked.steps or 2000
        fit = pg.fit("dequantised_spline", data, "svi", num_steps=steps, seed=asked.seed, progress=False)
        seconds, test = time.perf_counter() - begun, whole["x"][cut:]
        elbo = bits_per_dim(fit.log_prob(test, method="elbo", num_particles=20).value, whole["dim"]).value
        bits = bits_per_dim(fit.log_prob(test, num_particles=200).value, whole["dim"]).value
        yield {"benchmark": "digits, 17 levels, bounds by 200 draws and by the ELBO", "model": f"{noise} noise", "seed": asked.seed,
               "bits": bits, "elbo": elbo, "steps": steps, "seconds": seconds, "machine": harness.machine()}  # fmt: skip
        say(f"{noise} noise: {bits:.3f} bits a pixel by 200 draws, {elbo:.3f} by the ELBO, {seconds:.0f} s")


# ---- MNIST -------------------------------------------------------------------------------------------------------


def levels() -> tuple[np.ndarray, np.ndarray]:
    """MNIST's training and test pictures, 0 ... 255: (60000, 28, 28) and (10000, 28, 28)."""
    file = SHARED / "data" / "mnist.npz"
    if not file.is_file():
        sys.exit(f"No MNIST in {file}.\nPut it there, or set PROBGEN_SHARED to the folder that holds data/mnist.npz.")
    with np.load(file) as arrays:
        return arrays["x_train"], arrays["x_test"]


def pictures(draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Binarised training and test pictures, booleans (draws * 60000, 28, 28) and (10000, 28, 28).

    draws=0: the training pictures' grey levels, from 0 to 1, of which learners draw bits anew at each step.
    """
    from probgen.datasets import binarised

    train, test = levels()
    once = binarised(test, TEST_SEED).astype(bool)
    if not draws:
        return (train / 255).astype(np.float32), once
    seeds = [seed for seed in range(draws + 1) if seed != TEST_SEED]
    return np.concatenate([binarised(train, seed).astype(bool) for seed in seeds]), once


def said(draws: int) -> str:
    """How the pictures were binarised."""
    training = f"{draws} draws of training rows" if draws else "training rows drawn anew at each step"
    return f"{training}, 1 draw of test rows (seed {TEST_SEED})"


def grey(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Bits a pixel of MNIST's 256 grey levels with uniform noise, an upper bound on those of the levels, one draw of the noise."""
    import probgen as pg
    from probgen import catalog
    from probgen.data.dequantise import dequantised
    from probgen.evaluate.density import bits_per_dim

    train, test = (dequantised(x, 256, seed).astype(np.float32) for seed, x in enumerate(levels()))
    for name in asked.models or BITS_PER_DIM:
        settings, of_algorithm, bar, published = BITS_PER_DIM[name]
        of_algorithm = of_algorithm | ({"num_steps": asked.steps} if asked.steps else {})
        data = {**catalog.model(name).given_rows(train), **settings}
        begun = time.perf_counter()
        fit = pg.fit(name, data, "mle", seed=asked.seed, progress=sys.stderr.isatty(), **of_algorithm)
        seconds = time.perf_counter() - begun
        parts = np.split(catalog.model(name).given_rows(test)["x"], 50)
        nats = np.concatenate([fit.log_prob(x=part).value for part in parts])
        bits = bits_per_dim(nats, 784, levels=256).value
        yield {"benchmark": "mnist, grey", "model": name, "seed": asked.seed, "bits": bits, "bar": bar, "published": published,
               "steps": fit.num_steps, "seconds": seconds, "settings": str(settings | of_algorithm),
               "binarisation": "256 levels with uniform noise", "machine": harness.machine()}  # fmt: skip
        say(
            f"{name}: {bits:.3f} bits a pixel (bar {bar}, published {published}), {fit.num_steps} steps, {seconds:.0f} s"
        )


def mnist(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Exact test nats of models of bits."""
    import probgen as pg
    from probgen import catalog

    for name in asked.models or MNIST:
        settings, algorithm, of_algorithm, bar, published = MNIST[name]
        draws = (1 if algorithm == "em" else 0) if asked.draws is None else asked.draws
        word = next(known for known in ("bernoulli_mixture", name.partition("_orders")[0]) if name.startswith(known))
        train, test = pictures(draws)
        data = {**catalog.model(word).given_rows(train), **settings}
        of_algorithm = of_algorithm | ({"num_steps": asked.steps} if asked.steps else {})
        begun = time.perf_counter()
        fit = pg.fit(word, data, algorithm, seed=asked.seed, progress=sys.stderr.isatty(), **of_algorithm)
        seconds = time.perf_counter() - begun
        rows = catalog.model(word).given_rows(test)["x"]
        nats = float(np.mean([fit.log_prob(x=part).value.mean() for part in np.split(rows, 20)]))
        yield {"benchmark": "mnist", "model": name, "seed": asked.seed, "nats": nats, "bar": bar,
                      "published": published, "steps": fit.num_steps, "seconds": seconds, "settings": str(settings | of_algorithm),
                      "binarisation": said(draws),
                      "machine": harness.machine()}  # fmt: skip
        say(
            f"{name}: {nats:.2f} nats on test rows (bar {bar}, published {published}), {fit.num_steps} steps, {seconds:.0f} s"
        )


# ---- speed -------------------------------------------------------------------------------------------------------


def made_epoch(rows: np.ndarray) -> float:
    """Seconds of an epoch of MADE 784-500-784, batches of 100: of 1200 steps less those of 600."""
    import probgen as pg

    data = {"x": rows, "dim": rows.shape[1], "width": 500, "direct": False}
    fit = lambda steps: pg.fit("made", data, "mle", num_steps=steps, batch_size=100, progress=False)  # noqa: E731
    return best(lambda: fit(1200), 2) - best(lambda: fit(600), 2)


def made_epoch_torch(rows: np.ndarray) -> float:
    """The same net in a plain eager torch loop."""
    import torch

    torch.manual_seed(0)
    x, (width, dim) = torch.as_tensor(rows, dtype=torch.float32), (500, rows.shape[1])
    degree = torch.linspace(1, dim - 1, width).round()
    first, last = (
        (degree[:, None] >= torch.arange(1, dim + 1)).float(),
        (torch.arange(1, dim + 1)[:, None] > degree).float(),
    )
    W, b = torch.randn(width, dim).mul_((2 / dim) ** 0.5).requires_grad_(), torch.zeros(width, requires_grad=True)
    V, c = torch.randn(dim, width).div_(width**0.5).requires_grad_(), torch.zeros(dim, requires_grad=True)
    adam = torch.optim.Adam([W, b, V, c], lr=0.001)

    def epoch() -> None:
        order = torch.randperm(len(x))
        for start in range(0, len(x), 100):
            batch = x[order[start : start + 100]]
            hidden = torch.relu(batch @ (W * first).T + b)
            logits = hidden @ (V * last).T + c
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch, reduction="sum") / 100
            adam.zero_grad()
            loss.backward()
            adam.step()

    return best(epoch, 2)


def flow_steps(name: str) -> tuple[float, float, int]:
    """Steps per second of 512 rows of two moons: ours, and FlowJAX's own loop with the same flow; its parameters."""
    import jax
    import jax.numpy as jnp
    import optax
    from flowjax.train import fit_to_data
    from numpyro import handlers

    import probgen as pg
    from probgen import catalog
    from probgen.data.toys import two_moons

    x = two_moons(51_200, seed=1)
    fit = lambda steps: pg.fit(name, {"x": x, "dim": 2}, "mle", num_steps=steps, batch_size=512, progress=False)  # noqa: E731
    seconds = best(lambda: fit(2000), 2) - best(lambda: fit(1000), 2)
    program = handlers.seed(catalog.model(name).program, jax.random.key(0))
    flow = handlers.trace(program).get_trace()["x"]["fn"].flow
    rows = jnp.asarray(x, jnp.float32)

    def theirs(epochs: int) -> None:
        fit_to_data(
            jax.random.key(0), flow, rows, optimizer=optax.adam(1e-3), max_epochs=epochs, batch_size=512, val_prop=0.01,
            show_progress=False, max_patience=1000,
        )  # fmt: skip

    slow = best(lambda: theirs(20), 1) - best(lambda: theirs(10), 1)
    size = sum(a.size for a in jax.tree.leaves(flow) if hasattr(a, "dtype") and a.dtype.kind == "f")
    return 1000 / seconds, 10 * (51_200 * 0.99 // 512) / slow, size


ZUKO = {"realnvp": "NICE", "maf": "MAF", "neural_spline": "NSF"}  # its NICE scales, too


def zuko_steps(name: str, size: int) -> tuple[float, int]:
    """Steps per second of Zuko's flow of that name in a plain torch loop, 512 rows; and its parameters, about `size` of them."""
    import torch
    import zuko

    from probgen.data.toys import two_moons

    def made(width: int) -> Any:
        layers = {"realnvp": 8, "maf": 8, "neural_spline": 6}[name]
        return getattr(zuko.flows, ZUKO[name])(2, transforms=layers, hidden_features=(width, width))

    count = lambda flow: sum(p.numel() for p in flow.parameters())  # noqa: E731
    flow = min((made(width) for width in range(8, 129, 8)), key=lambda flow: abs(count(flow) - size))
    x = torch.as_tensor(two_moons(51_200, seed=1), dtype=torch.float32)
    adam = torch.optim.Adam(flow.parameters(), 1e-3)

    def run(steps: int = 200) -> None:
        for i in range(steps):
            rows = x[(512 * i) % 51_200 :][:512]
            adam.zero_grad()
            (-flow().log_prob(rows).mean()).backward()
            adam.step()

    return 200 / best(run, 2), count(flow)


def pixelcnn_sampling(side: int) -> tuple[float, float]:
    """Seconds to draw 16 pictures: with cached activations, and with the whole picture recomputed for every pixel."""
    import jax
    import jax.numpy as jnp
    from numpyro import handlers

    from probgen import catalog

    program = handlers.seed(catalog.model("pixelcnn").program, jax.random.key(0))
    fn = handlers.trace(lambda: program(height=side, width=side)).get_trace()["x"]["fn"]
    cached = jax.jit(lambda key: fn.sample(key, (16,)))

    @jax.jit
    def whole(key: Any) -> Any:
        def pixel(i: Any, x: Any) -> Any:
            at = jnp.zeros(side * side).at[i].set(1.0).reshape(side, side)
            log_odds = jax.vmap(lambda one: fn.log_prob(one * (1 - at) + at) - fn.log_prob(one * (1 - at)))(x)
            on = jax.random.bernoulli(jax.random.fold_in(key, i), jax.nn.sigmoid(log_odds))
            return x * (1 - at) + at * on[:, None, None]

        return jax.lax.fori_loop(0, side * side, pixel, jnp.zeros((16, side, side)))

    timed = lambda f: best(lambda: jax.block_until_ready(f(jax.random.key(1))), 2)  # noqa: E731
    return timed(cached), timed(whole) / 2  # which evaluates two pictures a pixel


def speed(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Ratios of one run."""

    def told(what: str, ours: float, theirs: float, unit: str, faster: float) -> dict[str, Any]:
        record = {"benchmark": "speed", "model": what, "seed": 0, "ours": ours, "theirs": theirs, "ratio": faster,
                      "unit": unit, "machine": harness.machine()}  # fmt: skip
        say(f"{what}: {ours:.4g} {unit}, theirs {theirs:.4g}: {faster:.2f} times")
        return record

    wanted = asked.models or ["made", "pixelcnn", *PLANE]
    if "made" in wanted:
        rows = (np.random.default_rng(0).random((60_000, 784)) < 0.2).astype(np.float32)
        ours, theirs = made_epoch(rows), made_epoch_torch(rows)
        yield told("made, epoch, beside torch", ours, theirs, "s", theirs / ours)
    if "pixelcnn" in wanted:
        ours, theirs = pixelcnn_sampling(28)
        yield told("pixelcnn, 16 pictures, beside recomputing", ours, theirs, "s", theirs / ours)
    for name in [name for name in PLANE if name in wanted]:
        ours, theirs, size = flow_steps(name)
        yield told(f"{name}, beside FlowJAX", ours, theirs, "steps/s", ours / theirs)
        if importlib.util.find_spec("zuko"):
            theirs, their_size = zuko_steps(name, size)
            label = f"{name}, {size} parameters, beside Zuko's, {their_size}"
            yield told(label, ours, theirs, "steps/s", ours / theirs)


# ---- the command -------------------------------------------------------------------------------------------------


def table(results: harness.Results, path: Path, title: str = "Tractable densities") -> None:
    """All results as a page of Markdown."""
    parts = [f"# {title}\n\nWritten by `python benchmarks/{path.stem}.py table`; the first column names the seed."]
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in results.records.values():
        groups.setdefault(record["benchmark"], []).append(record)
    columns = (
        "gap",
        "nats",
        "bits",
        "used",
        "perplexity",
        "elbo",
        "accuracy",
        "bar",
        "published",
        "ours",
        "theirs",
        "ratio",
        "unit",
        "parameters",
        "rows",
        "steps",
        "seconds",
        "active",
        "verdict",
    )
    for name, records in groups.items():
        shown = [c for c in columns if any(c in r for r in records)]
        cell = lambda r, c: r.get(c, "-") if isinstance(r.get(c, "-"), str) else harness.number(r[c], 4)  # noqa: E731
        rows = [[f"{r['model']}, {r['seed']}", *(cell(r, c) for c in shown)] for r in records]
        notes = sorted({r[k] for r in records for k in ("binarisation", "machine") if k in r})
        parts.append(f"## {name}\n\n{harness.table(['model, seed', *shown], rows)}\n\n" + "\n".join(notes))
    path.write_text("\n\n".join(parts) + "\n")
    say(f"written: {path}")


COMMANDS = {
    "plane": plane, "digits": digits, "dequantisation": dequantisation, "mnist": mnist, "grey": grey, "speed": speed,
}  # fmt: skip


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*COMMANDS, "table"])
    parser.add_argument("--models", nargs="+", help="names, by default all of the command's")
    parser.add_argument("--toy", default="two_moons", help="of plane: a data set of probgen.data.toys")
    parser.add_argument("--seeds", type=int, default=5, help="of plane: how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of learning, in place of the benchmark's own")
    parser.add_argument(
        "--draws", type=int, help="of every training row's pixels; 0: anew at each step (default; 1 for em)"
    )
    parser.add_argument("--out", type=Path, default=harness.HERE / "densities.jsonl", help="results, appended")
    parser.add_argument("--fresh", action="store_true", help="forget the results in --out first")
    return parser.parse_args()


def main() -> None:
    asked = options()
    results = harness.Results(asked.out, ("benchmark", "model", "seed"), asked.fresh)
    if asked.command == "table":
        table(results, harness.HERE / "densities.md")
        return
    for record in COMMANDS[asked.command](asked):
        results.add(record)


if __name__ == "__main__":
    main()
