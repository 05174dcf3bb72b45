"""The noise of points of a flow: x to u, where the program's only site is one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from probgen import runtime
from probgen.nets.flows import Flow


def inverted(target: Any, x: np.ndarray) -> np.ndarray | None:
    """Noise of rows x (row, *event), (row, *event); None where the program has no flow."""
    with runtime.jax_scope(target.precision):
        trace = handlers.trace(target.structure.closed(target.arrays)).get_trace()
        fns = [site["fn"] for site in trace.values() if isinstance(site.get("fn"), Flow)]
        if len(fns) != 1 or type(fns[0]) is not Flow:
            return None
        flow = fns[0]
        inverse = jax.jit(jax.vmap(lambda row: flow.bijection.inverse(row, flow.condition)))
        return np.asarray(inverse(jnp.asarray(x, target.precision)))
