"""Targets of learning: parameters of a program of one point with a density, from rows of data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.engine.numpyro.programs.structure import MEASURES
from probgen.engine.numpyro.sums import blocking
from probgen.engine.numpyro.sums.energy import NotConditional
from probgen.engine.numpyro.targets.rows import NumpyroRows, first_parameters, learnable
from probgen.target import Learnable, Variable

__all__ = ["NumpyroLearnable", "learnable"]


class NumpyroLearnable(NumpyroRows, Learnable):
    """A program of one point with parameters and a density, and rows of data."""

    @property
    def proper(self) -> bool:
        sites = self.structure.one.sites
        return not any(site.kind == "factor" or site.distribution in MEASURES for site in sites)

    @property
    def normalised(self) -> bool:
        return self.proper and not self.hidden

    def initial(self, key: Any, from_data: bool = True) -> dict[str, Any]:
        """The parameters as labelled arrays, unconstrained, before learning; with biases of visible bits at the data's log odds."""
        found, begun = super().initial(key), {}
        keywords = {site: keyword for keyword, site in self.keywords.items()}
        for name, site in self.structure.biases if from_data else ():
            count = self.arrays[keywords[site]].sum(0)
            begun[name] = jnp.log((count + 0.5) / (self.num_rows - count + 0.5))
        return {**found, **self.started(begun)}

    def joint(self, parameters: Any, values: Any, key: Any = None) -> Any:
        inputs = {k: jnp.asarray(values[k]).astype(self.arrays[k].dtype) for k in self.inputs}  # as indices are
        sites = {k: v for k, v in values.items() if k not in inputs}
        own = {k: parameters[k] for k in self.structure.parameters}  # without a guide's
        return self.structure.one.joint({**self.rest, **inputs, **own}, sites, key)

    def joints(self, parameters: Any, rows: Any) -> Any:
        """The log density of rows: (row,)."""
        from probgen.nets.autoregressive import at_once

        with at_once():
            return jax.vmap(lambda values: self.joint(parameters, values))(rows)

    def lowered(self) -> str:
        with runtime.jax_scope(self.precision):
            density = jax.jit(lambda arrays, *given: type(self)(self.structure, arrays).joint(*given))
            values = {v.name: jax.ShapeDtypeStruct(v.shape, self.precision) for v in self.variables.values()}
            values |= {
                k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in self.arrays.items() if k in self.inputs
            }
            text = density.lower(self.arrays, self.first_shapes(), values).as_text()
        return f"{super().lowered()} {text}"

    @property
    def plain(self) -> NumpyroLearnable:
        """The same without its guide."""
        return self

    def blocked(self, evaluate: bool = False) -> NumpyroLearnable:
        """The target with the blocks of its sites found by `blocking.find_blocks`, once: several algorithms may ask."""
        held = vars(self).setdefault("_blocks", {})
        if evaluate not in held:
            try:
                held[evaluate] = self.plain._with_blocks(evaluate)
            except NotConditional as error:
                held[evaluate] = str(error)
        if isinstance(held[evaluate], str):
            raise NotConditional(held[evaluate])
        return NumpyroLearnable(held[evaluate], self.arrays)

    def _with_blocks(self, evaluate: bool) -> Any:
        """The structure with blocks, for parameters in general position."""
        with runtime.jax_scope(self.precision):
            rng = np.random.default_rng(0)
            parameters = {k: jnp.asarray(rng.normal(size=v.shape)) for k, v in self.first_shapes().items()}
            s = self.structure
            data, variables = {**self.shared, **parameters}, tuple(self.variables.values())
            blocks = blocking.find_blocks(s.one.joint, data, variables, evaluate=evaluate)
            biases = s.biases or self._biases(parameters)
            normal = blocking.jointly_normal(s.one.joint, data, variables, self.hidden)
        return s.but(blocks=blocks, biases=biases, normal=normal)

    def biased(self) -> NumpyroLearnable:
        """The target with the biases of its visible bits found, which then begin at the data's log odds."""
        with runtime.jax_scope(self.precision):
            s, biases = self.structure, self._biases()
        if biases == s.biases:
            return self
        return NumpyroLearnable(s.but(biases=biases), self.arrays)

    def _biases(self, parameters: Mapping[str, Any] | None = None) -> tuple[tuple[str, str], ...]:
        """Parameters b that begin at zero, and the bits v whose log odds they add to: of v_i, df/db_i has the term v_i alone.

        parameters: where the slopes are taken, by default where learning begins.
        """
        bits = [v for v in self.visible if v.kind == "bits"]
        if not bits or self.inputs:
            return ()
        # NumPy's arrays from here on: of JAX's every small step would be compiled
        first: Any = jax.device_get(first_parameters(type(self), self.structure, self.arrays, jax.random.key(0)))
        pairs = [(k, v) for v in bits for k, array in first.items() if array.shape == v.shape and not array.any()]
        if not pairs:
            return ()
        begun: Any = first if parameters is None else parameters
        values = jax.device_get(blocking.random_points(tuple(self.variables.values()), 0))
        rest, some = {**self.shared, **begun}, {k: begun[k] for k, _ in pairs}
        slopes = functools.partial(_parameter_slopes, self.structure.one.joint, rest, some)
        before = jax.device_get(slopes(values))

        def adds(name: str, v: Variable) -> bool:
            for at in {0, values[v.name].size // 2, values[v.name].size - 1}:
                flipped = values[v.name].copy()
                bit = flipped.flat[at]
                flipped.flat[at] = 1 - bit
                change = np.asarray(slopes({**values, v.name: flipped})[name]) - before[name]
                if abs(change.flat[at] - (1 - 2 * bit)) > 1e-3:
                    return False
            return True

        return tuple((name, v.name) for name, v in pairs if adds(name, v))


@functools.partial(jax.jit, static_argnums=0)
def _parameter_slopes(joint: Any, rest: Any, parameters: Any, values: Any) -> Any:
    """df/dtheta of one point."""
    return jax.grad(lambda p: joint({**rest, **p}, values))(dict(parameters))
