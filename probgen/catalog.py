"""The catalogue: what the folders `models/` and `inference/` hold, and what other packages add by entry points.

A model is a file with a module-level `model`; an algorithm is a file with one public `Inference` class. Files whose name
begins with an underscore are parts of others. Nothing is registered, and listing imports nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
from typing import Any

from probgen.algorithm import Inference, closest, configure, offered
from probgen.model import Model
from probgen.target import Target

_CHAINS = "Nearest: 'nuts', or 'random_walk', which asks the density alone."
_LOOP = "Nearest: 'svi', which is NumPyro's and Pyro's loop with Adam; a guide of yours is guide=..."
_SERIES = "Nearest: 'nuts' on the whole series (scan, markov), whose finite states are summed out exactly."
_SUMMED = "Nearest: 'nuts', which sums finite unknowns out exactly; 'gibbs' draws them."
_TURNS = "Nearest: 'gibbs', finite unknowns in turn with Hamiltonian steps of the reals; 'nuts' sums them out."
_WEIGHTS = (
    "Nearest: 'nuts' for the posterior; a bound by importance weights is inference='iwae', or elbo='renyi' of 'svi'."
)
_WIDE = "Nearest: 'neural_spline', a guide of many shapes; 'tempering' where there are several modes."

# Algorithms of other libraries and of textbooks, without the signs between their words, and what serves their purpose here.
NEAREST = {
    **dict.fromkeys(("stein", "steinvi", "svgd", "asvgd", "boosting", "boostingbbvi", "mixturevi"), _WIDE),
    **dict.fromkeys(("nested", "nestedsampling"), _WIDE),
    **dict.fromkeys(("importance", "importancesampling", "importancesampler", "snis", "csis", "rws", "wakesleep"), _WEIGHTS),
    **dict.fromkeys(("reweightedwakesleep", "tracetmc", "vimco", "renyielbo"), _WEIGHTS),
    **dict.fromkeys(("smcfilter", "particlefilter", "bootstrapfilter", "rbpf", "kalman", "kalmanfilter", "pmcmc"), _SERIES),
    **dict.fromkeys(("hmcgibbs", "discretehmcgibbs", "mixedhmc", "compoundstep"), _TURNS),
    **dict.fromkeys(("inferdiscrete", "enumeration", "enum", "exact", "traceenumelbo", "beliefpropagation"), _SUMMED),
    **dict.fromkeys(("mh", "metropolishastings", "rwm", "rwmh", "slice", "slicesampling", "ess", "ellipticalslice"), _CHAINS),
    **dict.fromkeys(("aies", "emcee", "ensemble", "sa", "demetropolis", "mcmckernel", "randomwalkkernel"), _CHAINS),
    **dict.fromkeys(("traceelbo", "tracegraphelbo", "scorefunction", "reinforce", "bbvi"), _LOOP),
    **dict.fromkeys(("mcmc", "blackjax", "nutpie", "stan"), "Nearest: 'nuts'."),
    **dict.fromkeys(("smc", "smcsampler", "replicaexchange", "simulatedtempering", "rehmc"), "Nearest: 'tempering'."),
    **dict.fromkeys(("hmcecs", "sghmc", "sgmcmc", "sgnuts", "stochasticgradientlangevin"), "Nearest: 'sgld', of minibatches."),
    **dict.fromkeys(("barker", "barkermh", "langevin"), "Nearest: 'mala'."),
    **dict.fromkeys(("advi", "meanfieldadvi", "vi", "variational", "bayesbybackprop", "dadvi"), "Nearest: 'mean_field', or 'svi'."),
    **dict.fromkeys(("fulladvi", "fullrankadvi"), "Nearest: 'full_rank'."),
    **dict.fromkeys(("laplaceapproximation", "inla", "pathfinder"), "Nearest: 'laplace', the normal at the mode."),
    **dict.fromkeys(("optimize", "optimizing", "lbfgs", "bfgs", "mapestimate", "findmap", "newton"), "Nearest: 'map'."),
    **dict.fromkeys(("maximumlikelihoodestimation", "sgd", "adam"), "Nearest: 'mle', of parameters; 'map' of unknowns."),
    **dict.fromkeys(("emalgorithm", "expectationmaximization", "baumwelch"), "Nearest: 'em', of mixtures; 'mle' sums states out."),
    **dict.fromkeys(("simulatedannealing",), "Nearest: 'annealing'."),
    **dict.fromkeys(
        ("abc", "smcabc", "rejection", "sbi", "npe"),
        "Nearest: 'nuts', where the simulator is a program with a density of its data; there is no posterior without one here.",
    ),
}  # fmt: skip


def nearest(word: str) -> str:
    """' Nearest: ...' where an algorithm of another library is known by this name, as the name of its class too; else nothing."""
    plain = "".join(c for c in str(word).lower() if c.isalnum())
    if plain.startswith("auto") and len(plain) > 4:
        return f" An automatic guide is given as such: inference='svi', guide={word}, of NumPyro or Pyro."
    return f" {NEAREST[plain]}" if plain in NEAREST else ""


@functools.cache
def modules(group: str) -> dict[str, str]:
    """Names and modules of a group, "probgen.models" or "probgen.inference"."""
    package = importlib.import_module(group)
    found = {}
    for folder in pkgutil.iter_modules(package.__path__, f"{group}."):
        if folder.ispkg:
            inner = importlib.import_module(folder.name)
            for file in pkgutil.iter_modules(inner.__path__, f"{folder.name}."):
                word = file.name.rpartition(".")[2]
                if not word.startswith("_"):
                    found[word] = file.name
    for point in importlib.metadata.entry_points(group=group):
        found.setdefault(point.name, point.value)
    return found


def _find(group: str, word: str, what: str) -> Any:
    known = modules(group)
    if word not in known:
        hint = (nearest(word) if what == "inference" else "") or closest(word, known)
        raise ValueError(f"Unknown {what} {word!r}.{hint}\nKnown: {', '.join(sorted(known))}.")
    module, _, attribute = known[word].partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in ("pyro", "torch"):
            raise
        raise ModuleNotFoundError(
            f"The {what} {word!r} needs torch and pyro-ppl: pip install 'probgen[pyro]'", name=error.name
        ) from error
    return getattr(loaded, attribute) if attribute else loaded


def model(word: str) -> Model:
    """The model of one name; an unknown one is a ValueError that lists the known ones."""
    found = _find("probgen.models", word, "model")
    return found if isinstance(found, Model) else found.model


def algorithm(word: str) -> type[Inference]:
    """The class of one algorithm; an unknown one is a ValueError that lists the known ones."""
    found = _find("probgen.inference", word, "inference")
    return found if isinstance(found, type) else _public(found)


def _public(module: Any) -> type[Inference]:
    own = [
        thing
        for key, thing in vars(module).items()
        if isinstance(thing, type) and issubclass(thing, Inference) and thing.__module__ == module.__name__
        and not key.startswith("_")
    ]  # fmt: skip
    (only,) = own
    return only


def inference(word: str | Inference, settings: dict[str, Any]) -> Inference:
    """An algorithm by name or as settings, with further settings; unknown ones are errors that list the known ones."""
    if isinstance(word, str):
        word = algorithm(word)()
    elif isinstance(word, type) and issubclass(word, Inference):
        word = word()
    if not isinstance(word, Inference):
        kind = (word if isinstance(word, type) else type(word)).__name__
        hint = nearest(kind) or closest(kind, modules("probgen.inference"))
        raise TypeError(f"inference is a {kind}; expected a name or a settings object, such as 'nuts'.{hint}")
    return configure(word, settings)


def algorithms_for(target: Target | type[Target], engine: str) -> list[str]:
    """Names of the algorithms whose types a target offers; see `probgen.run.suggestions` for those that take it."""
    return [
        word
        for word in modules("probgen.inference")
        if offered(algorithm(word), target) and engine in algorithm(word).engines
    ]
