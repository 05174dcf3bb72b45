"""The log density of a Pyro program as a function of one flat point and of the program's arrays.

A program is run under two handlers: one puts the values of the latent sites, one makes plates whole or gives them their
minibatch. The bijection of a latent site is that of its distribution at that moment, so a support may depend on other
sites. For unknowns u of the sites s, with values v_s = T_s(u_s),

    log_density(u) = sum over sites of log p(v_s | parents) + sum over s of log |det dT_s / du_s|
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import SubsampleMessenger, _Subsample
from torch.distributions import biject_to

from probgen.target import Site

Tensors = Sequence[torch.Tensor]

_VALIDATION = ("validate_poutine", "validate_infer", "validate_distributions_pyro", "validate_distributions_torch")
_TRIES = 5  # points at which the first trace is tried, should a program's own arithmetic fail at one


@contextmanager
def scoped(
    dtype: str = "float64", *, seed: int = 0, validate: bool | None = False, params: dict | None = None
) -> Iterator[dict]:
    """A scope in which a program may run; every global of torch and Pyro is as before when it ends.

    Inside: the default dtype is `dtype` (programs write `torch.zeros(3)`), torch is seeded with `seed`, the parameter
    store holds `params` alone (and is given, to be filled), validation is `validate` (None leaves it as it is).
    """
    settings, default, threads = pyro.settings.get(), torch.get_default_dtype(), torch.get_num_threads()
    grad, cuda = torch.is_grad_enabled(), list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    state = {"params": {}, "constraints": {}} if params is None else params
    with torch.random.fork_rng(cuda), pyro.get_param_store().scope(state):
        try:
            torch.set_default_dtype(getattr(torch, dtype))
            torch.manual_seed(seed)
            if validate is not None:
                pyro.settings.set(**dict.fromkeys(_VALIDATION, validate))
            yield state
        finally:
            torch.set_default_dtype(default)
            torch.set_grad_enabled(grad)
            pyro.settings.set(**settings)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


@contextmanager
def whole_plates(noticed: dict[str, tuple[int, int]] | None = None) -> Iterator[None]:
    """Let plates ignore their `subsample_size`; `noticed` receives name -> (size, subsample_size) of those that had one.

    A plate fixes its size before any handler hears of it, so the size is changed where the plate asks for its indices.
    """
    original = SubsampleMessenger._subsample

    def whole(name: str, size: Any = None, subsample_size: Any = None, subsample: Any = None, *rest: Any) -> Any:
        if noticed is not None and size is not None and subsample is None and (subsample_size or size) < size:
            noticed[name] = (int(size), int(subsample_size))
        return original(name, size, None, subsample, *rest)

    SubsampleMessenger._subsample = staticmethod(whole)
    try:
        yield
    finally:
        SubsampleMessenger._subsample = staticmethod(original)


class Minibatch(Messenger):
    """Gives each subsampling plate its indices: plate name -> (subsample_size,)."""

    def __init__(self, indices: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.indices = indices

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample) and msg["name"] in self.indices:
            msg["value"], msg["done"] = self.indices[msg["name"]], True


class Unknowns(Messenger):
    """Puts the values of the continuous latent sites, from unconstrained values, and adds up the log-Jacobian.

    give: (name, unconstrained shape) -> the unconstrained value, whole plates included.
    shapes: what the values' shapes must be; one that differs has a support that depends on a site summed out.
    """

    def __init__(
        self,
        give: Callable[[str, tuple[int, ...]], torch.Tensor],
        indices: Mapping[str, torch.Tensor] | None = None,
        finite: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.give, self.indices, self.finite = give, indices or {}, finite
        self.log_jacobian: torch.Tensor | float = 0.0
        self.values: dict[str, torch.Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if not is_unknown(msg) or msg["name"] in self.finite:
            return
        transform = bijection(msg)
        batch = [1] * len(msg["fn"].batch_shape)
        u = self.give(msg["name"], tuple(transform.inverse_shape(msg["fn"].shape())))
        scale = 1.0
        for frame in msg["cond_indep_stack"]:
            if frame.name in self.indices and frame.vectorized:
                u = u.index_select(frame.dim - transform.domain.event_dim, self.indices[frame.name])
                scale = scale * frame.full_size / frame.size
        del batch
        value = transform(u)
        self.log_jacobian = self.log_jacobian + scale * transform.log_abs_det_jacobian(u, value).sum()
        self.values[msg["name"]] = value
        msg["value"], msg["done"] = value, True
