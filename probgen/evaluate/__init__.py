"""Numbers about fits, samples and targets; the module is itself the word `pg.evaluate`.

pg.evaluate(fit, data="mnist")      FID, KID, IS, precision, recall, density, coverage, modes, memorisation: `samples.evaluating`
samples/    measures of samples against held-out rows, a file a measure
features/   nets that pictures are compared by: a classifier trained here, your own, Inception's from a file
beside      sums, bounds and estimates of log Z and log p, energies, two-sample measures, products
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


class _Word(types.ModuleType):
    """A module that can be called: importing `probgen.evaluate` must not hide the function of that name."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return _function()(*args, **settings)

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(_function())


def _function() -> Any:
    return importlib.import_module("probgen.evaluate.samples.evaluating").evaluate


sys.modules[__name__].__class__ = _Word
