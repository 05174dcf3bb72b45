"""Pictures by name and from files: textures of scikit-image where it is installed, photographs of scikit-learn, and a made one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ENDINGS = (".png", ".jpg", ".jpeg")
GREY = np.array([0.299, 0.587, 0.114])  # of red, green and blue, as television has it (ITU-R BT.601)


def woven(side: int = 48, cell: int = 8, seed: int = 0) -> np.ndarray:
    """Basket weave with noise, from 0 to 1: strands across and down by turns, each lit in its middle: (side, side)."""
    down, across = np.mgrid[:side, :side]
    turned = (down // cell + across // cell) % 2 == 0
    strand = np.where(turned, down, across) % (cell // 2) + 0.5
    lit = np.sin(np.pi * strand / (cell // 2))
    return np.clip(0.15 + 0.7 * lit + 0.05 * np.random.default_rng(seed).normal(size=lit.shape), 0, 1)


def grey(picture: np.ndarray) -> np.ndarray:
    """What a picture (..., 3) is without its colours: (...)."""
    return picture @ GREY


def picture_of(path: str | Path) -> np.ndarray:
    """A PNG or JPEG file, from 0 to 1: (height, width), or (height, width, 3); ValueError for what is partly transparent.

    FileNotFoundError where there is no file, ValueError for one that is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no file {str(path)!r} in {Path.cwd()}; expected the path of a PNG or JPEG, or {', '.join(PICTURES)}."
        )
    try:
        opened = Image.open(path)
    except UnidentifiedImageError:
        raise ValueError(f"{str(path)!r} cannot be read as a picture; expected a PNG or JPEG.") from None
    with opened as file:
        grey_levels = file.mode in ("1", "L", "LA") or file.mode.startswith("I;16")
        if "A" in file.mode or "transparency" in file.info:
            clear = np.asarray(file.convert("RGBA"))[..., 3] < 255
            if clear.any():
                raise ValueError(f"{path} is transparent at {clear.sum()} pixels; save it without an alpha channel.")
        if file.mode.startswith("I;16"):
            return np.asarray(file, float) / 65535
        return np.asarray(file.convert("L" if grey_levels else "RGB"), float) / 255


def _of_skimage(name: str, shrink: int = 4) -> np.ndarray:
    """A texture that scikit-image's wheel ships, means of squares of its 512 by 512 pixels: (128, 128)."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{name!r} is a picture of scikit-image's: pip install 'probgen[pictures]', or pass a picture of your own.",
            name="skimage",
        )
    x = picture_of(Path(next(iter(spec.submodule_search_locations))) / "data" / f"{name}.png")
    x = x if x.ndim == 2 else grey(x)
    return x.reshape(len(x) // shrink, shrink, -1, shrink).mean((1, 3))


def _of_sklearn(name: str) -> np.ndarray:
    """A photograph that scikit-learn ships, from 0 to 1: (427, 640, 3)."""
    from sklearn.datasets import load_sample_image

    found: Any = load_sample_image(f"{name}.jpg")
    return np.asarray(found, float) / 255


PICTURES: dict[str, Callable[[], np.ndarray]] = {
    "woven": woven,
    "brick": lambda: _of_skimage("brick"),
    "grass": lambda: _of_skimage("grass"),
    "gravel": lambda: _of_skimage("gravel"),
    "china": lambda: _of_sklearn("china"),
    "flower": lambda: _of_sklearn("flower"),
}


def is_picture(name: str) -> bool:
    """Whether a name is that of a picture, or of a file of one."""
    return name in PICTURES or name.lower().endswith(ENDINGS)


def picture(name: str) -> np.ndarray:
    """A picture by its name (`PICTURES`) or file, from 0 to 1: (height, width), or (height, width, 3)."""
    return PICTURES[name]() if name in PICTURES else picture_of(name)
