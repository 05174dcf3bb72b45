"""WaveNet beside linear prediction of equal field, in bits a sample that neither learned from, and the speed of its draws.

python benchmarks/sound.py made | recorded [FILE.wav ...] | drawing  [--steps 1500] [--rate 16000]

made: two resonances that change places where x_{t-2} changes sign, with normal innovations, so that the entropy rate is known.
recorded: files of one rate, one after the other; by default the speech of Debian's alsa-utils. The last tenth is held out.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.optimize import minimize
from scipy.signal import resample_poly

import probgen as pg
from probgen.catalog import model
from probgen.data.values import sounds
from probgen.nets.pixel_networks import at_random
from probgen.nets.waves.dilated import Dilated
from probgen.nets.waves.heads import Classes, Mixture
from probgen.nets.waves.wave import Wave

SPEECH = "/usr/share/sounds/alsa"
FINE = 2048  # levels of the made waveform
LAWS: dict[str, Callable[..., Any]] = {
    "normal": lambda scale: stats.norm(scale=scale),
    "logistic": lambda scale: stats.logistic(scale=scale),
    "student": lambda scale, df: stats.t(df, scale=scale),
}


# ---- linear prediction -------------------------------------------------------------------------------------------


def lagged(x: np.ndarray, order: int, size: int = 20_000) -> Any:
    """The `order` samples before each, and a one, with the sample: parts of (time, order + 1) and (time,)."""
    before = np.lib.stride_tricks.sliding_window_view(x[:-1], order)
    for i in range(0, len(before), size):
        part = before[i : i + size]
        yield np.concatenate([part, np.ones((len(part), 1))], 1), x[order + i : order + i + size]


def predictor(x: np.ndarray, order: int) -> np.ndarray:
    """The coefficients of least squares, (order + 1,)."""
    square, moment = np.zeros((order + 1, order + 1)), np.zeros(order + 1)
    for before, now in lagged(x, order):
        square, moment = square + before.T @ before, moment + before.T @ now
    return np.linalg.solve(square + 1e-9 * np.trace(square) / len(square) * np.eye(len(square)), moment)


def predicted(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The linear prediction of every sample but the first ones."""
    return np.concatenate([before @ weights for before, _ in lagged(x, len(weights) - 1)])


def linear_bits(
    train: np.ndarray, test: np.ndarray, order: int, edges: Callable[[np.ndarray], Any]
) -> dict[str, float]:
    """Bits a sample of a test series whose first `order` samples are given: the mass of each level around the prediction.

    edges: from samples to both ends of their level. The law's scale, and its degrees of freedom, are the likeliest on the training
    series.
    """
    weights = predictor(train, order)
    found = {}
    for name, law in LAWS.items():
        means = [predicted(x, weights) for x in (train, test)]
        ends = [[e - mean for e in edges(x[order:])] for x, mean in zip((train, test), means, strict=True)]
        size = float(np.std(train[order:] - means[0]))
        start = [np.log(size / 2), *([1.5] if name == "student" else [])]
        cost = lambda logs, law=law, ends=ends: _bits(law(*np.exp(np.clip(logs, -20, 20))), *(e[::5] for e in ends[0]))  # noqa: E731
        best: Any = minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-2, "fatol": 1e-4, "maxiter": 80})
        found[name] = _bits(law(*np.exp(np.clip(best.x, -20, 20))), *ends[1])
    return found


def _bits(law: Any, below: np.ndarray, above: np.ndarray) -> float:
    side = below > 0  # the tail that is small
    mass = np.where(side, law.sf(below) - law.sf(above), law.cdf(above) - law.cdf(below))
    return float(-np.log2(np.maximum(mass, 1e-300)).mean())


def level_edges(levels: int) -> Callable[[np.ndarray], Any]:
    """Of a series of levels; the lowest and highest have their tails."""
    return lambda x: (np.where(x <= 0, -np.inf, x - 0.5), np.where(x >= levels - 1, np.inf, x + 0.5))


def waveform_edges(levels: int) -> Callable[[np.ndarray], Any]:
    """Of a waveform that is cut by the mu law."""
    bent = np.linspace(-1, 1, levels + 1)
    ends = np.sign(bent) * np.expm1(np.log(levels) * abs(bent)) / (levels - 1)
    ends[[0, -1]] = -np.inf, np.inf

    def edges(x: np.ndarray) -> Any:
        at = sounds.levels_of(x, levels).astype(int)
        return ends[at], ends[at + 1]

    return edges


# ---- held-out bits -----------------------------------------------------------------------------------------------


def compared(x: np.ndarray, test: np.ndarray, rate: int, steps: int, **settings: Any) -> None:
    """Learn from x, and print bits a sample of a test waveform, whose first samples, as many as the field, are given."""
    rows = model("wavenet").rows
    data, fresh = rows(x, rate, **settings), rows(test, rate, **settings)
    field, levels = sounds.field_of(data["num_blocks"], data["num_layers"]), data["levels"]
    level = lambda x: sounds.levels_of(x, levels, data["law"])  # noqa: E731
    test = test[-fresh["x"].size - field :]
    print(
        f"{len(x)} samples to learn from, {fresh['x'].size} held out, field {field}, {levels} levels, {data['law']}",
        flush=True,
    )
    for name, bits in linear_bits(level(x), level(test), field, level_edges(levels)).items():
        print(f"  AR({field}) of levels, {name}: {bits:.3f} bits", flush=True)
    if data["law"] == "mu":
        for name, bits in linear_bits(x, test, field, waveform_edges(levels)).items():
            print(f"  AR({field}) of the waveform, {name}: {bits:.3f} bits", flush=True)
    start = time.perf_counter()
    fit = pg.fit("wavenet", data, "mle", num_steps=steps, learning_rate=0.005, precision="float32")
    found = -fit.log_prob(x=fresh["x"], context=fresh["context"]).value / data["length"] / np.log(2)
    learned = np.nanmin(fit.records["validation"][0][99::100]) / data["length"] / np.log(2)
    print(
        f"  wavenet: {found.mean():.3f} bits ({learned:.3f} of the rows that chose it), {time.perf_counter() - start:.0f} s"
    )


def regimes(n: int, seed: int) -> np.ndarray:
    """Two resonances by turns: the one for x_{t-2} > 0, the other below."""
    scale, noise = 2 * sounds.BINS / FINE, np.random.default_rng(seed).normal(size=n + 1000)
    pairs = [(2 * r * np.cos(angle), -(r**2)) for r, angle in ((0.9, 0.25 * np.pi), (0.9, 0.6 * np.pi))]
    x = [0.0, 0.0]
    for e in noise:
        a, b = pairs[int(x[-2] > 0)]
        x.append(a * x[-1] + b * x[-2] + scale * float(e))
    return np.array(x[1002:])


def made(args: argparse.Namespace) -> None:
    print(f"two regimes: the entropy rate is {sounds.ENTROPY:.3f} bits a level")
    settings = {
        "levels": FINE,
        "law": "linear",
        "num_blocks": 1,
        "num_layers": 4,
        "length": 128,
        "num_components": 3,
    }
    compared(regimes(60_000, 0), regimes(60_000, 1), 8000, args.steps, **settings)


def recorded(args: argparse.Namespace) -> None:
    paths = args.files or sorted(p for p in Path(SPEECH).glob("*.wav") if p.stem != "Noise")
    if not paths:
        raise SystemExit(f"There are no recordings in {SPEECH}: apt install alsa-utils, or name WAV files.")
    found = [sounds.sound_of(path) for path in paths]
    own = found[0][1]
    x = np.concatenate([resample_poly(x, args.rate, own) if own != args.rate else x for x, _ in found])
    x = x / abs(x).max()
    print(f"{len(paths)} files, {len(x) / args.rate:.1f} s at {args.rate} a second")
    cut = len(x) * 9 // 10
    compared(x[:cut], x[cut:], args.rate, args.steps)


# ---- draws -------------------------------------------------------------------------------------------------------


def drawing(args: argparse.Namespace) -> None:
    """One window, and sixteen at once, drawn from what the layers keep, and with the whole field seen anew for each sample."""
    del args
    for head in (Classes(256), Mixture(256, 10, 127.5, 64.0)):
        for num_layers in (7, 8):
            field = sounds.field_of(2, num_layers)
            net = at_random(jax.random.key(0), Dilated(head.num_outputs, 2, num_layers, 24, 32))
            for count, length in ((1, 1024), (16, 256)):
                wave = Wave(net, jnp.full(field, 128.0), head, length, 127.5, 64.0)
                _timed(
                    f"{type(head).__name__}, field {field}, {count} at once",
                    wave,
                    jax.random.split(jax.random.key(1), count),
                )


def anew(wave: Wave, key: Any) -> Any:
    """Draws by the whole field, with the same random numbers."""
    uniform = jax.random.uniform(key, (wave.length, wave.head.num_uniforms))

    def step(seen: Any, uniform: Any) -> tuple[Any, Any]:
        outputs = wave.net((seen - wave.centre) / wave.spread)[0]
        x = wave.head.draw(outputs, uniform).astype(seen.dtype)
        return jnp.concatenate([seen[1:], x[None]]), x

    return jax.lax.scan(step, wave.context, uniform)[1]


def _timed(name: str, wave: Wave, keys: Any) -> None:
    nothing = jnp.zeros(wave.length)
    seconds, found = {}, {}
    for label, draw in (("kept", lambda wave, key: wave.complete(key, nothing, nothing > 0)), ("anew", anew)):
        draws = jax.jit(jax.vmap(draw, (None, 0)))
        found[label], times = np.asarray(draws(wave, keys)), []
        for _ in range(5):
            start = time.perf_counter()
            draws(wave, keys).block_until_ready()
            times.append(time.perf_counter() - start)
        seconds[label] = min(times)
    told = ", ".join(f"{k} {v / wave.length / len(keys) * 1e6:.1f} us a sample" for k, v in seconds.items())
    same = (found["kept"] == found["anew"]).all(1).sum()
    print(
        f"{name}: {told}, ratio {seconds['anew'] / seconds['kept']:.1f}; windows alike {same} of {len(keys)}",
        flush=True,
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("made", "recorded", "drawing"))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=int, default=16_000)
    given = parser.parse_args()
    {"made": made, "recorded": recorded, "drawing": drawing}[given.what](given)
