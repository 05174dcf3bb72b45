"""Targets of Pyro programs with unknowns in R^dim, and which kind of target a structure offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from probgen import engine
from probgen.data.whole_numbers import generator
from probgen.engine.pyro.executor import OPS, Key
from probgen.engine.pyro.graph import Gradient, LinAlgError
from probgen.engine.pyro.programs.density import Block, Given, Structure, Unknowns
from probgen.engine.pyro.sums import assigned as pyro_assigned
from probgen.engine.pyro.sums import drawn as pyro_drawn
from probgen.engine.pyro.targets import PyroSimulable, PyroTarget
from probgen.programs.pinned import check_pins
from probgen.target import Arrays, Continuous, Discrete, Mixed, SubsampledContinuous

_FEW = 128  # points up to which a loop over the compiled graph beats an eager vectorised run


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

    def densities(self, points: np.ndarray) -> np.ndarray:
        """Log densities at points (point, dim), for callers outside a kernel: (point,). All at once where `torch.vmap` can."""
        try:
            return self.log_density_batch(points)
        except Exception:  # what a program raises at some points, or vmap of it
            return super().densities(points)

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
        rng, drawn = generator(seed), {}

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
        """The same program with its finite unknowns summed out exactly, by Pyro's enumeration; or drawn by the author's guide."""
        if self.structure.unlisted:
            return self._drawn(self.structure)
        kind = PyroSubsampled if self.structure.plates else PyroContinuous
        found = kind(self.structure, self.tensors, self.data)
        try:
            pyro_assigned.check(found)
        except (TypeError, ValueError, RuntimeError) as error:
            if self.author_guide is None:
                raise
            return self._drawn(pyro_drawn.instead(self.structure, self.tensors, str(error), Block))
        return found

    def _drawn(self, structure: Structure) -> PyroContinuous:
        """The target of all unknowns, which a guide must draw."""
        found = PyroContinuous(structure, self.tensors, self.data)
        names = ", ".join(map(repr, structure.drawn))
        found.needs_guide = pyro_drawn.NEEDS_GUIDE.format(structure.unlisted.partition("\n")[0], names)
        return found


class PyroDiscrete(PyroTarget, Discrete):
    """A program whose unknowns are all finite."""


def all_drawn(target: PyroDiscrete) -> PyroMixed:
    """The target of a program of finite unknowns alone, which the author's guide draws."""
    structure = pyro_drawn.instead(target.structure, target.tensors, "All unknowns are finite.", Block)
    found = PyroMixed(structure, target.tensors, target.data)
    found.author_guide, found.notes = target.author_guide, target.notes
    return found


def target_type(structure: Structure) -> type[PyroTarget]:
    """The type of target that a structure offers."""
    if not structure.blocks and not structure.finite:
        return PyroSimulable
    if structure.unlisted:
        return PyroMixed
    if structure.finite:
        return PyroMixed if structure.blocks else PyroDiscrete
    return PyroSubsampled if structure.plates else PyroContinuous
