"""Where an event of a fit is looked for: in the noise of a program run forward, or among unknowns and the noise of predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from probgen import engine
from probgen.algorithm import Sampler
from probgen.evaluate.rare.event import Event
from probgen.fitted import Fitted, FittedParameters
from probgen.target import Continuous


def why_not(fit: Fitted) -> str:
    """Why points cannot be moved towards an event of this fit; empty where they can."""
    target: Any = fit.target
    if getattr(fit.inference, "jumps", 0):
        return f"{fit.inference.name} draws by jumps of a network, in whose noise no way is written yet: its draws are counted."
    if target.engine not in engine.KNOWN or getattr(engine.load(target.engine), "forward_space", None) is None:
        return f"splitting runs on numpyro; this is a {target.engine} program, whose draws are counted."
    if isinstance(fit, FittedParameters):
        return "" if target.proper else "the program is an energy, which is not run forward."
    if not (target.named("observed") or target.named("factor") or target.points):
        weighed = [site.name for site in target.sites if site.weighed or site.masked]
        return f"{weighed[0]!r} has a scale or a mask, which draws run forward do not have." if weighed else ""
    if not isinstance(target, Continuous):
        return "the posterior's unknowns are finite, and splitting moves real ones."
    if target.structure.discrete:
        return "the program has finite unknowns that were summed out, and splitting moves real ones."
    if not isinstance(fit.inference, Sampler):
        return f"splitting starts from posterior draws, and {fit.inference.name} has those of a guide: use 'nuts'."
    return ""


def place(fit: Fitted, event: Event, given: Mapping[str, Any], data: Callable[[Mapping[str, Any]], Any]) -> Any:
    """The space; see `probgen.engine.numpyro.events.spaces`."""
    target: Any = fit.target
    found = engine.load(target.engine)
    if isinstance(fit, FittedParameters):
        return found.forward_space(fit.condition(**given))
    observed = target.named("observed")
    if not (observed or target.named("factor") or target.points):
        return found.forward_space(target)
    return found.posterior_space(target, fit.z, data(given), bool(set(observed) & set(event.read)))
