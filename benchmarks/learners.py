"""Steps of learners beside what limits them: a plain loop by hand of the same net, batch and optimiser, in JAX and in torch.

    python benchmarks/learners.py [made vae vae_pyro pixelcnn pixelcnn_pyro langevin] [--turns 5]

Every case is raced by turns in one process, on one core and one thread: milliseconds of the processor's time a step, the least over
the turns. `limit` is the loop by hand on the same engine, compiled as a whole in JAX; `torch` (or `jax`) the one on the other.
`products` are the step's products of matrices alone, of the same shapes, by the same engine's library; the arithmetic of a step
(Gflop) and the bytes that it must move at least (the optimiser reads and writes its numbers once, activations of products once)
stand beside, with the rates at which ours goes through them. The ratios say how many times as long as that ours takes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np

ROWS = 60_000
Advance = Callable[[int], Any]


def bits(*shape: int) -> np.ndarray:
    """Rows of bits, a fifth of them ones."""
    return (np.random.default_rng(0).random(shape) < 0.2).astype(np.float32)


# ---- ours


def ours(name: str, data: dict[str, Any], word: str, **settings: Any) -> Advance:
    """Steps of one of our learners, as `pg.fit` makes them."""
    from probgen import engine
    from probgen.run.fitting import asked

    algorithm, _, _, _, target = asked(name, data, word, num_steps=10**6, **settings)
    return harness.steps_of(engine.load(target.engine).Executor(algorithm, target, 0, 1))


# ---- by hand: Adam on a loss of parameters, a batch and a key


def jax_loop(loss: Any, parameters: Any, rows: np.ndarray, size: int, rate: float) -> Advance:
    """One compiled loop: rows in an order drawn anew after each pass, Adam, the losses recorded."""
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(rows)
    passes = len(rows) // size

    def body(i: Any, carry: Any) -> Any:
        p, m, v, order, losses, begun = carry
        key = jax.random.fold_in(jax.random.key(0), i)
        order = jax.lax.cond(i % passes == 0, lambda: jax.random.permutation(key, order), lambda: order)
        batch = x[jax.lax.dynamic_slice_in_dim(order, (i % passes) * size, size)]
        value, g = jax.value_and_grad(loss)(p, batch, key)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        one, two = 1 - 0.9 ** (i + 1.0), 1 - 0.999 ** (i + 1.0)
        p = jax.tree.map(lambda p, m, v: p - rate * (m / one) / (jnp.sqrt(v / two) + 1e-8), p, m, v)
        return p, m, v, order, losses.at[i - begun].set(value), begun

    @jax.jit
    def run(carry: Any, begin: Any, end: Any) -> Any:
        p, m, v, order = carry
        found = jax.lax.fori_loop(begin, end, body, (p, m, v, order, jnp.zeros(1024), begin))
        return found[:4], found[4]

    zero = jax.tree.map(jnp.zeros_like, parameters)
    carry, done = (parameters, zero, zero, jnp.arange(len(rows), dtype=jnp.int32)), 0

    def advance(steps: int) -> None:
        nonlocal carry, done
        carry, losses = jax.block_until_ready(run(carry, np.int32(done), np.int32(done + steps)))
        np.asarray(losses)
        done += steps

    return advance


def torch_loop(
    loss: Any, parameters: list[Any], rows: np.ndarray, size: int, rate: float, fused: bool | None = None
) -> Advance:
    """The eager loop: `torch.optim.Adam` as it comes, or fused; rows in an order drawn anew after each pass, losses recorded."""
    import torch

    x, adam = torch.as_tensor(rows), torch.optim.Adam(parameters, lr=rate, fused=fused)
    order, done = torch.randperm(len(x)), 0

    def advance(steps: int) -> None:
        nonlocal order, done
        losses = []
        for _ in range(steps):
            at = done % (len(x) // size)
            if not at:
                order = torch.randperm(len(x))
            value = loss(x[order[at * size : (at + 1) * size]])
            adam.zero_grad()
            value.backward()
            adam.step()
            losses.append(value.item())
            done += 1

    return advance


def jax_products(shapes: list[tuple[int, int, int]]) -> Advance:
    """Products (a, b) @ (b, c) alone, in one compiled loop."""
    import jax
    import jax.numpy as jnp

    pairs = [(jnp.ones((a, b)), jnp.ones((b, c))) for a, b, c in shapes]

    @jax.jit
    def run(pairs: Any, steps: Any) -> Any:
        def body(i: Any, carry: Any) -> Any:  # every entry counts, and none can be had without the product
            total, s = carry
            return total + sum(((a + s) @ b)[0, 0] for a, b in pairs), s + 1e-9

        return jax.lax.fori_loop(0, steps, body, (jnp.zeros(()), jnp.zeros(())))

    return lambda steps: jax.block_until_ready(run(pairs, steps))


def torch_products(shapes: list[tuple[int, int, int]]) -> Advance:
    import torch

    pairs = [(torch.ones(a, b), torch.ones(b, c), torch.empty(a, c)) for a, b, c in shapes]

    def run(steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps):
                for a, b, out in pairs:
                    torch.mm(a, b, out=out)

    return run


def dense(rows: int, *sizes: int) -> list[tuple[int, int, int]]:
    """The products of a perceptron's gradient: forwards, of the weights, of the inputs but for the first layer."""
    found = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        found += [(rows, a, b), (a, rows, b), *([(rows, b, a)] if i else [])]
    return found


# ---- the cases: contestants by name, products, numbers of parameters, bytes of activations


def made() -> tuple[dict[str, Advance], float, float]:
    """MADE 784-500-784 without direct connections, rows of 100."""
    import jax
    import jax.numpy as jnp
    import torch

    rows, size, width, dim = bits(ROWS, 784), 100, 500, 784
    degree = np.asarray(1 + np.arange(width) * (dim - 1) // width)
    first, last = degree[:, None] >= 1 + np.arange(dim), (1 + np.arange(dim))[:, None] > degree
    rng = np.random.default_rng(1)
    W, V = (rng.normal(size=s).astype(np.float32) * (2 / s[1]) ** 0.5 for s in ((width, dim), (dim, width)))
    b, c = np.zeros(width, np.float32), np.zeros(dim, np.float32)

    def loss(p: Any, x: Any, key: Any) -> Any:
        W, b, V, c = p
        hidden = jax.nn.relu(x @ jnp.where(first, W, 0).T + b)
        logits = hidden @ jnp.where(last, V, 0).T + c
        return -(x * logits - jax.nn.softplus(logits)).sum() / size

    ws = [torch.tensor(a, requires_grad=True) for a in (W, b, V, c)]
    one, two = (torch.tensor(m.astype(np.float32)) for m in (first, last))

    def torch_loss(x: Any) -> Any:
        hidden = torch.relu(x @ (ws[0] * one).T + ws[1])
        logits = hidden @ (ws[2] * two).T + ws[3]
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") / size

    shapes = dense(size, dim, width, dim)
    data = {"x": rows, "dim": dim, "width": width, "direct": False}
    race = {
        "ours": ours("made", data, "mle", batch_size=size),
        "limit": jax_loop(loss, tuple(map(jnp.asarray, (W, b, V, c))), rows, size, 1e-3),
        "torch": torch_loop(torch_loss, ws, rows, size, 1e-3),
        "products": jax_products(shapes),
    }
    return race, *counted(shapes, 2 * dim * width + dim + width)


def counted(shapes: list[tuple[int, int, int]], parameters: int) -> tuple[float, float]:
    """Operations of the products, and bytes: theirs, and Adam's on float32 (parameters, moments and gradient, in and out)."""
    return sum(2.0 * a * b * c for a, b, c in shapes), 4.0 * (
        sum(a * b + b * c + a * c for a, b, c in shapes) + 8 * parameters
    )


def vae(pyro: bool = False) -> tuple[dict[str, Advance], float, float]:
    """The VAE 784-400-20, rows of 128."""
    import jax
    import jax.numpy as jnp
    import torch
    from torch import nn

    rows, size, rng = bits(ROWS, 784), 128, np.random.default_rng(1)
    sizes = ((784, 400), (400, 40), (20, 400), (400, 784))
    p = [(jnp.asarray(rng.normal(size=s).astype(np.float32) / s[0] ** 0.5), jnp.zeros(s[1])) for s in sizes]

    def loss(p: Any, x: Any, key: Any) -> Any:
        on = lambda i, h: h @ p[i][0] + p[i][1]  # noqa: E731
        mean, log_sd = jnp.split(on(1, jax.nn.relu(on(0, x))), 2, 1)
        z = mean + jnp.exp(log_sd) * jax.random.normal(key, mean.shape)
        logits = on(3, jax.nn.relu(on(2, z)))
        kl = 0.5 * (mean**2 + jnp.exp(2 * log_sd) - 1 - 2 * log_sd).sum()
        return (kl - (x * logits - jax.nn.softplus(logits)).sum()) / size

    encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
    decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def torch_loss(x: Any) -> Any:
        mean, log_sd = encoder(x).chunk(2, 1)
        z = mean + torch.exp(log_sd) * torch.randn_like(mean)
        likelihood = -nn.functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        kl = 0.5 * torch.sum(mean**2 + (2 * log_sd).exp() - 1 - 2 * log_sd)
        return (kl - likelihood) / size

    shapes = dense(size, 784, 400, 40) + dense(size, 20, 400, 784) + [(size, 400, 20)]
    data = {"x": rows, "num_latents": 20, "width": 400} | ({} if pyro else {"dim": 784})
    own = [*encoder.parameters(), *decoder.parameters()]
    plain = {"jax": jax_loop(loss, p, rows, size, 1e-3), "torch": torch_loop(torch_loss, own, rows, size, 1e-3)}
    if pyro:
        plain["limit"] = torch_loop(torch_loss, own, rows, size, 1e-3, fused=True)
    else:
        plain["limit"] = plain.pop("jax")
    race = {
        "ours": ours("vae_pyro" if pyro else "vae", data, "svi", batch_size=size),
        **plain,
        "products": torch_products(shapes) if pyro else jax_products(shapes),
    }
    return race, *counted(shapes, sum(a * b + b for a, b in sizes))


def langevin() -> tuple[dict[str, Advance], float, float]:
    """Unadjusted Langevin steps of 10,000 chains on a perceptron's energy, 2-128-128; 25 are a step of the chain."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import torch

    from probgen import catalog
    from probgen.engine.numpyro import engine
    from probgen.measures import reals

    chains, thin, rng = 10_000, 25, np.random.default_rng(0)
    weights = [rng.normal(size=s).astype(np.float32) / s[0] ** 0.5 for s in ((2, 128), (128, 128), (128,))]

    def program(W1: Any, W2: Any, w3: Any) -> None:
        x: Any = numpyro.sample("x", reals(2))
        numpyro.factor("energy", jax.nn.silu(jax.nn.silu(x @ W1) @ W2) @ w3 - 0.5 * x @ x)

    data: dict[str, Any] = dict(zip(("W1", "W2", "w3"), weights, strict=True))
    settings = {"num_chains": chains, "num_warmup": 0, "num_samples": 10**6, "step_size": 0.1, "thin": thin, "start": "uniform",
                "metric": "diagonal"}  # fmt: skip
    target = engine.prepare(program, data, "float32")
    own = harness.steps_of(engine.Executor(catalog.inference("ula", settings), target, 0, chains))

    W1, W2, w3 = map(jnp.asarray, weights)

    def energy(x: Any) -> Any:
        return (jax.nn.silu(jax.nn.silu(x @ W1) @ W2) @ w3 - 0.5 * (x * x).sum(-1)).sum()

    @jax.jit
    def run(x: Any, first: Any, steps: Any) -> Any:
        def step(i: Any, carry: Any) -> Any:
            x, total = carry
            noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), x.shape)
            value, slope = jax.value_and_grad(energy)(
                x
            )  # the value is asked for: our steps tell what it says of their bias
            return x + 0.005 * slope + 0.1 * noise, total + value

        return jax.lax.fori_loop(first, first + thin * steps, step, (x, jnp.zeros(())))

    x = jnp.asarray(rng.normal(size=(chains, 2)).astype(np.float32))
    tensors = [torch.tensor(w) for w in weights]
    state = torch.randn(chains, 2)

    def torch_run(steps: int) -> None:
        nonlocal state
        for _ in range(thin * steps):
            at = state.detach().requires_grad_()
            silu = torch.nn.functional.silu
            value = (silu(silu(at @ tensors[0]) @ tensors[1]) @ tensors[2] - 0.5 * (at * at).sum(-1)).sum()
            (slope,) = torch.autograd.grad(value, at)
            state = at.detach() + 0.005 * slope + 0.1 * torch.randn_like(at)

    shapes = [(chains, 2, 128), (chains, 128, 128), (chains, 128, 128), (chains, 128, 2)] * thin
    return {
        "ours": own,
        "limit": lambda steps: jax.block_until_ready(run(x, 0, steps)),
        "torch": torch_run,
        "products": _times(jax_products(shapes[:4]), thin),
    }, *counted(shapes, 0)


def _times(advance: Advance, count: int) -> Advance:
    """A step that is so many of another's."""
    return lambda steps: advance(count * steps)


def pixelcnn_pyro() -> tuple[dict[str, Advance], float, float]:
    """The gated PixelCNN of 28 x 28 pictures in torch, 7 layers of 32 filters, 64 rows; the limit is the same module by hand."""
    import torch

    from probgen.nets.pyro_pixels import Stacks

    rows, size, layers, n = bits(4000, 28, 28), 64, 7, 32
    net = Stacks(layers, n)

    def loss(x: Any) -> Any:
        logits = net(x)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") / size

    pixels = size * 28 * 28
    forwards = [
        (pixels, i * k, 2 * n)
        for layer in range(layers)
        for i, k in (((2, 6), (2, 2)) if not layer else ((n, 6), (n, 2)))
    ]
    forwards += [(pixels, 2 * n, 2 * n), (pixels, n, n)] * layers + [(pixels, n, n), (pixels, n, 1)]
    shapes = [s for a, b, c in forwards for s in ((a, b, c), (b, a, c), (a, c, b))]
    settings = {"batch_size": size, "learning_rate": 0.001}
    return {
        "ours": ours("pixelcnn_pyro", {"x": rows, "num_layers": layers, "num_filters": n}, "mle", **settings),
        "limit": torch_loop(loss, list(net.parameters()), rows, size, 1e-3, fused=True),
        "products": torch_products(shapes),
    }, *counted(shapes, sum(p.numel() for p in net.parameters()))


def pixelcnn() -> tuple[dict[str, Advance], float, float]:
    """The gated PixelCNN of the 8 x 8 digits in NumPyro, 4 layers of 24 filters, 512 rows; the limit is the same net by hand."""
    import jax
    import jax.numpy as jnp

    from probgen.nets.autoregressive import Autoregressive
    from probgen.nets.pixel_heads import Bit
    from probgen.nets.pixel_networks import Gated, at_random
    from probgen.nets.pixels import Picture

    rows, size, layers, n = bits(1797, 8, 8), 512, 4, 24
    net = at_random(jax.random.key(0), Gated(1, 1, layers, n, 3, 5))
    net = jax.tree.map(lambda a: jnp.asarray(a, "float32"), net)

    def loss(p: Any, x: Any, key: Any) -> Any:
        return -Autoregressive(Picture(p, Bit(), (8, 8))).log_prob(x).mean()

    pixels = size * 64
    forwards = [(pixels, 20, n), (pixels, 4, n)]
    forwards += [
        (pixels, 6 * n, 2 * n),
        (pixels, 2 * n, 2 * n),
        (pixels, 2 * n, 2 * n),
        (pixels, n, n),
        (pixels, n, n),
    ] * layers
    forwards += [(pixels, n, n), (pixels, n, 1)]
    shapes = [s for a, b, c in forwards for s in ((a, b, c), (b, a, c), (a, c, b))]
    return {
        "ours": ours("pixelcnn", {"x": rows, "height": 8, "width": 8}, "mle", batch_size=size),
        "limit": jax_loop(loss, net, rows, size, 1e-3),
        "products": jax_products(shapes),
    }, *counted(shapes, sum(a.size for a in jax.tree.leaves(net)))


CASES: dict[str, tuple[Any, int]] = {  # and steps of a turn
    "made": (made, 60),
    "vae": (vae, 60),
    "vae_pyro": (lambda: vae(True), 60),
    "langevin": (langevin, 1),
    "pixelcnn_pyro": (pixelcnn_pyro, 4),
    "pixelcnn": (pixelcnn, 3),
}


def race(name: str, turns: int) -> list[str]:
    """A row of the table."""
    make, steps = CASES[name]
    runners, operations, moved = make()
    for word, advance in runners.items():
        advance(steps)  # compiles
        advance(steps)
        harness.say(f"{name}: {word} is warm")
    found: dict[str, list[float]] = {word: [] for word in runners}
    for _ in range(turns):
        for word, advance in runners.items():
            tick = time.process_time()
            advance(steps)
            found[word].append((time.process_time() - tick) / steps * 1e3)
    least = {word: min(times) for word, times in found.items()}
    own = least["ours"]
    harness.say(f"{name}: " + ", ".join(f"{word} {ms:.3f} ms" for word, ms in least.items()))
    row = [name, f"{own:.2f}"]
    for word in ("limit", "torch", "jax", "products"):
        row += [f"{least[word]:.2f}", f"{own / least[word]:.2f}"] if word in least else ["", ""]
    rates = [
        f"{operations / 1e9:.2f}",
        f"{operations / own / 1e6:.1f}",
        f"{moved / 1e6:.0f}",
        f"{moved / own / 1e6:.1f}",
    ]
    return [*row, *rates]


HEAD = ["case", "ours, ms", "limit, ms", "ratio", "torch, ms", "ratio", "jax, ms", "ratio", "products, ms", "ratio", "Gflop",
        "Gflop/s", "MB", "GB/s"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # before any library makes its threads
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import torch

    torch.set_num_threads(1)
    harness.say(harness.machine())
    rows = []
    for name in harness.chosen(asked.cases, [*CASES], "case"):
        rows.append(race(name, asked.turns))
    harness.say("\n" + harness.table(HEAD, rows))


if __name__ == "__main__":
    main()
