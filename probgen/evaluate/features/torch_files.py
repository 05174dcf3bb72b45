"""Weights from files: PyTorch's .pth and .pt, read without PyTorch, .npz and .safetensors: {name: array}.

A .pth is a pickle that names tensors, beside their numbers: a zip since PyTorch 1.6, one stream before. Only tensors and plain
containers are built of it; anything else in it is refused, as unpickling could run it.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4",
    "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
MAGIC = 0x1950A86A20F9469CFC6C  # of a stream, before zips


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name. ValueError for a file of another kind, one that is cut short, or one with code in it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes())) as arrays:
            return dict(arrays)
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(path))
    if path.suffix not in (".pth", ".pt"):
        raise ValueError(f"{path}: expected .pth, .pt, .npz or .safetensors")
    try:
        found = _zip(path) if zipfile.is_zipfile(path) else _stream(path)
    except (pickle.UnpicklingError, EOFError, KeyError, zipfile.BadZipFile, IndexError) as error:
        raise ValueError(f"{path} cannot be read as PyTorch's weights: {error}") from error
    return _arrays(found, path)


def _arrays(found: Any, path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, or of one that is kept under "state_dict" or "model"."""
    for inner in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(inner), dict):
            found = found[inner]
    arrays = {str(k): v for k, v in found.items() if isinstance(v, np.ndarray)} if isinstance(found, dict) else {}
    if not arrays:
        raise ValueError(f"{path} holds no state dict (names and tensors); save model.state_dict().")
    return arrays


class _Reader(pickle.Unpickler):
    """Builds tensors as arrays, of storages that `storage` gives; no other classes or functions but ordered dictionaries."""

    def __init__(self, file: Any, storage: Callable[[Any], np.ndarray]):
        super().__init__(file)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and (name in TYPES or name in ("UntypedStorage", "BFloat16Storage")):
            return name
        known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_tensor"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it needs {module}.{name}, which is no tensor; save model.state_dict() alone")
        return known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        return self.storage(pid)


def _tensor(storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> np.ndarray:
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= len(storage) and 0 not in size:
        raise pickle.UnpicklingError("a tensor reaches beyond its numbers: the file is cut short")
    strides = [s * storage.itemsize for s in stride]
    return np.array(np.lib.stride_tricks.as_strided(storage[offset:], size, strides))


def _type(name: str) -> np.dtype:
    if name not in TYPES:
        raise pickle.UnpicklingError(f"{name} is not read; save the weights as floats")
    return np.dtype("<" + TYPES[name])


def _zip(path: Path) -> Any:
    """A zip: data.pkl, and a file of numbers for every storage."""
    with zipfile.ZipFile(path) as archive:
        (listing,) = [name for name in archive.namelist() if name.endswith("/data.pkl")] or [None]
        if listing is None:
            raise pickle.UnpicklingError("there is no data.pkl in it: a TorchScript file, or none of PyTorch's")
        folder = listing.removesuffix("data.pkl")
        known: dict[str, np.ndarray] = {}

        def storage(pid: Any) -> np.ndarray:
            _, kind, key, *_ = pid
            if key not in known:
                known[key] = np.frombuffer(archive.read(f"{folder}data/{key}"), _type(kind))
            return known[key]

        return _Reader(io.BytesIO(archive.read(listing)), storage).load()


def _stream(path: Path) -> Any:
    """Pickles one after the other: a magic number, a version, about the machine, the object, its storages' keys; then numbers."""
    raw = path.read_bytes()
    where: dict[str, np.ndarray] = {}

    def reader(file: io.BytesIO, storage: Callable[[Any], np.ndarray] = lambda pid: np.empty(0)) -> Any:
        return _Reader(file, storage).load()

    first = io.BytesIO(raw)
    if reader(first) != MAGIC:
        raise pickle.UnpicklingError("it does not begin as PyTorch's files do")
    for _ in range(2):  # the version, and about the machine
        reader(first)
    start = first.tell()
    sizes: dict[str, tuple[str, int]] = {}

    def sized(pid: Any) -> np.ndarray:
        _, kind, key, _, count, *_ = pid
        sizes[key] = (kind, count)
        return np.empty(count, _type(kind))

    reader(first, sized)
    for key in reader(first):
        kind, count = sizes[key]
        told = int.from_bytes(first.read(8), "little")
        numbers = first.read(count * _type(kind).itemsize)
        if told != count or len(numbers) != count * _type(kind).itemsize:
            raise pickle.UnpicklingError("its numbers are cut short")
        where[key] = np.frombuffer(numbers, _type(kind))
    return reader(io.BytesIO(raw[start:]), lambda pid: where[pid[2]])
