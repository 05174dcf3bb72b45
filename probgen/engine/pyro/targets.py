"""Targets of Pyro programs: what `probgen.target` promises, in terms of a program's structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from probgen.engine import prediction
from probgen.engine.pyro.executor import OPS
from probgen.engine.pyro.programs import data as pyro_data
from probgen.engine.pyro.programs import given as pyro_given
from probgen.engine.pyro.programs.density import Given, Structure, Tensors, Unknowns
from probgen.engine.pyro.programs.sites import FLAT
from probgen.programs.pinned import check_pins
from probgen.target import Arrays, Simulable, Site, Target

_CHUNK = 1 << 22  # numbers that a vectorised run over draws may hold of its largest site


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
        self.notes = pyro_given.told(structure.given)

    def prior(self, seed: int, num_samples: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Draws of every site run forward, or of those named, the observed ones unconditioned: arrays (num_samples, *shape).

        Raises ValueError, naming the site, where a prior is improper.
        """
        every = [site.name for site in self.sites if site.kind != "factor"]
        names = every if names is None else names
        self._refuse_improper(every)

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
            give = Unknowns(
                lambda _, shape: torch.zeros(shape, device=self.structure.device), drawn=self.structure.drawn
            )
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


class PyroSimulable(PyroTarget, Simulable):
    """A program that can only be run forward."""
