"""Which kind of target a structure has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from probgen.data.checks import check_support
from probgen.engine.numpyro.fields import NumpyroField, is_field
from probgen.engine.numpyro.programs.parameters import Learned
from probgen.engine.numpyro.programs.structure import Structure, held_noise
from probgen.engine.numpyro.targets.base import NumpyroSimulable, NumpyroTarget
from probgen.engine.numpyro.targets.conditional import NOT_FINITE, NumpyroDiscrete, NumpyroMixed
from probgen.engine.numpyro.targets.continuous import NumpyroContinuous, NumpyroSubsampled
from probgen.target import Target


def of_structure(structure: Structure, arrays: Mapping[str, Any], notes: tuple[str, ...] = ()) -> Target:
    """The target of a program that runs on its whole data."""
    check_support(structure.sites, arrays)
    structure.check_data(arrays)
    arrays = {k: jax.device_put(v) for k, v in arrays.items()}
    kinds = {v.name: v.kind for v in structure.variables}
    for site in structure.sites:
        if site.kind == "latent" and site.discrete and not site.enumerable and kinds[site.name] == "other":
            if isinstance(structure.program, Learned):
                return NumpyroSimulable(structure, arrays)
            raise ValueError(NOT_FINITE.format(site.name, site.distribution))
    target = kind(structure)(structure, arrays)
    target.notes = (*notes, *held_noise(structure, arrays))
    return target


def kind(structure: Structure) -> type[NumpyroTarget]:
    latent = [site for site in structure.sites if site.kind == "latent"]
    if not latent:
        return NumpyroSimulable
    if is_field(structure.sites):
        return NumpyroField
    if all(site.discrete for site in latent):
        return NumpyroDiscrete
    if structure.discrete:
        return NumpyroMixed
    observed = [site for site in structure.sites if site.subsampled]
    return NumpyroSubsampled if observed else NumpyroContinuous
