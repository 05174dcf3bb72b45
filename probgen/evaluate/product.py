"""Products of learned models: what all of them find likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpyro
from numpyro import handlers

from probgen.data.checks import on_host
from probgen.engine.numpyro.engine import prepare
from probgen.fitted import FittedParameters
from probgen.measures import bits, levels, reals

if TYPE_CHECKING:
    from probgen.engine.numpyro.programs.parameters import Learned
    from probgen.target import Target, Variable


@dataclass(frozen=True)
class Product:
    """The program whose log density is the sum of several programs' at the same visible sites.

    Sites and data of the i-th are called `expert<i>.<name>`; the visible sites keep their names.
    """

    experts: tuple[Learned, ...]
    visible: tuple[Variable, ...]

    def __call__(self, **data: Any) -> None:
        values = {v.name: numpyro.sample(v.name, measure(v)) for v in self.visible}
        for i, expert in enumerate(self.experts):
            prefix = f"expert{i}"
            own = {k.removeprefix(prefix + "."): v for k, v in data.items() if k.startswith(prefix + ".")}
            handlers.scope(handlers.condition(expert, values), prefix=prefix, divider=".")(**own)

    @property
    def __name__(self) -> str:
        return " x ".join(expert.__name__ for expert in self.experts)


def measure(variable: Variable) -> Any:
    """The base measure of a site."""
    if variable.kind == "levels":
        return levels(variable.levels, *variable.shape)
    return {"bits": bits, "reals": reals}[variable.kind](*variable.shape)


def product(*fits: FittedParameters) -> Target:
    """The product of learned models of the same visible sites ("and"): a target for `pg.fit(target, inference="gibbs")`.

        log p(x, h_1, ..., h_K) = sum_k f_k(x, h_k) - log Z

    Every expert has a veto. Hidden sites of expert k are called `expert<k>.<name>`, its parameters are data. Raises ValueError
    where the visible sites differ. Source: Hinton 2002 (doi:10.1162/089976602760128018).
    """
    if not fits:
        raise ValueError("A product needs at least one learned fit.")
    visible = [tuple(fit.target.visible) for fit in fits]
    for other in visible[1:]:
        if other != visible[0]:
            said = " and ".join(
                ", ".join(f"{v.name} {v.kind} {v.shape}" for v in sites) for sites in (visible[0], other)
            )
            raise ValueError(f"The experts speak of different things: {said}.")
    targets: list[Any] = [fit.condition() for fit in fits]
    data = {f"expert{i}.{k}": v for i, target in enumerate(targets) for k, v in on_host(target.data).items()}
    program = Product(tuple(target.structure.program for target in targets), visible[0])
    return prepare(program, data, fits[0].precision)
