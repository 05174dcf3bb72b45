"""A small classifier of pictures, trained here on labelled rows and kept in probgen's cache; its hidden units are the features.

    3x3 convolutions (16, 32, 64, ... channels, the stride 2 until sides are at most 7), 128 hidden units, softmax

It learns in float32 by Adam, the order of rows fixed by the seed, and answers in float64, in blocks of equal size. Its hash is
of its weights: it differs between machines, and numbers are comparable where the hash is the same.
"""

from __future__ import annotations

import functools
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from probgen.data.whole_numbers import generator
from probgen.evaluate.features.net import Net, Outputs, digest
from probgen.evaluate.features.pictures import with_channels

VERSION = "1"  # of architecture and training; another makes the cached nets stale
HIDDEN, BLOCK = 128, 256


class Trained(NamedTuple):
    """Weights in order, and the share of held-out rows read wrongly."""

    weights: tuple[np.ndarray, ...]
    wrong: float


def classifier(
    x: Any, labels: Any, test: tuple[Any, Any] | None = None, *, num_classes: int | None = None, name: str = "", steps: int = 0,
    seed: int = 0, cache: bool = True,
) -> Net:  # fmt: skip
    """The net of labelled pictures x (row, h, w) or (row, h, w, channel), from 0 to 1, and labels (row,), 0 to num_classes - 1.

    test: rows and labels that its error is told of; by default every seventh row, which it then does not learn from. steps: by
    default enough for 8 passes, from 1500 to 3000. cache: keep it between processes. ValueError for a class without rows.
    """
    found, count, num_classes = trained(x, labels, test, num_classes=num_classes, steps=steps, seed=seed, cache=cache)
    note = f"the net reads {1 - found.wrong:.2%} of {count} held-out rows rightly"
    label = f"classifier of {name or 'these rows'} trained here"
    apply = functools.partial(_apply, found.weights)
    return Net(label, digest(*found.weights), apply, pictures=True, num_classes=num_classes, block=BLOCK, note=note)


def trained(
    x: Any, labels: Any, test: tuple[Any, Any] | None = None, *, num_classes: int | None = None, steps: int = 0, seed: int = 0,
    cache: bool = True,
) -> tuple[Trained, int, int]:  # fmt: skip
    """The weights of that net, how many rows it was tested on, and its number of classes; see `classifier`."""
    x, labels, num_classes = _checked(x, labels, num_classes)
    if test is None:
        own = np.arange(len(x)) % 7 == 0
        x, labels, test = x[~own], labels[~own], (x[own], labels[own])
    test_x, test_labels = with_channels(np.asarray(test[0], np.float32)), np.asarray(test[1]).astype(int)
    steps = steps or int(np.clip(8 * len(x) // 128, 1500, 3000))
    key = digest(x, labels, test_x, test_labels, f"{VERSION} {num_classes} {steps} {seed}")
    found = _kept(key, cache)
    if found is None:
        weights = _train(x, labels, num_classes, steps, seed)
        blocks = (test_x[i : i + BLOCK].astype(np.float64) for i in range(0, len(test_x), BLOCK))
        told: list[Any] = [_apply(weights, block)[1] for block in blocks]
        p = np.concatenate(told)
        found = Trained(weights, float((p.argmax(1) != test_labels).mean()))
        _keep(key, found, cache)
    return found, len(test_x), num_classes


def by_channel(net: Net) -> Net:
    """The net of pictures whose channels are read one by one: features side by side, and the class of all channels together.

    Of three digits a, b, c the class is 100 a + 10 b + c.
    """

    def apply(x: np.ndarray) -> Outputs:
        outputs: list[Any] = [net.apply(np.ascontiguousarray(x[..., i : i + 1])) for i in range(x.shape[-1])]
        p = np.ones((len(x), 1))
        for _, own in outputs:
            p = (p[:, :, None] * own[:, None, :]).reshape(len(x), -1)
        return np.concatenate([features for features, _ in outputs], axis=1), p

    return Net(f"{net.name}, each of 3 channels", net.hash, apply, True, net.num_classes**3, 3, BLOCK, net.note)


def _checked(x: Any, labels: Any, num_classes: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    x, labels = with_channels(np.asarray(x, np.float32)), np.asarray(labels)
    if x.ndim != 4 or labels.shape != (len(x),):
        raise ValueError(f"Pictures have shape {x.shape[:-1]}, labels {labels.shape}; expected (row, h, w) and (row,).")
    if labels.dtype.kind not in "iub" and (labels != np.rint(labels)).any():
        raise ValueError("labels are no whole numbers; expected classes from 0 on.")
    labels = labels.astype(int)
    num_classes = int(labels.max()) + 1 if num_classes is None else num_classes
    if labels.min() < 0 or labels.max() >= num_classes or num_classes < 2:
        raise ValueError(f"labels are from {labels.min()} to {labels.max()}; expected 0 to {max(num_classes, 2) - 1}.")
    missing = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if len(missing):
        raise ValueError(f"Class {missing[0]} has no rows (of {num_classes}); a classifier needs rows of each.")
    return x, labels, num_classes


# ---- the net -----------------------------------------------------------------------------------------------------


def strides(side: int) -> list[int]:
    """Of the convolutions, for pictures whose shorter side this is."""
    found = [2] if side >= 14 else [1]
    side = -(-side // found[0])
    while side > 7:
        found, side = [*found, 2], -(-side // 2)
    return found if len(found) > 1 else [*found, 2]


def _logits(weights: Any, x: Any, xp: Any) -> tuple[Any, Any]:
    """Hidden units and logits of pictures (row, h, w, channel); xp: numpy or jax.numpy."""
    for stride, w, b in zip(strides(min(x.shape[1:3])), weights[:-4:2], weights[1:-4:2], strict=True):
        x = xp.maximum(_patches(x, stride, xp) @ w + b, 0)
    hidden = xp.maximum(x.reshape(len(x), -1) @ weights[-4] + weights[-3], 0)
    return hidden, hidden @ weights[-2] + weights[-1]


def _patches(x: Any, stride: int, xp: Any) -> Any:
    """The 3 x 3 neighbours of every stride-th pixel, (row, h', w', 9 channel): convolutions as products of matrices."""
    h, w = x.shape[1:3]
    x = xp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return xp.concatenate([x[:, i : i + h : stride, j : j + w : stride] for i in range(3) for j in range(3)], axis=-1)


def _apply(weights: tuple[np.ndarray, ...], x: np.ndarray) -> Outputs:
    from scipy.special import softmax

    if x.shape[-1] * 9 != weights[0].shape[0] or _flat(x.shape[1:3]) * weights[-5].shape[0] != weights[-4].shape[0]:
        raise ValueError(f"Pictures have shape {x.shape[1:]}; the classifier learned from others.")
    hidden, logits = _logits([np.float64(w) for w in weights], np.asarray(x, float), np)
    return hidden, softmax(logits, axis=1)


def _flat(sides: tuple[int, ...]) -> int:
    """Pixels after the convolutions."""
    for stride in strides(min(sides)):
        sides = tuple(-(-side // stride) for side in sides)
    return int(np.prod(sides))


def _first(shape: tuple[int, ...], num_classes: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Weights at the start: normal, of variance 2 / inputs."""
    channels, found = shape[2], []
    outs = [min(16 * 2**i, 64) for i in range(len(strides(min(shape[:2]))))]
    sizes = list(zip([9 * c for c in [channels, *outs]], outs, strict=False))
    sizes += [(_flat(shape[:2]) * outs[-1], HIDDEN), (HIDDEN, num_classes)]
    for n, m in sizes:
        found += [np.float32(rng.normal(size=(n, m)) * np.sqrt(2 / n)), np.zeros(m, np.float32)]
    return found


def _train(x: np.ndarray, labels: np.ndarray, num_classes: int, steps: int, seed: int) -> tuple[np.ndarray, ...]:
    """Weights after `steps` steps of Adam on batches of at most 128 rows; the rate rises for a tenth of them, then falls to 0."""
    import jax
    import jax.numpy as jnp
    import optax

    from probgen.runtime import compile_cache, jax_scope

    rng, batch = generator(seed), min(128, len(x))
    first = _first(x.shape[1:], num_classes, rng)
    optimiser = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps), weight_decay=1e-3)

    def loss(weights: Any, x: Any, labels: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(_logits(weights, x, jnp)[1], labels).mean()

    @jax.jit
    def some(weights: Any, state: Any, x: Any, labels: Any) -> Any:
        def step(carry: Any, batch: Any) -> Any:
            weights, state = carry
            updates, state = optimiser.update(jax.grad(loss)(weights, *batch), state, weights)
            return (optax.apply_updates(weights, updates), state), None

        return jax.lax.scan(step, (weights, state), (x, labels))[0]

    orders = [rng.permutation(len(x)) for _ in range(-(-steps * batch // len(x)))]
    rows = np.concatenate(orders)[: steps * batch].reshape(steps, batch)
    with jax_scope("float32"), compile_cache():
        weights, state = first, optimiser.init(first)
        for part in np.array_split(rows, max(1, steps // 50)):
            weights, state = some(weights, state, x[part], labels[part].astype(np.int32))
    return tuple(np.asarray(w) for w in weights)


# ---- the cache ---------------------------------------------------------------------------------------------------


def _file(key: str) -> Path | None:
    from probgen.runtime import cache_dir

    return None if os.environ.get("PROBGEN_CACHE") == "" else cache_dir() / "nets" / f"classifier-{key[:32]}.npz"


@functools.lru_cache(maxsize=8)
def _memory() -> dict[str, Trained]:
    return {}


def _kept(key: str, cache: bool) -> Trained | None:
    """A net of the cache, whole; None where there is none, or its file is damaged."""
    import zipfile

    if not cache:
        return None
    if key in _memory():
        return _memory()[key]
    file = _file(key)
    if file is None or not file.is_file():
        return None
    try:
        with np.load(io.BytesIO(file.read_bytes())) as arrays:
            weights = tuple(arrays[f"w{i}"] for i in range(len(arrays.files) - 2))
            found, stored = Trained(weights, float(arrays["wrong"])), str(arrays["hash"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return _memory().setdefault(key, found) if digest(*weights) == stored else None


def _keep(key: str, trained: Trained, cache: bool) -> None:
    if not cache:
        return
    _memory()[key] = trained
    if (file := _file(key)) is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f"{file.stem}-{os.getpid()}.half.npz")
    weights: dict[str, Any] = {f"w{i}": w for i, w in enumerate(trained.weights)}
    np.savez(half, **weights, wrong=trained.wrong, hash=digest(*trained.weights))
    half.replace(file)
