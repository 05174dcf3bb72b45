"""Targets of bits, levels and reals by blocks, each drawn given the rest; with finite unknowns summed out where that can be."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import engine, runtime
from probgen.engine.numpyro.programs.parameters import Learned
from probgen.engine.numpyro.programs.structure import MEASURES, Structure, parts, with_blocks
from probgen.engine.numpyro.sums import assigned, blocking, energy, enumeration, states
from probgen.engine.numpyro.targets.base import NumpyroTarget
from probgen.engine.numpyro.targets.continuous import NumpyroContinuous
from probgen.target import Conditional, Discrete, Mixed, Variable

NOT_FINITE = """Site {!r} ({}) is discrete and cannot be enumerated.
Sum it out in the program, or give it a finite support."""


class NumpyroConditional(NumpyroTarget, Conditional):
    """Bits, levels and reals by blocks. A site that is known in part has its values and where they hold in the data."""

    takes_turns = False  # whether its finite unknowns and its reals are drawn in turn; see `turns`

    @property
    def is_energy(self) -> bool:
        """Whether it is an energy: measures of bits, levels and reals, and factors."""
        return all(site.distribution in MEASURES for site in self.sites if site.kind == "latent")

    @property
    def suits_turns(self) -> bool:
        """Whether it is a posterior with levels, or with sites computed from its unknowns: rows of levels are drawn at once so."""
        if self.is_energy or isinstance(self.structure.program, Learned) or self.known:
            return False
        return bool(self.named("deterministic")) or any(v.kind == "levels" for v in self.variables)

    def in_turns(self) -> NumpyroConditional:
        """The target whose finite unknowns and reals, of any support, are drawn in turn; `energy.NotConditional` where a support
        has no list of values."""
        return engine.load(self.engine).in_turns(self)

    @property
    def variables(self) -> tuple[Variable, ...]:
        return self.structure.variables

    @property
    def dim(self) -> int:
        return sum(v.size for v in self.variables)

    def lowered(self) -> str:
        with runtime.jax_scope(self.precision):
            values = {v.name: jax.ShapeDtypeStruct(v.shape, self.precision) for v in self.variables}
            text = _joint.lower(self.structure, self.arrays, values).as_text()
        return f"{super().lowered()} {self.variables} {self.structure.blocks} {text}"

    def joint(self, values: Any) -> Any:
        return _joint(self.structure, self.arrays, values)

    @property
    def known(self) -> dict[str, tuple[Any, Any]]:
        """Of sites known in part: where (booleans) and what, in the sites' shapes."""
        return parts(self.arrays)

    def start(self, key: Any) -> dict[str, Any]:
        """Values to start a chain at: uniform bits and levels, standard normal reals, what is known as it is."""
        drawn = energy.anywhere(key, self.variables)
        return self.held(drawn | {k: v.astype(drawn[k].dtype) for k, v in (self.begin_at or {}).items()})

    def held(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with what is known put in."""
        known = self.known
        return {
            k: jnp.where(known[k][0], known[k][1], v).astype(v.dtype) if k in known else v for k, v in values.items()
        }

    def sweep(self, key: Any, values: Any, joint: Any = None) -> dict[str, Any]:
        """Every unknown drawn once given the rest, under the target's density or another one of the same structure."""
        return self.sweep_with_density(key, values, joint)[0]

    def sweep_with_density(self, key: Any, values: Any, joint: Any = None) -> tuple[dict[str, Any], Any]:
        """The same, and the log density at the end, which the last block's conditionals give without evaluating it."""
        known = {k: mask for k, (mask, _) in self.known.items()}
        variables = {v.name: v for v in self.variables}
        return energy.sweep(key, joint or self.joint, values, variables, self.structure.blocks, known)

    def pruned(self) -> Any:
        return engine.load(self.engine).pruned(self)

    def completed(self, draws: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        return engine.load(self.engine).completed(self, draws, seed)

    def flat(self, values: Mapping[str, Any]) -> Any:
        """The point as one array (dim,); of bytes where no unknown is real."""
        small = all(0 < v.levels <= 256 for v in self.variables)
        flat = energy.join(self.variables, values)
        return flat.astype(jnp.uint8) if small else flat

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        return energy.split(self.variables, draws)

    def blocked(self, groups: tuple[tuple[str, ...], ...] = (), evaluate: bool = False) -> NumpyroConditional:
        """The target with its blocks found; `energy.NotConditional` where a site's units have no such conditional."""
        with runtime.jax_scope(self.precision):
            bare = with_blocks(self.structure, ())
            blocks = blocking.find_blocks(bare.joint, self.arrays, self.variables, groups, evaluate)
        return type(self)(with_blocks(self.structure, blocks), self.arrays)


class NumpyroMixed(NumpyroConditional, Mixed):
    """Continuous and finite unknowns."""

    def marginalise(self) -> NumpyroContinuous:
        if held := [v.name for v in self.variables if v.levels and v.name in self.known]:
            raise energy.NotConditional(
                f"Site {held[0]!r} is known in part and cannot be summed out: use inference='gibbs'."
            )
        try:
            return self._summed_out()
        except ValueError as error:
            if enumeration.BACKWARD in str(error):  # where steps are numbered from the end, draws are, too
                raise
            if not 0 < states.count(self.structure) <= states.LARGEST:
                told = str(error)
                raise type(error)(told if "gibbs" in told else f"{told}\nOr draw them: inference='gibbs'.") from error
        told = states.note(self.structure)
        self.notes = (*(note for note in self.notes if note != told), told)
        return NumpyroContinuous(states.with_states(self.structure), self.arrays)

    def _summed_out(self) -> NumpyroContinuous:
        """The finite unknowns summed out by enumeration, or as bits that do not interact; ValueError where neither can be."""
        bits = {v.name for v in self.variables if v.kind == "bits" and v.event}
        for site in self.sites:
            if site.kind == "latent" and site.discrete and not site.enumerable and site.name not in bits:
                raise ValueError(NOT_FINITE.format(site.name, site.distribution))
        if not bits:
            return NumpyroContinuous(assigned.checked(self.structure, self.arrays), self.arrays)
        blocks, every = self.blocked().structure.blocks, {v.name for v in self.variables if v.levels}
        if not any(every <= set(block.sites) for block in blocks if block.colours is None):
            raise energy.NotConditional(f"The bits of {', '.join(sorted(every))} interact: use inference='gibbs'.")
        return NumpyroContinuous(with_blocks(self.structure, blocks), self.arrays)


class NumpyroDiscrete(NumpyroConditional, Discrete):
    """Finite unknowns alone."""


@functools.partial(jax.jit, static_argnums=0)
def _joint(structure: Structure, arrays: Any, values: Any) -> Any:
    return structure.joint(arrays, values)
