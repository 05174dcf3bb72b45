"""Targets of programs that take noise from a point by a denoiser: a chain of latents with a fixed guide, or a flow by an ODE.

def program(x=None):                                     def guide(x):
    chain = Backward(denoiser, (2,), times)                  numpyro.sample("z", Noised(x, schedule, times))
    z = numpyro.sample("z", chain)
    numpyro.sample("x", Normal(*chain.last(z[0])), obs=x)

def program(x=None):
    numpyro.sample("x", diffused(denoiser, (2,)), obs=x)

A chain is never drawn as a whole to learn from: its first level and one random level are, and the KL of that level stands for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import MaskedDistribution, TransformedDistribution
from numpyro.primitives import Messenger

from probgen import runtime
from probgen.algorithm import Incompatible
from probgen.engine.denoising import CHAINS, NO_LINE, RISES, SCALED, rough
from probgen.engine.numpyro.programs.parameters import moved
from probgen.engine.numpyro.sums.energy import NotConditional
from probgen.engine.numpyro.targets import draws
from probgen.engine.numpyro.targets.bounded import NumpyroBounded, Terms, site_log_prob
from probgen.engine.numpyro.targets.learnable import NumpyroLearnable
from probgen.engine.numpyro.wrapped import innermost
from probgen.nets.diffusion.chains import filled
from probgen.nets.diffusion.flow import ContinuousFlow
from probgen.target import Diffused

NO_DENOISER = "The chain has no denoiser of reals: its points are whole numbers, which are masked.\n"


class Diffusing(NumpyroLearnable, Diffused):
    """What both kinds share: a denoiser, and the point that it is about."""

    def denoised(self, parameters: Any, row: Any, key: Any = None) -> tuple[Any, Any]:
        """The denoiser for a row's inputs, and the row's point as the denoiser sees it: (*event)."""
        raise NotImplementedError

    def first_row(self) -> dict[str, Any]:
        """Sites and inputs of the first row: (*event)."""
        with runtime.jax_scope(self.precision):
            return jax.tree.map(lambda x: x[0], self.rows(jnp.arange(1)))

    def looked_at(self, look: Callable[[Any, Any], Any], row: Any = None) -> Any:
        """look(denoiser, what it sees) of a row, the first unless said, before anything is learned."""
        with runtime.jax_scope(self.precision):
            row = {
                k: jnp.asarray(v, self.precision if v.dtype.kind == "f" else None)
                for k, v in (row or self.first_row()).items()
            }
            return look(*self.denoised(self.initial(jax.random.key(0)), row))

    @property
    def chained(self) -> bool:
        """Whether the program is a chain of latents."""
        return isinstance(self, NumpyroChained)

    @property
    def labels(self) -> tuple[str, ...]:
        """Inputs that are whole numbers, which -1 hides."""
        return tuple(k for k in self.inputs if self.arrays[k].dtype.kind in "iu")

    def check_line(self, parameters: Any, row: Any) -> None:
        """Raise Incompatible where a chain's points, {site: (*event)}, are not measured one by one on a line."""

    def label_that_wraps(self) -> str:
        """The first of `labels` of which -1 is what its largest value is, and not what another is; empty where there is none."""
        with runtime.jax_scope(self.precision):
            parameters = moved(self.initial(jax.random.key(0)))
            row = jax.tree.map(lambda x: x[0], self.rows(jnp.arange(1)))

            @jax.jit
            def said(parameters: Any, row: Any) -> Any:
                denoiser, x = self.denoised(parameters, row)
                return denoiser(x, jnp.full((), 0.5, x.dtype)).mean

            for name in self.labels:
                low, high = int(self.arrays[name].min()), int(self.arrays[name].max())
                shown = (row | {name: jnp.full_like(row[name], value)} for value in (-1, high, low))
                hidden, last, first = (said(parameters, row) for row in shown)
                if low >= 0 and bool(jnp.all(hidden == last)) and not bool(jnp.all(first == last)):
                    return name
        return ""

    def cannot_denoise(self) -> str:
        """Why there is nothing to learn by noise that is put on points; empty where there is."""
        with runtime.jax_scope(self.precision):
            key = jax.random.key(0)
            begin = lambda: self.denoised(self.initial(key), jax.tree.map(lambda x: x[0], self.rows(jnp.arange(1))))  # noqa: E731
            try:
                found = jax.eval_shape(lambda: begin()[1])
            except Incompatible as error:
                told = str(error)
                return NO_DENOISER + "Learn its bound by inference='svi'." if told.startswith(NO_DENOISER) else told
        return "" if found.shape else "The denoiser is of a point without a shape."

    def log_ratios(self) -> tuple[float, float]:
        """log sigma / alpha where the noise begins and where it ends, before learning."""
        with runtime.jax_scope(self.precision):
            _, log_snr = _along(self, jax.random.key(0))
        return -0.5 * float(log_snr[0]), -0.5 * float(log_snr[-1])

    def lowered(self) -> str:
        def said(arrays: Any, key: Any, t: Any) -> Any:
            target = type(self)(self.structure, arrays)
            denoiser, x = target.denoised(target.initial(key), jax.tree.map(lambda x: x[0], target.rows(jnp.arange(1))))
            return x, denoiser(x, t).mean

        with runtime.jax_scope(self.precision):
            try:
                text = jax.jit(said).lower(self.arrays, jax.random.key(0), jnp.ones(()) / 2).as_text()
            except Incompatible:  # a chain without a denoiser of reals
                text = ""
        return super().lowered() + text

    def drawn_by(self, draw: Callable[..., Any], key: Any, parameters: Any, row: Any) -> dict[str, Any]:
        """The visible sites, what the denoiser is about drawn by draw(fn, shape, key): of a chain its first level."""
        program = lambda: _program(self, parameters, row)  # noqa: E731
        k_draw, k_rest = jax.random.split(key)
        with handlers.block():
            trace = handlers.trace(Instead(handlers.seed(program, k_rest), draw, k_draw)).get_trace()
        return {v.name: trace[v.name]["value"] for v in self.visible}


class NumpyroFlowing(Diffusing):
    """Rows, and a program whose visible site is a flow by an ODE with a denoiser."""

    def denoised(self, parameters: Any, row: Any, key: Any = None) -> tuple[Any, Any]:
        denoiser, point, _ = self.measured(parameters, row)
        return denoiser, point

    def measured(self, parameters: Any, row: Any) -> tuple[Any, Any, Any]:
        """The denoiser, the point that it sees, (*event), and the log of how much larger that is than the row's: ()."""
        (site,) = self.visible
        sites = draws.traced(self, jax.random.key(0), parameters, row, {site.name: row[site.name]})
        found = apart(sites[site.name]["fn"])
        assert found is not None  # what made this a flow
        point, volume = row[site.name], jnp.zeros(())
        for transform in reversed(found[2]):
            before = transform._inverse(point)
            volume, point = volume - jnp.sum(transform.log_abs_det_jacobian(before, point)), before
        return found[1].velocity.denoiser, point, volume

    def rough_solver(self) -> str:
        """The program's own solver, where it holds its error loosely; else empty."""
        (site,), row, key = self.visible, self.first_row(), jax.random.key(0)
        with runtime.jax_scope(self.precision):
            found = apart(draws.traced(self, key, self.initial(key), row, {site.name: row[site.name]})[site.name]["fn"])
        return "" if found is None else rough(found[1].solver)

    def unmeasured(self, parameters: Any, row: Any, seen: Any) -> dict[str, Any]:
        """The visible site of what a denoiser sees: {site: (*event)}."""
        (site,) = self.visible
        sites = draws.traced(self, jax.random.key(0), parameters, row, {site.name: row[site.name]})
        found = apart(sites[site.name]["fn"])
        assert found is not None
        for transform in found[2]:
            seen = transform(seen)
        return {site.name: seen}


class NumpyroChained(NumpyroBounded, Diffusing):
    """Rows, a program with a chain of latents, and the fixed guide of the chain."""

    def blocked(self, evaluate: bool = False) -> Any:
        """NotConditional, at once: to look for it in all levels of a chain takes minutes."""
        raise NotConditional("A network goes from level to level of the chain.")

    def terms(self, key: Any, parameters: Any, row: Any, time: Any = None) -> Terms:
        """By one draw of the guide, and one level of the chain; time: which, in [0, 1), by default drawn."""
        k_guide, k_level = jax.random.split(key)
        lazy, q = self._begun(k_guide, parameters, row, k_level, time)
        p = self.told(parameters, row, {k: site["value"] for k, site in q.items()})
        likelihood = sum(site_log_prob(site) for k, site in p.items() if k not in q)
        kl = {}
        for k, site in q.items():
            if k in lazy.levels:
                masked = isinstance(p[k]["fn"], MaskedDistribution)
                if masked or site["scale"] is not None or p[k]["scale"] is not None:
                    raise Incompatible(SCALED.format(k))
                kl[k] = p[k]["fn"].end_gap(site["fn"]) + p[k]["fn"].gap(site["fn"], lazy.levels[k])
            else:
                kl[k] = site_log_prob(site) - site_log_prob(p[k])
        return Terms(likelihood, kl, likelihood - sum(jnp.sum(x) for x in kl.values()), jnp.zeros(()))

    def _begun(
        self, key: Any, parameters: Any, row: Any, k_level: Any, time: Any = None
    ) -> tuple[Lazy, dict[str, Any]]:
        """The guide's hidden sites, of a chain the first level and one other."""
        own = {k: parameters[k] for k in self.guide.parameters}
        lazy = Lazy(handlers.seed(lambda: self.guide(**self._seen(row), **own), key), k_level, time)
        with handlers.block():
            trace = handlers.trace(lazy).get_trace()
        return lazy, {k: v for k, v in trace.items() if v["type"] == "sample" and not v["is_observed"]}

    def denoised(self, parameters: Any, row: Any, key: Any = None) -> tuple[Any, Any]:
        key = jax.random.key(0) if key is None else key
        lazy, q = self._begun(key, parameters, row, key)
        told = self.told(parameters, row, {k: site["value"] for k, site in q.items()})
        if len(lazy.levels) > 1:
            raise Incompatible(CHAINS.format(len(lazy.levels), ", ".join(lazy.levels)))
        (name,) = lazy.levels
        if isinstance(told[name]["fn"], MaskedDistribution):
            raise Incompatible(SCALED.format(name))
        if not hasattr(told[name]["fn"], "denoiser"):
            raise Incompatible(NO_DENOISER + "Draw with sampler='own', and bound log p(x) by method='bound'.")
        return told[name]["fn"].denoiser, q[name]["fn"].x

    def draw(self, key: Any, parameters: Any, row: Any, centre: bool = False) -> dict[str, Any]:
        """Hidden sites drawn from the guide, of a chain the first level and NaN."""
        k_guide, k_level = jax.random.split(key)
        return {k: site["value"] for k, site in self._begun(k_guide, parameters, row, k_level)[1].items()}

    def measured(self, parameters: Any, row: Any) -> tuple[Any, Any, Any]:
        """The denoiser, the point that it sees, (*event), and the log of how much larger that is than the row's: ()."""
        denoiser, point = self.denoised(parameters, row)
        low, high = self._ends(parameters, row)
        return denoiser, point, jnp.sum(jnp.log(jnp.abs(high - low)))

    def check_line(self, parameters: Any, row: Any) -> None:
        (site,) = self.visible
        (low, high), seen, x = self._ends(parameters, row), self.denoised(parameters, row)[1], row[site.name]
        if seen.shape == x.shape:
            apart = jnp.abs(low + (high - low) * x - seen)
            if bool(jnp.all(apart <= 1e-2 * (1 + jnp.abs(seen)) + 1e-5 * jnp.abs(low))):
                return
        raise Incompatible(NO_LINE.format(site.name))

    def _ends(self, parameters: Any, row: Any) -> tuple[Any, Any]:
        """What the denoiser sees of rows of zeros and of ones: coordinates are measured one by one, on a line."""
        (site,) = self.visible
        at = lambda value: self.denoised(parameters, row | {site.name: jnp.full(site.shape, value, self.precision)})[1]  # noqa: E731
        return at(0.0), at(1.0)

    def unmeasured(self, parameters: Any, row: Any, seen: Any) -> dict[str, Any]:
        """The visible site of what a denoiser sees, whole numbers where it holds them: {site: (*event)}."""
        (site,) = self.visible
        low, high = self._ends(parameters, row)
        x = (seen - low) / (high - low)
        most = {"bits": 1, "levels": site.levels - 1}.get(site.kind)
        return {site.name: x if most is None else jnp.clip(jnp.round(x), 0, most)}


class Lazy(Messenger):
    """Effect handler: of chains that noise makes, the first level is drawn, and one random level by itself, kept in `levels`."""

    def __init__(self, fn: Any, key: Any, time: Any) -> None:
        super().__init__(fn)
        self.key, self.time, self.levels = key, time, {}

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["value"] is None and hasattr(msg["fn"], "lazily"):
            count = len(self.levels)  # chains beside each other have noise of their own
            key = jax.random.fold_in(self.key, count) if count else self.key
            first, self.levels[msg["name"]] = msg["fn"].lazily(key, self.time)
            msg["value"] = filled(first, msg["fn"].event_shape[0])


class Instead(Messenger):
    """Effect handler: chains and flows are drawn by a sampler of one's own."""

    def __init__(self, fn: Any, draw: Callable[..., Any], key: Any) -> None:
        super().__init__(fn)
        self.draw, self.key = draw, key

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or msg["value"] is not None:
            return
        fn = innermost(msg["fn"])
        if hasattr(fn, "end_gap"):
            msg["value"] = filled(self.draw(fn, fn.event_shape[1:], self.key), fn.event_shape[0])
        elif (found := apart(fn)) is not None:
            point = self.draw(fn, fn.event_shape, self.key)
            for transform in found[2]:
                point = transform(point)
            msg["value"] = point


def apart(fn: Any) -> tuple[tuple[Any, ...], Any, tuple[Any, ...]] | None:
    """The transforms before a flow with a denoiser, the flow, and those after it; None where there is none."""
    fn = innermost(fn)
    if not isinstance(fn, TransformedDistribution):
        return None
    for i, transform in enumerate(fn.transforms):
        if isinstance(transform, ContinuousFlow) and hasattr(transform.velocity, "denoiser"):
            return tuple(fn.transforms[:i]), transform, tuple(fn.transforms[i + 1 :])
    return None


def diffused(target: Any) -> Any:
    """The target as one with a denoiser, where its program has one; else as it is."""
    if not isinstance(target, NumpyroLearnable) or isinstance(target, Diffusing):
        return target
    with runtime.jax_scope(target.precision):
        kind = _kind(target)
    if kind is None:
        return target
    found = kind(target.structure, target.arrays)
    found.notes = target.notes
    _check_falls(found)
    if kind is NumpyroChained:
        _check_schedules(found)
    return found


@jax.jit
def _along(target: Any, key: Any) -> Any:
    """Times from the first to 1, and the log SNR at each, before learning: (time,), (time,)."""
    row = jax.tree.map(lambda x: x[0], target.rows(jnp.arange(1)))
    schedule = target.denoised(target.initial(key), row)[0].schedule
    times = jnp.linspace(schedule.first, 1.0, 65)
    return times, jax.vmap(schedule.log_snr)(times)


def _check_falls(target: Any) -> None:
    """Raise ValueError for a schedule by which a point does not get noisier with time."""
    with runtime.jax_scope(target.precision):
        try:
            times, log_snr = (np.asarray(x) for x in _along(target, jax.random.key(0)))
        except Incompatible:  # a chain of tokens has no such schedule
            return
    falls = np.diff(np.clip(log_snr, -80, 80))
    if np.isnan(log_snr).any() or (falls > 0).any() or not log_snr[0] > log_snr[-1]:
        raise ValueError(RISES.format(float(times[int(np.argmax(np.nan_to_num(falls, nan=np.inf)))])))


def _check_schedules(target: NumpyroChained) -> None:
    """Raise ValueError for a guide whose noise is not that of the program: the chain would be taken for another."""

    @jax.jit
    def compared(arrays: Any, key: Any) -> Any:
        found = type(target)(target.structure, arrays)
        parameters, row = found.initial(key), jax.tree.map(lambda x: x[0], found.rows(jnp.arange(1)))
        lazy, q = found._begun(key, parameters, row, key)
        p = found.told(parameters, row, {k: site["value"] for k, site in q.items()})
        pairs = [
            (q[k]["fn"], p[k]["fn"])
            for k in lazy.levels
            if hasattr(p[k]["fn"], "schedule") and hasattr(q[k]["fn"], "times")
        ]
        ours = [jnp.stack([jax.vmap(fn.schedule.log_snr)(fn.times) for fn in pair]) for pair in pairs]
        return [jnp.max(jnp.abs(jnp.clip(a, -50, 50) - jnp.clip(b, -50, 50))) for a, b in ours]

    with runtime.jax_scope(target.precision):
        apart = [float(x) for x in compared(target.arrays, jax.random.key(0))]
    if any(not x < 1e-2 for x in apart):
        raise ValueError(
            f"The guide's noise is not the program's: their log SNR differ by up to {max(apart):.3g}.\n"
            "Give both the same schedule and the same times."
        )


def _kind(target: Any) -> Any:
    """Which of the two a target is, by the distributions of its sites."""
    key, found = jax.random.key(0), []

    def look() -> None:
        parameters = target.initial(key)
        row = jax.tree.map(lambda x: x[0], target.rows(jnp.arange(1)))
        if isinstance(target, NumpyroBounded):
            own = {k: parameters[k] for k in target.guide.parameters}
            lazy = Lazy(handlers.seed(lambda: target.guide(**target._seen(row), **own), key), key, None)
            with handlers.block():
                handlers.trace(lazy).get_trace()
            found.append(NumpyroChained if lazy.levels else None)
        elif target.normalised and len(target.visible) == 1:
            (site,) = target.visible
            sites = draws.traced(target, key, parameters, row, {site.name: row[site.name]})
            found.append(NumpyroFlowing if apart(sites[site.name]["fn"]) else None)

    try:
        jax.eval_shape(look)
    except Exception:  # what is wrong is told where it is used
        return None
    return found[0] if found else None


def _program(target: Any, parameters: Any, row: Any) -> Any:
    """The program run for a row's inputs."""
    inputs = {k: row[k].astype(target.arrays[k].dtype) for k in target.inputs}
    own = {k: parameters[k] for k in target.structure.parameters}
    return target.structure.one.program(**target.structure.static, **target.rest, **inputs, **own)
