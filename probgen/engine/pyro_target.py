"""Targets of Pyro programs: what `probgen.target` promises, in terms of a program's structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from probgen import engine, prediction
from probgen.engine import pyro_assigned, pyro_data
from probgen.engine.pyro_density import FLAT, Given, Structure, Tensors, Unknowns
from probgen.engine.pyro_graph import Gradient, LinAlgError
from probgen.engine.pyro_kernel import OPS, Key
from probgen.pinned import check_pins
from probgen.target import Arrays, Continuous, Discrete, Mixed, Simulable, Site, SubsampledContinuous, Target

_CHUNK = 1 << 22  # numbers that a vectorised run over draws may hold of its largest site
_FEW = 128  # points up to which a loop over the compiled graph beats an eager vectorised run


def is_array(value: Any) -> bool:
    """Whether a datum becomes a tensor: arrays of numbers and tensors do."""
    return isinstance(value, torch.Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub")


def as_tensor(value: Any, precision: str) -> torch.Tensor:
    """A contiguous tensor of its own, so that later changes of the array change nothing."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.array(value, dtype=np.int64 if value.dtype.kind in "iu" else None, order="C"))
    if value.is_floating_point():
        value = value.to(getattr(torch, precision))
    elif value.dtype is not torch.bool and not value.is_complex():
        value = value.to(torch.int64)
    return value.detach().clone(memory_format=torch.contiguous_format)


def plain(value: Any) -> Any:
    """NumPy scalars as Python numbers; all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


class PyroTarget(Target):
    """A Pyro program on data. Posterior draws and predictions are vectorised where torch.vmap can, else looped."""

    engine = "pyro"
    ops = OPS

    def __init__(self, structure: Structure, tensors: Tensors, data: Mapping[str, Any]) -> None:
        self.structure, self.tensors, self.data = structure, tensors, data
        self.sites: tuple[Site, ...] = structure.sites
        self.dim, self.precision, self.axes = structure.dim, structure.precision, structure.axes
        self.points = tuple(site.name for site in self.sites if site.distribution == FLAT)

    def prior(self, seed: int, num_samples: int) -> dict[str, np.ndarray]:
        """Draws of every site run forward, the observed ones unconditioned: arrays (num_samples, *shape).

        Raises ValueError, naming the site, where a prior is improper.
        """
        names = [site.name for site in self.sites if site.kind != "factor"]
        self._refuse_improper(names)

        def draw(_: torch.Tensor) -> dict[str, torch.Tensor]:
            nodes = self.structure.trace(self.tensors, pyro_data.Unobserved()).nodes
            return {name: nodes[name]["value"] for name in names}

        return self._over_draws(draw, torch.zeros(num_samples), seed)

    def _refuse_improper(self, names: Sequence[str]) -> None:
        improper = [s.name for s in self.sites if s.name in names and s.distribution == "ImproperUniform"]
        if improper:
            raise ValueError(f"Site {improper[0]!r} has an improper prior, which has no draws.\nGive it a proper one.")

    def predict(self, posterior: Arrays, data: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
        """Draws of the observed sites given `posterior`: arrays (chain, draw, *shape), the program run on `data`.

        data: as in `prepare`; the observed variables may be left out or None. Finite unknowns are drawn, unless
            `posterior` has them.
        """
        observed, (chains, draws), values = self.named("observed"), *self._flatten(posterior)
        given = {name: value[0] for name, value in values.items()}
        shapes_on = lambda some, held: self._shapes(some, given, held)  # noqa: E731
        data, held = prediction.data_on(self.structure.program, self.sites, self.data, data, shapes_on)
        structure, tensors = self._on(data)

        def draw(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return structure.values(tensors, observed, *_free(held), Given(given))

        flat = self._over_draws(draw, values, seed)
        return {name: value.reshape(chains, draws, *value.shape[1:]) for name, value in flat.items()}

    def observed_values(self) -> dict[str, np.ndarray]:
        """What every observed site is observed at, in the order of the program: arrays of the sites' shapes."""
        check_pins(self)
        with torch.no_grad(), self.structure.scope():
            give = Unknowns(lambda _, shape: torch.zeros(shape, device=self.structure.device))
            found = self.structure.values(self.tensors, self.named("observed"), give)
        return {name: value.cpu().numpy() for name, value in found.items()}

    def log_likelihood(self, posterior: Arrays, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Pointwise log likelihood of the observed sites and of factors, in nats: arrays (chain, draw, *batch).

        `posterior` has all latent sites.
        """
        names, (chains, draws), values = (*self.named("observed"), *self.named("factor")), *self._flatten(posterior)
        given = {name: value[0] for name, value in values.items()}
        prediction.check_likelihood(
            self.structure.program, self.sites, self.data, data, lambda some: self._shapes(some, given)
        )
        structure, tensors = self._on(data)

        def terms(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return structure.values(tensors, names, Given(given), densities=True)

        flat = self._over_draws(terms, values, 0)
        return {name: value.reshape(chains, draws, *value.shape[1:]) for name, value in flat.items()}

    def _shapes(
        self, data: Mapping[str, Any], given: Mapping[str, torch.Tensor], held: Sequence[str] | None = None
    ) -> dict[str, tuple[int, ...]]:
        """The shapes of the observed sites on data, at one draw; nothing is observed in that run unless `held` is None."""
        structure, tensors = self._on(data)
        free = () if held is None else _free(held)
        with torch.no_grad(), structure.scope(), pyro_data.in_words(data, prediction.NOTHING_OF_IT):
            found = structure.values(tensors, self.named("observed"), *free, Given(dict(given)))
        if missing := [name for name in self.named("observed") if name not in found]:
            raise ValueError(f"The program has no site {missing[0]!r} on these data.")
        return {name: tuple(value.shape) for name, value in found.items()}

    def _on(self, data: Mapping[str, Any]) -> tuple[Structure, Tensors]:
        """The program's structure with other data in place of its own: sites and blocks stay those of the fit."""
        arrays = tuple(name for name, value in data.items() if is_array(value))
        static = {name: plain(value) for name, value in data.items() if name not in arrays}
        tensors = [as_tensor(data[name], self.precision) for name in arrays]
        return replace(self.structure, arrays=arrays, static=static), tensors

    def _flatten(self, posterior: Arrays) -> tuple[tuple[int, int], dict[str, torch.Tensor]]:
        """Number of chains and draws, and the latent sites' values (chain * draw, *shape)."""
        latent = [name for name in self.named("latent") if name in posterior]
        needed = set(self.named("latent")) - self.structure.finite - set(latent)
        if needed:
            raise ValueError(
                f"The posterior lacks site {sorted(needed)[0]!r}; it has {', '.join(posterior) or 'none'}."
            )
        values = {name: as_tensor(np.asarray(posterior[name]), self.precision) for name in latent}
        values |= {name: values[name].to(dtype) for name, dtype in self.structure.dtypes.items() if name in values}
        chains, draws = next(iter(values.values())).shape[:2]
        return (chains, draws), {name: value.flatten(0, 1).to(self.structure.device) for name, value in values.items()}

    def _over_draws(self, function: Callable[[Any], Any], inputs: Any, seed: int) -> dict[str, np.ndarray]:
        """A function of one draw, applied along the leading axis of `inputs`; the results as arrays."""
        return {name: value.cpu().numpy() for name, value in self._tensors_over_draws(function, inputs, seed).items()}

    def _tensors_over_draws(
        self, function: Callable[[Any], Any], inputs: Any, seed: int = 0
    ) -> dict[str, torch.Tensor]:
        """The same, as tensors."""
        check_pins(self)
        largest = max([int(np.prod(site.shape)) for site in self.sites] + [1])
        chunk = max(1, min(1024, _CHUNK // largest))
        with torch.no_grad():
            try:
                with self.structure.scope(seed):
                    result = torch.vmap(function, randomness="different", chunk_size=chunk)(inputs)
            except Exception:  # what vmap cannot follow a loop can; what neither can raises there
                with self.structure.scope(seed):
                    rows = [function(row) for row in _rows(inputs)]
                    result = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return result


def _free(held: Sequence[str]) -> tuple[Any, ...]:
    """Handlers under which nothing is observed; sites take the shapes of what was, unless that is `held` to the fit's."""
    return (pyro_data.Unobserved(),) if held else (pyro_data.Unobserved(), pyro_data.Widened())


def _rows(inputs: Any) -> Iterator[Any]:
    """The entries along the leading axis of a tensor or a dictionary of tensors."""
    if isinstance(inputs, torch.Tensor):
        yield from inputs
        return
    names = list(inputs)
    for row in zip(*inputs.values(), strict=True):
        yield dict(zip(names, row, strict=True))


class PyroContinuous(PyroTarget, Continuous):
    """A program with continuous unknowns, its finite ones summed out."""

    @property
    def point_index(self) -> np.ndarray:
        blocks = [self.structure.blocks[name] for name in self.structure.blocks if name in self.points]
        return np.concatenate([np.arange(b.start, b.stop) for b in blocks]) if blocks else np.zeros(0, int)

    def first_points(self, key: Key) -> np.ndarray:
        """Where the program says that its parameters begin, unconstrained: (point,)."""
        program: Any = self.structure.program
        data = {**self.structure.static, **dict(zip(self.structure.arrays, self.tensors, strict=True))}
        begun = program.initial(data, self.precision, OPS.seed(key))
        names = [name for name in self.structure.blocks if name in self.points]
        return np.concatenate([begun[name].cpu().numpy().ravel() for name in names]).astype(np.float64)

    def paired(self) -> Any:
        return engine.load(self.engine).paired(self)

    @property
    def largest(self) -> int:
        """Numbers of the largest array of the density."""
        return self.structure.largest

    def value_and_grad(self, z: Any) -> tuple[np.float64, np.ndarray]:
        """The log density and its gradient at z: (dim,) -> (), (dim,); NaN passes through."""
        return self._gradient("full")(self._point(z), self.tensors)

    def own_value_and_grad(self, z: Any) -> tuple[np.float64, np.ndarray]:
        """The same of the unknowns themselves, without their bijections' Jacobians."""
        return self._gradient("own")(self._point(z), self.tensors)

    def log_density(self, z: Any) -> np.float64:
        """The log density at z: (dim,) -> ()."""
        return self._gradient("full").value(self._point(z), self.tensors)

    def log_density_batch(self, z: Any) -> np.ndarray:
        """The log density at many points: (batch, dim) -> (batch,).

        A few points go one by one through the compiled graph, where there is one; many at once through an eager, vectorised run.
        """
        gradient, points = self._gradient("full"), self._point(z)
        if not (gradient.is_compiled and len(points) <= _FEW):
            with torch.no_grad(), suppress(LinAlgError):
                return self.torch_log_density_batch(points).cpu().numpy().astype(np.float64)
        return np.array([gradient.value(point, self.tensors) for point in points], np.float64)

    def gradient_batch(self, z: Any) -> np.ndarray:
        """The gradient at many points: (batch, dim) -> (batch, dim)."""
        return np.array([self.value_and_grad(point)[1] for point in z]).reshape(-1, self.dim)

    def torch_log_density(self, z: torch.Tensor) -> torch.Tensor:
        """The log density at z, differentiable in torch: (dim,) -> ()."""
        with self.structure.scope():
            return self.structure.log_density(z, self.tensors)

    def torch_log_density_batch(self, z: torch.Tensor) -> torch.Tensor:
        """The log density at many points, differentiable in torch: (batch, dim) -> (batch,)."""
        with self.structure.scope():
            return _batched(lambda point: self.structure.log_density(point, self.tensors), z)

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Latent and deterministic sites at draws (chain, draw, dim), without those `summed`: arrays (chain, draw, *event)."""
        draws, structure, left_out = np.asarray(draws), self.structure, self.summed
        names = [s.name for s in self.sites if s.kind in ("latent", "deterministic") and s.name not in left_out]

        def sites(z: torch.Tensor) -> dict[str, torch.Tensor]:
            nodes = structure.trace(self.tensors, structure.unknowns(z)).nodes
            return {name: nodes[name]["value"] for name in names}

        flat = self._over_draws(sites, self._point(draws.reshape(-1, self.dim)), 0)
        return {name: value.reshape(*draws.shape[:2], *value.shape[1:]) for name, value in flat.items()}

    @property
    def summed(self) -> tuple[str, ...]:
        return pyro_assigned.summed(self) if self.structure.finite else ()

    def drawn(self, draws: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        return pyro_assigned.drawn(self, np.asarray(draws), seed) if self.structure.finite else self.constrain(draws)

    def predict(self, posterior: Arrays, data: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
        """As `Target.predict`; finite unknowns of rows that are not the fit's own are drawn given the rest (`engine.rows`)."""
        posterior = pyro_assigned.kept(self, posterior, data) if self.structure.finite else posterior
        return super().predict(posterior, data, seed)

    def log_likelihood(self, posterior: Arrays, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if not self.structure.finite:
            return super().log_likelihood(posterior, data)
        return pyro_assigned.log_likelihood(self, posterior, data)

    def unconstrain(self, values: Mapping[str, Any]) -> np.ndarray:
        """The point z (dim,) of given values of the latent sites; ValueError if one is missing or of another shape."""
        check_pins(self)
        missing = [name for name in self.structure.blocks if name not in values]
        if missing:
            raise ValueError(f"No value for site {missing[0]!r}; unconstrain needs {', '.join(self.structure.blocks)}.")
        given = Given({name: self._point(values[name]) for name in self.structure.blocks}, invert=True)
        with torch.no_grad(), self.structure.scope():
            self.structure.trace(self.tensors, given)
        return np.concatenate([given.unconstrained[n].cpu().numpy().ravel() for n in self.structure.blocks]).astype(
            float
        )

    def begun_at(self, values: Mapping[str, Any], seed: int) -> np.ndarray:
        check_pins(self)
        rng, drawn = np.random.default_rng(seed), {}

        def give(name: str, shape: tuple[int, ...]) -> torch.Tensor:
            drawn[name] = self._point(rng.uniform(-2, 2, shape))
            return drawn[name]

        given = Given({k: self._point(v) for k, v in values.items() if k in self.structure.blocks}, invert=True)
        with torch.no_grad(), self.structure.scope():
            self.structure.trace(self.tensors, Unknowns(give), given)
        points = drawn | given.unconstrained
        return np.concatenate([points[n].cpu().numpy().ravel() for n in self.structure.blocks]).astype(float)

    def terms(self, z: Any) -> dict[str, float]:
        """The log density of every site at z, in nats, for error messages; finite unknowns at a draw."""
        with torch.no_grad(), self.structure.scope():
            trace = self.structure.trace(self.tensors, self.structure.unknowns(self._point(z)))
            trace.compute_log_prob()
        return {site.name: float(trace.nodes[site.name]["log_prob_sum"]) for site in self.sites}

    def _point(self, z: Any) -> torch.Tensor:
        """A NumPy array as a tensor of its own in this target's dtype and on its device."""
        point = torch.from_numpy(np.array(z, np.float64, order="C"))  # the compiled graph knows one layout
        if self.precision != "float64" or self.structure.device.type != "cpu":
            point = point.to(self.structure.device, getattr(torch, self.precision))
        return point

    def _gradient(self, name: str) -> Gradient:
        """The gradient of all data ("full", or "own" without Jacobians) or of a minibatch; targets of a structure share it."""
        gradients, structure = self.structure.gradients, self.structure
        if name not in gradients:
            check_pins(self)
            obstacle = "it draws random numbers" if structure.is_random else None
            density = structure.own_density if name == "own" else structure.log_density
            gradients[name] = Gradient(
                density,
                structure.scope,
                frozen=structure.reads_data,
                obstacle=obstacle,
                largest=structure.largest,
            )
        return gradients[name]


def _batched(function: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    """A function of a point at many points, by vmap where that can follow it, else in a loop."""
    try:
        return torch.vmap(function)(z)
    except LinAlgError:
        raise
    except Exception:
        return torch.stack([function(point) for point in z])


class PyroSubsampled(PyroContinuous, SubsampledContinuous):
    """A program with minibatch plates: densities are those of all data, `minibatch_...` estimates them.

    A minibatch is drawn from the seed or key alone, without replacement.
    """

    def minibatch_value_and_grad(self, key: Key, z: Any) -> tuple[np.float64, np.ndarray]:
        """An unbiased estimate of the log density and of its gradient at z: (dim,) -> (), (dim,)."""
        rows = self._rows(OPS.generator(key))
        return self._gradient("minibatch")(self._point(z), self.tensors, *rows)

    def torch_minibatch_log_density(self, z: torch.Tensor, seed: int) -> torch.Tensor:
        """An unbiased estimate of the log density at z, differentiable in torch: (dim,) -> ()."""
        rows = self._rows(OPS.generator(OPS.key(seed)))
        with self.structure.scope():
            return self.structure.log_density(z, self.tensors, *rows)

    def torch_minibatch_log_density_batch(self, z: torch.Tensor, seed: int) -> torch.Tensor:
        """Estimates from one minibatch at many points, differentiable in torch: (batch, dim) -> (batch,)."""
        rows = self._rows(OPS.generator(OPS.key(seed)))
        with self.structure.scope():
            return _batched(lambda point: self.structure.log_density(point, self.tensors, *rows), z)

    def _rows(self, rng: np.random.Generator) -> list[torch.Tensor]:
        """Random indices, without replacement, for every plate that draws a minibatch."""
        plates = self.structure.plates.values()
        drawn = [rng.choice(size, batch, replace=False, shuffle=False) for size, batch in plates]
        return [torch.from_numpy(rows).to(self.structure.device) for rows in drawn]


class PyroMixed(PyroTarget, Mixed):
    """A program with continuous and finite unknowns."""

    def marginalise(self) -> PyroContinuous:
        """The same program with its finite unknowns summed out exactly, by Pyro's enumeration."""
        kind = PyroSubsampled if self.structure.plates else PyroContinuous
        found = kind(self.structure, self.tensors, self.data)
        pyro_assigned.check(found)
        return found


class PyroDiscrete(PyroTarget, Discrete):
    """A program whose unknowns are all finite."""


class PyroSimulable(PyroTarget, Simulable):
    """A program that can only be run forward."""


def target_type(structure: Structure) -> type[PyroTarget]:
    """The type of target that a structure offers."""
    if not structure.blocks and not structure.finite:
        return PyroSimulable
    if structure.finite:
        return PyroMixed if structure.blocks else PyroDiscrete
    return PyroSubsampled if structure.plates else PyroContinuous
