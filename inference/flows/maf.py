"""Masked autoregressive flow: z_i = u_i exp(s_i(z_<i)) + t_i(z_<i), so that evaluating log q takes one pass.

Its conditionals are those of an autoregressive model of z; drawing takes as many passes as there are unknowns.
Papamakarios, Pavlakou and Murray 2017, arXiv:1705.07057.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from probgen.inference.flows.iaf import IAF


@dataclass(frozen=True, kw_only=True)
class MAF(IAF):
    """Masked autoregressive layers, then an affine map; settings as for `iaf`."""

    invert: ClassVar[bool] = True
