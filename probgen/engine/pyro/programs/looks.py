"""Looks at Pyro programs of batches of rows: runs, the parameters that they register, and their sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.subsample_messenger import _Subsample
from torch import nn

from probgen.algorithm import Incompatible
from probgen.engine.pyro.noise.chains import Short
from probgen.engine.pyro.programs.density import scoped
from probgen.engine.pyro.programs.edges import is_point
from probgen.engine.pyro.programs.parameters import Parameter, Registered

FEW = 3  # rows on which a program is looked at


def identities(parameters: Sequence[Parameter]) -> list[int]:
    """Of the tensors that modules hold in place of learned ones."""
    return [id(p.module._parameters[p.attribute]) for p in parameters if p.module is not None]


def looked(
    program: Callable[..., Any], data: Mapping[str, Any], precision: str, seed: int = 0
) -> tuple[Any, Registered]:
    """One run of a program: its trace, and the parameters that it registers."""
    seen = Registered()
    with scoped(precision, seed=seed, validate=False), torch.no_grad(), Short(), seen:
        return poutine.trace(program).get_trace(**data), seen


def traced(program: Callable[..., Any], data: Mapping[str, Any], handlers: Sequence[Any]) -> dict[str, Any]:
    """The sample sites of a run under handlers, the last one innermost."""
    with ExitStack() as stack:
        for handler in handlers:
            stack.enter_context(handler)
        return sample_nodes(poutine.trace(program).get_trace(**data))


def log_prob(node: Any) -> torch.Tensor:
    """log p of a site for every row, in nats, with its scale and mask: (row,)."""
    x = scale_and_mask(node["fn"].log_prob(node["value"]), node["scale"], node["mask"])
    return x.flatten(1).sum(1) if x.dim() > 1 else x


def sample_nodes(trace: Any) -> dict[str, Any]:
    """The sample sites of a trace, by name, without the indices of plates and deterministic ones."""
    return {
        name: n
        for name, n in trace.nodes.items()
        if n["type"] == "sample" and not isinstance(n["fn"], _Subsample) and not n["infer"].get("_deterministic")
        if not (n["is_observed"] and is_point(n))
    }


class MixesRows(Incompatible):
    """A network mixes the rows of a batch."""


def refuse_batch_norm(roots: Sequence[nn.Module], what: str = "density") -> None:
    """Raise MixesRows for networks that mix the rows of a batch; what: of a row they say."""
    if bad := [
        type(m).__name__ for root in roots for m in root.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]:
        raise MixesRows(f"With {bad[0]} a row's {what} depends on the rows beside it.\nUse GroupNorm or LayerNorm.")
