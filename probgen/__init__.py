"""probgen: generative models as plain Pyro and NumPyro programs; any inference by one word; diagnostics that judge it."""

from __future__ import annotations

import importlib
import pathlib
from typing import TYPE_CHECKING, Any

_root = pathlib.Path(__file__).parent.parent
if (_root / "models").is_dir() and (_root / "inference").is_dir() and (_root / "pyproject.toml").is_file():
    __path__ = [*__path__, str(_root)]  # a checkout: probgen.models and probgen.inference are beside this folder

_WORDS = {
    "fit": "probgen.run",
    "resume": "probgen.run",
    "load": "probgen.run",
    "extend": "probgen.run.longer",
    "compare": "probgen.comparison",
    "sbc": "probgen.calibration",
    "sweep": "probgen.sweeps.sweeping",
    "evaluate": "probgen.evaluate",
    "matrix": "probgen.run.offers",
    "Model": "probgen.model",
    "product": "probgen.evaluate.product",
    "Fit": "probgen.fits.fit",
    "Linear": "probgen.programs.linear",
    "LogProb": "probgen.fitted",
    "Incompatible": "probgen.algorithm",
    "data": "probgen.data",
    "inference": "probgen.inference",
    "loggers": "probgen.loggers",
    "models": "probgen.models",
}

__all__ = [
    "Fit",
    "Incompatible",
    "Linear",
    "LogProb",
    "Model",
    "compare",
    "data",
    "evaluate",
    "extend",
    "fit",
    "inference",
    "load",
    "loggers",
    "matrix",
    "models",
    "product",
    "resume",
    "sbc",
    "sweep",
]

if TYPE_CHECKING:
    from probgen import data as data
    from probgen import inference as inference
    from probgen import loggers as loggers
    from probgen import models as models
    from probgen.algorithm import Incompatible as Incompatible
    from probgen.calibration import sbc as sbc
    from probgen.comparison import compare as compare
    from probgen.evaluate.product import product as product
    from probgen.evaluate.samples.evaluating import evaluate as evaluate
    from probgen.fits.fit import Fit as Fit
    from probgen.fitted import LogProb as LogProb
    from probgen.model import Model as Model
    from probgen.programs.linear import Linear as Linear
    from probgen.run import fit as fit
    from probgen.run import load as load
    from probgen.run import resume as resume
    from probgen.run.longer import extend as extend
    from probgen.run.offers import matrix as matrix
    from probgen.sweeps.sweeping import sweep as sweep


def __getattr__(name: str) -> Any:
    if name not in _WORDS:
        raise AttributeError(f"module 'probgen' has no attribute {name!r}; its words are {', '.join(_WORDS)}")
    module = importlib.import_module(_WORDS[name])
    return module if _WORDS[name] == f"probgen.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return list(_WORDS)
