"""The latent spaces of learned fits, in which `fit.attribute` moves: of densities, generators, latent models and denoisers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.data.whole_numbers import generator
from probgen.engine import denoising, load
from probgen.evaluate.attribute import Latents

Noise = Mapping[str, np.ndarray]
NO_WAY = "No way leads from a point to its noise in this model."


def of_density(fit: Any, inputs: Mapping[str, Any]) -> Latents:
    """Of a program that runs forward and shows one site: its noise, and for a flow the way back."""
    engine: Any = load(fit.target.engine)
    if getattr(engine, "forward_space", None) is None or not fit.target.proper:
        raise Incompatible("This model has no latent space: flows, generators, latent models and denoisers have one.")
    target, site = fit.condition(**inputs), only(fit)
    space = engine.forward_space(target)
    if space.anew:
        raise Incompatible(f"The noise of {space.anew[0]} is no latent space: it is drawn anew at every move.")

    def draw(count: int, seed: int) -> dict[str, np.ndarray]:
        return {"u": generator(seed).standard_normal((count, space.dim))}

    def points(noise: Noise) -> np.ndarray:
        return space.values(noise["u"], (site,))[0][site]

    def codes(x: np.ndarray) -> dict[str, np.ndarray]:
        return {"u": engine.inverted(target, x).reshape(len(x), -1)}

    invertible = engine.inverted(target, points(draw(1, 0))) is not None
    return Latents(draw, points, codes if invertible else None, ("u",), NO_WAY)


def of_codes(fit: Any, inputs: Mapping[str, Any]) -> Latents:
    """Of a latent model: its hidden sites of reals, by the guide's middle and back to the visible site's mean."""
    site, hidden = only(fit), fit.target.hidden
    moving = tuple(v.name for v in hidden if v.kind == "reals")
    if not moving:
        raise Incompatible("None of the hidden sites holds reals, in which points could be moved.")
    names = [v.name for v in hidden]

    def draw(count: int, seed: int) -> dict[str, np.ndarray]:
        drawn = fit.sample(count, seed, **inputs)
        return {k: drawn[k] for k in names}

    def points(codes: Noise) -> np.ndarray:
        count = len(next(iter(codes.values())))
        return fit.decode(**codes, **fit._inputs(inputs, count))[site]

    def codes(x: np.ndarray) -> dict[str, np.ndarray]:
        return fit.encode(**{_keyword(fit): x}, **fit._inputs(inputs, len(x)))

    return Latents(draw, points, codes, moving)


def of_generator(fit: Any, inputs: Mapping[str, Any]) -> Latents:
    """Of a generator: its noise, which no point tells."""
    site, moving = only(fit), tuple(k for k, (_, kind) in fit.noise.items() if kind == "standard normal")
    if not moving:
        raise Incompatible("No noise of this program is standard normal, in which points could be moved.")

    def draw(count: int, seed: int) -> dict[str, np.ndarray]:
        drawn = fit.sample(count, seed, **inputs)
        return {k: drawn[k] for k in fit.noise}

    return Latents(draw, lambda noise: fit.decode(**noise, **inputs)[site], None, moving, NO_WAY)


def of_denoiser(fit: Any, inputs: Mapping[str, Any]) -> Latents:
    """Of a denoiser: the noise that its flow takes points to, and back from there."""
    site = only(fit)
    shape = next(v.shape for v in fit.target.visible if v.name == site)
    last = fit.schedule(num_times=2)
    scale = float(np.hypot(last["alpha"][-1], last["sigma"][-1]))
    moved = functools.partial(denoising.moved, fit.target, fit.answer)

    def draw(count: int, seed: int) -> dict[str, np.ndarray]:
        return {"noise": scale * generator(seed).standard_normal((count, *shape))}

    def points(noise: Noise) -> np.ndarray:
        return moved(fit._inputs(inputs, len(noise["noise"])), noise["noise"], "to points")

    def codes(x: np.ndarray) -> dict[str, np.ndarray]:
        return {"noise": moved(fit._inputs(inputs, len(x)), x, "to noise")}

    return Latents(draw, points, codes, ("noise",))


def only(fit: Any) -> str:
    """The one visible site."""
    names = [v.name for v in fit.target.visible]
    if len(names) != 1:
        raise Incompatible(f"attribute is of models of one visible site; this one has {', '.join(names)}.")
    return names[0]


def _keyword(fit: Any) -> str:
    (keyword,) = fit.target.keywords
    return keyword
