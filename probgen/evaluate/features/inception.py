"""Inception v3 as FID has it, from a file of its weights: 2048 features of pictures of 299 x 299, and 1008 class probabilities.

The file is that of pytorch-fid (pt_inception-2015-12-05-6726825d.pth) or of torch-fidelity (weights-inception-...), or
the same names in .npz or .safetensors. It differs from torchvision's Inception: averages that leave padding out, and a
maximum in the last block. Pictures are resized by the filter of `pictures`; the first FID did it otherwise (bilinear, aliased):
numbers compare with those of clean-fid. Class probabilities leave the bias out, as the inception score has it. In float32.
Szegedy et al. 2015 (arXiv:1512.00567); Heusel et al. 2017 (arXiv:1706.08500).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from probgen.evaluate.features.net import Net, Outputs, digest
from probgen.evaluate.features.pictures import resized
from probgen.evaluate.features.torch_files import read_weights

SIDE, BLOCK, EPSILON = 299, 16, 1e-3

Weights = dict[str, Any]

# Branches of a block: "name" or ("name", stride) one after the other; a list of two forks and is joined. "average" and
# "maximum" are poolings; the padding of a convolution keeps the size, but for those with a stride, which have none.
A = (
    ["branch1x1"],
    ["branch5x5_1", "branch5x5_2"],
    [f"branch3x3dbl_{i}" for i in (1, 2, 3)],
    ["average", "branch_pool"],
)
B = ([("branch3x3", 2)], ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3", 2)], ["reduce"])
C = (
    ["branch1x1"], [f"branch7x7_{i}" for i in (1, 2, 3)], [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)],
    ["average", "branch_pool"],
)  # fmt: skip
D = (
    ["branch3x3_1", ("branch3x3_2", 2)], ["branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", ("branch7x7x3_4", 2)],
    ["reduce"],
)  # fmt: skip
E1 = (
    ["branch1x1"], ["branch3x3_1", ["branch3x3_2a", "branch3x3_2b"]],
    ["branch3x3dbl_1", "branch3x3dbl_2", ["branch3x3dbl_3a", "branch3x3dbl_3b"]], ["average", "branch_pool"],
)  # fmt: skip
E2 = (*E1[:3], ["maximum", "branch_pool"])
BLOCKS = {
    "Mixed_5b": A, "Mixed_5c": A, "Mixed_5d": A, "Mixed_6a": B, "Mixed_6b": C, "Mixed_6c": C, "Mixed_6d": C,
    "Mixed_6e": C, "Mixed_7a": D, "Mixed_7b": E1, "Mixed_7c": E2,
}  # fmt: skip
STEM = {"Conv2d_1a_3x3": (2, 0), "Conv2d_2a_3x3": (1, 0), "Conv2d_2b_3x3": (1, 1), "Conv2d_3b_1x1": (1, 0),
        "Conv2d_4a_3x3": (1, 0)}  # fmt: skip


def inception(path: str | Path) -> Net:
    """The net of a file of weights. ValueError where names are missing, or shapes do not follow from one another."""
    arrays = read_weights(path)
    names = [*STEM, *(f"{block}.{name}" for block, branches in BLOCKS.items() for name in _names(branches))]
    parts = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    needed = [f"{name}.{part}" for name in names for part in parts] + ["fc.weight"]
    if missing := [name for name in needed if name not in arrays]:
        raise ValueError(
            f"{path} has no {missing[0]} ({len(missing)} of {len(needed)} arrays are missing).\n"
            "Expected FID's Inception v3, as pytorch-fid and torch-fidelity keep it."
        )
    weights = {name: np.asarray(arrays[name], np.float32) for name in needed}
    shown = digest(*(word for name in sorted(needed) for word in (name, weights[name])))
    apply = functools.partial(_apply, _folded(weights, names))
    classes = weights["fc.weight"].shape[0]
    return Net(f"Inception of {Path(path).name}", shown, apply, True, classes, block=BLOCK)


def _names(branches: Any) -> list[str]:
    """The convolutions of branches."""
    found = []
    for step in branches:
        if isinstance(step, list):
            found += _names(step)
        elif (name := step[0] if isinstance(step, tuple) else step) not in ("average", "maximum", "reduce"):
            found.append(name)
    return found


def _folded(weights: Weights, names: list[str]) -> Weights:
    """Convolutions (h, w, in, out) with their normalisation taken in, and biases."""
    found: Weights = {"fc": weights["fc.weight"].T}
    for name in names:
        scale = weights[f"{name}.bn.weight"] / np.sqrt(weights[f"{name}.bn.running_var"] + EPSILON)
        found[name] = weights[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * scale
        found[f"{name}.bias"] = weights[f"{name}.bn.bias"] - weights[f"{name}.bn.running_mean"] * scale
    return found


def _apply(weights: Weights, x: np.ndarray) -> Outputs:
    """Features and probabilities of pictures (row, h, w, 1 or 3) from 0 to 1."""
    from scipy.special import softmax

    from probgen.runtime import compile_cache, jax_scope

    x = np.clip(resized(np.asarray(x, float), SIDE, SIDE) * 255, 0, 255)
    x = np.repeat(x, 3, axis=-1) if x.shape[-1] == 1 else x
    with jax_scope("float32"), compile_cache():
        features = np.asarray(_compiled()(weights, np.float32((x - 128) / 128)), float)
    return features, softmax(features @ np.asarray(weights["fc"], float), axis=1)


@functools.cache
def _compiled() -> Any:
    import jax

    return jax.jit(forward)


def forward(weights: Weights, x: Any) -> Any:
    """Features of pictures (row, 299, 299, 3) from -1 to 1."""
    for name, (stride, padding) in STEM.items():
        x = _convolved(weights, name, x, stride, (padding, padding))
        if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
            x = _maximum(x, 2, 0)
    for block, branches in BLOCKS.items():
        x = _joined(weights, block, branches, x)
    return x.mean((1, 2))


def _joined(weights: Weights, block: str, branches: Any, x: Any) -> Any:
    """All branches of a block on one input, side by side."""
    import jax.numpy as jnp

    return jnp.concatenate([_branch(weights, block, branch, x) for branch in branches], axis=-1)


def _branch(weights: Weights, block: str, branch: list[Any], x: Any) -> Any:
    for step in branch:
        if isinstance(step, list):
            x = _joined(weights, block, [[name] for name in step], x)
        elif step == "average":
            x = _average(x)
        elif step in ("maximum", "reduce"):
            x = _maximum(x, 1, 1) if step == "maximum" else _maximum(x, 2, 0)
        else:
            name, stride = step if isinstance(step, tuple) else (step, 1)
            name = f"{block}.{name}"
            h, w = weights[name].shape[:2]
            x = _convolved(weights, name, x, stride, (h // 2, w // 2) if stride == 1 else (0, 0))
    return x


def _convolved(weights: Weights, name: str, x: Any, stride: int, padding: tuple[int, int]) -> Any:
    import jax

    sides = [(n, n) for n in padding]
    x = jax.lax.conv_general_dilated(
        x, weights[name], (stride, stride), sides, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(x + weights[f"{name}.bias"])


def _maximum(x: Any, stride: int, padding: int) -> Any:
    """Of 3 x 3 neighbours."""
    import jax
    import jax.numpy as jnp

    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, stride, stride, 1), sides)


def _average(x: Any) -> Any:
    """Of those of 3 x 3 neighbours that are in the picture."""
    import jax
    import jax.numpy as jnp

    add = lambda z: jax.lax.reduce_window(  # noqa: E731
        z, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )
    return add(x) / add(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
