"""By what two pictures are alike: the layers of a classifier trained here, of a file of yours, or filters at random.

Each as `probgen.nets.features.maps.features` takes it: {"layers": words, "weights": (number,)}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probgen.evaluate.features.classifier import strides, trained
from probgen.evaluate.features.pictures import with_channels
from probgen.evaluate.features.torch_files import read_weights
from probgen.nets.features.filters import filters_at_random
from probgen.nets.features.maps import Layer, halvings, packed, source_of

RANDOM = "filters at random"


def alike(x: np.ndarray, label: np.ndarray | None = None, file: str = "") -> dict[str, Any]:
    """What pictures x (row, height, width), from 0 to 1, are compared by.

    file: of a net's weights; else, with labels (row,), the layers of a classifier that learns them, kept in probgen's cache; else
    filters at random. ValueError for a file of something else, and for pictures that are too small for its layers.
    """
    if file:
        return of_file(file, x.shape[1:])
    return at_random(x.shape[1:]) if label is None else of_classifier(x, label)


def of_classifier(x: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """The convolutions of the classifier of `pg.evaluate`, here trained on these rows but every seventh."""
    found, tested, _ = trained(x, label)
    steps, flat = strides(min(x.shape[1:3])), found.weights[:-4]
    layers = [Layer(3, len(w) // 9, w.shape[1], stride) for stride, w in zip(steps, flat[::2], strict=True)]
    name = f"classifier of these rows, {1 - found.wrong:.1%} of {tested} held-out rows right"
    return packed(name, layers, list(flat[::2]), list(flat[1::2]))


def at_random(shape: tuple[int, ...], num_scales: int = 2, num_filters: int = 32) -> dict[str, Any]:
    """Normal filters without a mean, of side 5, or 3 for small pictures; each scale sees the responses of the one before."""
    channels = shape[2] if len(shape) > 2 else 1
    side, layers, filters = (5 if min(shape[:2]) >= 16 else 3), [], []
    for i in range(num_scales):
        layers.append(Layer(side, channels, num_filters, 1, "mean" if i else ""))
        filters.append(filters_at_random(channels, side, num_filters, seed=i))
        channels = num_filters
    return packed(RANDOM, layers, filters, [np.zeros(num_filters)] * num_scales)


def of_file(path: str | Path, shape: tuple[int, ...]) -> dict[str, Any]:
    """The convolutions of a file, in the order of their numbers: `features.0.weight` (out, in, side, side) and `features.0.bias`.

    So torchvision keeps its VGG nets, and torch any nn.Sequential of convolutions and relus, numbered. A number left out between a
    relu and the next convolution is a maximum over 2 by 2. Layers at which a picture has no 2 by 2 pixels left are not used.
    """
    arrays = read_weights(path)
    found = sorted(
        (int(m[2]), m[1], k) for k in arrays if (m := re.fullmatch(r"(.*?)(\d+)\.weight", k)) and arrays[k].ndim == 4
    )
    if not found or len({prefix for _, prefix, _ in found}) > 1:
        raise ValueError(
            f"{path} holds no one chain of convolutions, numbered as in features.0.weight, (out, in, side, side): it has "
            f"{', '.join(sorted(arrays)[:3])}, ...\nPass a VGG's weights, or those of an nn.Sequential of convolutions and relus."
        )
    layers: list[Layer] = []
    filters, biases, before = [], [], -2
    for number, prefix, name in found:
        weight, bias = np.asarray(arrays[name]), arrays.get(f"{prefix}{number}.bias")
        out, into, side, across = weight.shape
        gap = number - before
        known = gap in (2, 3) and side == across and side % 2 and (not layers or into == layers[-1].num_out)
        if not known or bias is None or bias.shape != (out,):
            after = f"{layers[-1].num_out} channels" if layers else "the picture"
            raise ValueError(
                f"{path}: {name} has shape {weight.shape}, after {after}; expected a convolution of an odd side that takes what "
                "comes out of the one before, with a bias, a relu and at most one pooling between them."
            )
        layer = Layer(side, into, out, 1, "max" if gap == 3 and layers else "", not layers and into == 3)
        if min(shape[:2]) // 2 ** halvings([*layers, layer]) < 2:
            break
        layers.append(layer)
        filters.append(weight.transpose(2, 3, 1, 0))
        biases.append(np.asarray(bias))
        before = number
    channels = shape[2] if len(shape) > 2 else 1
    if not layers or layers[0].num_in not in (channels, 3):
        seen = layers[0].num_in if layers else 0
        raise ValueError(f"{path} sees pictures of {seen} channels; these have {channels}, and {shape[:2]} pixels.")
    made = packed(str(path), layers, filters, biases)
    if not np.isfinite(made["weights"]).all():
        raise ValueError(f"{path} holds NaN or infinite weights.")
    return made


def on_scale(x: np.ndarray, name: str = "x") -> np.ndarray:
    """Pictures from 0 to 1: as they are, or whole numbers from 0 to 255 as shares of that; ValueError for others."""
    x = with_channels(np.asarray(x, np.float32))[..., 0] if np.ndim(x) == 3 else np.asarray(x, np.float32)
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 255 or (high > 1 and (x != np.rint(x)).any()):
        raise ValueError(
            f"{name} has values from {low:g} to {high:g}; what compares pictures sees 0 to 1, or whole numbers from 0 to 255.\n"
            "Rescale them, (x - low) / (high - low)."
        )
    return x / 255 if high > 1 else x


def of_data(keyword: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What a model derives of its pictures, `Model.derived`: `layers` and `weights`, by which they are compared.

    `features` is the file that they are of, where one is asked for; ValueError where `weights` are given too, of something else.
    """

    def derived(data: Mapping[str, Any]) -> dict[str, Any]:
        file = str(data.get("features") or "")
        if "weights" not in data:
            x = data.get(keyword)
            return {} if x is None else alike(on_scale(np.asarray(x), keyword), file=file)
        if file and source_of(str(data.get("layers") or "")) != file:
            raise ValueError(
                f"features is {file!r}, and weights are from {source_of(str(data.get('layers') or '')) or 'elsewhere'}.\n"
                "Leave out one of them, with layers."
            )
        return {}

    return derived
