"""Made data in the form of the data sets that example models download, and stand-ins for packages that only draw pictures."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

RNG = np.random.default_rng(0)
N = 200
PICTURES = ("arviz", "graphviz", "IPython", "music21", "seaborn", "wordcloud")


def bits(*shape: int) -> np.ndarray:
    return (RNG.uniform(size=shape) < 0.3).astype("uint8")


def install(library: str) -> None:
    """Every stand-in for a library's examples, in this process and its working folder."""
    sys.meta_path.append(Pictures())
    _styles()
    if library == "numpyro":
        _numpyro()
        _tables()
        _texts()
        _german_credit()
        _speeches(Path("tbip/data/senate-speeches-114/clean"))
        _devices()


def _devices() -> None:
    """A kind of device that is not here is the CPU."""
    import jax

    own = jax.devices
    jax.devices = lambda kind=None: own("cpu") if kind in ("gpu", "cuda", "tpu") else own(kind)


# ---- packages for pictures ---------------------------------------------------------------------------------------------


class Pictures(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A package that only draws, where it is not installed: every call of it gives an object that takes any call."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.split(".")[0] in PICTURES:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> Any:
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: _attribute(name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: Any) -> None:
        module.__path__ = []


def _attribute(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    known = {"version_info": (9, 0, 0), "get_ipython": lambda: None}  # which matplotlib asks IPython for
    return known.get(name) or MagicMock(name=name)


def _styles() -> None:
    """Names that notebooks use of older versions of what draws."""
    import contextlib

    import IPython.display
    import matplotlib.pyplot as plt

    IPython.display.set_matplotlib_formats = lambda *args, **kwargs: None
    own = plt.style.use

    def use(style: Any) -> None:
        with contextlib.suppress(OSError):
            own(style)

    plt.style.use = use


# ---- NumPyro's data sets -----------------------------------------------------------------------------------------------


def _numpyro() -> None:
    from numpyro.examples import datasets

    made = {**_small(), **_images(), "mortality": {"train": _mortality()}}

    def load(dset: Any, num_datapoints: int | None = -1) -> Any:
        if dset.name not in made:
            raise FileNotFoundError(f"the data set {dset.name} is not here")
        return made[dset.name]

    datasets._load, datasets.load_bart_od = load, _bart


def _small() -> dict[str, Any]:
    names, hits = [f"Player {i}" for i in range(18)], RNG.integers(8, 20, 18)
    season = np.stack([np.full(18, 300), RNG.integers(60, 100, 18)], 1)
    angles = np.clip(RNG.normal(0, 1, (40, 2)), -3, 3).astype("float32")
    return {
        "9mers": {aa: angles for aa in "SPG"},
        "baseball": {"train": (np.stack([np.full(18, 45), hits], 1), names), "test": (season, names)},
        "boston_housing": {s: (RNG.normal(size=(N, 13)), RNG.normal(size=N)) for s in ("train", "test")},
        "covtype": {"train": (RNG.normal(size=(N, 54)), bits(N).astype("int32"))},
        "dipper_vole": {
            "dipper": (bits(60, 7).astype(int), bits(60).astype(int)),
            "vole": (bits(60, 6).astype(float),),
        },
        "higgs": {s: (RNG.normal(size=(N, 28)), bits(N).astype("int32")) for s in ("train", "test")},
        "jsb_chorales": {
            s: (RNG.integers(6, 13, 24), bits(24, 12, 88).astype("int32")) for s in ("train", "test", "valid")
        },
        "lynxhare": {"train": (np.arange(1900, 1921), RNG.uniform(5, 70, (21, 2)))},
        "SP500": {"train": ([f"{2000 + i // 250}-01-01" for i in range(500)], RNG.normal(size=500) / 100)},
        "ucbadmit": {
            "train": (np.repeat(np.arange(6), 2), np.tile([1, 0], 6), np.full(12, 300), RNG.integers(50, 250, 12))
        },
    }


def _images() -> dict[str, Any]:
    images = bits(512, 28, 28).astype("float32")  # NumPyro 0.22 has no density of grey levels where a program has bits
    return {"mnist": {s: (images, RNG.integers(0, 10, 512)) for s in ("train", "test")}}


def _mortality() -> tuple[np.ndarray, ...]:
    """Ages, two tiers of places, years, deaths and population, a row each for all of them crossed."""
    age, place, year = (v.ravel() for v in np.meshgrid(np.arange(4), np.arange(6), np.arange(5), indexing="ij"))
    return age, place // 3, place, year, RNG.integers(0, 20, age.size), np.full(age.size, 1000)


def _bart() -> dict[str, Any]:
    hours = 24 * 7 * 2 + 24 * 90
    return {"stations": np.array(["A", "B", "C"]), "start_date": None, "counts": RNG.poisson(5, (hours, 3, 3))}


# ---- tables that pandas reads from the net ------------------------------------------------------------------------------


def _tables() -> None:
    import pandas as pd

    for reader in ("read_csv", "read_stata"):
        setattr(pd, reader, _reader(getattr(pd, reader)))


def _reader(own: Any) -> Any:
    def read(source: Any, *args: Any, **kwargs: Any) -> Any:
        name = str(source).rsplit("/", 1)[-1].split("?")[0]
        if not str(source).startswith("http"):
            return own(source, *args, **kwargs)
        if name not in TABLES:
            raise FileNotFoundError(f"the table {name} is not here")
        return TABLES[name]()

    return read


def table(**columns: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(columns)


def _births() -> Any:
    import pandas as pd

    days = pd.date_range("1969-01-01", periods=1096)
    return table(
        id=np.arange(1, 1097),
        births=RNG.normal(9000, 500, 1096),
        day_of_week=days.dayofweek + 1,
        day_of_year=days.dayofyear,
    )


def _lungs() -> Any:
    patient = np.repeat(np.arange(12), 8)
    smoking = np.array(["Ex-smoker", "Never smoked", "Currently smokes"])[patient % 3]
    weeks, volume = np.tile(np.arange(0, 80, 10), 12), RNG.normal(2700, 300, 96)
    return table(
        Patient=[f"ID{i}" for i in patient], Weeks=weeks, FVC=volume.astype(int), Percent=volume / 40,
        Age=60 + patient, Sex=np.array(["Male", "Female"])[patient % 2], SmokingStatus=smoking,
    )  # fmt: skip


def _wells() -> Any:
    n = 1800
    return table(
        switch=bits(n).astype(int), arsenic=RNG.uniform(0.5, 9, n), dist=RNG.uniform(1, 300, n),
        assoc=bits(n).astype(int), educ=RNG.integers(0, 17, n),
    )  # fmt: skip


def _titanic() -> Any:
    titles = RNG.choice(["Mr.", "Miss.", "Mrs.", "Master.", "Dr."], N)
    age = np.where(RNG.uniform(size=N) < 0.2, np.nan, RNG.uniform(1, 70, N))
    return table(
        Survived=bits(N).astype(int), Pclass=RNG.integers(1, 4, N), Name=[f"Doe, {t} A" for t in titles],
        Sex=RNG.choice(["male", "female"], N), Age=age, SibSp=RNG.integers(0, 2, N), Parch=RNG.integers(0, 3, N),
        Embarked=RNG.choice(["S", "C", "Q"], N),
    )  # fmt: skip


def _divorces() -> Any:
    age, marriage = RNG.normal(26, 1, 50), RNG.normal(20, 4, 50)
    return table(
        Location=[f"State {i}" for i in range(50)], Loc=[f"S{i}" for i in range(50)], Population=RNG.uniform(1, 30, 50),
        MedianAgeMarriage=age, Marriage=marriage, Divorce=RNG.normal(9, 2, 50), WaffleHouses=RNG.integers(0, 300, 50),
        South=bits(50).astype(int), **{"Marriage SE": RNG.uniform(0.2, 1, 50), "Divorce SE": RNG.uniform(0.3, 2, 50)},
    )  # fmt: skip


def _emails() -> Any:
    limit = RNG.uniform(500, 5000, 300)
    return table(
        payments=RNG.uniform(50, 1000, 300), email=bits(300).astype(int), credit_limit=limit,
        risk_score=RNG.uniform(0, 1, 300), opened=bits(300).astype(int), agreement=bits(300).astype(int),
    )  # fmt: skip


TABLES = {
    "births_usa_1969.csv": _births,
    "osic_pulmonary_fibrosis.csv": _lungs,
    "wells.dat": _wells,
    "train.csv": _titanic,
    "WaffleDivorce.csv": _divorces,
    "collections_email.csv": _emails,
    "lynx.csv": lambda: table(time=np.arange(1821, 1935), value=RNG.integers(40, 6000, 114)),
    "fish.dta": lambda: table(
        count=RNG.poisson(2, 250),
        livebait=bits(250),
        camper=bits(250),
        persons=RNG.integers(1, 5, 250),
        child=bits(250),
    ),
}


# ---- collections of other packages --------------------------------------------------------------------------------------


def _texts() -> None:
    """Twenty newsgroups of made words, none of them in more than half of the texts."""
    import sklearn.datasets

    words = np.array([f"word{chr(97 + i // 6)}{chr(97 + i % 6)}" for i in range(36)])
    made = [" ".join(RNG.choice(words, 12)) for _ in range(N)]
    sklearn.datasets.fetch_20newsgroups = lambda *args, **kwargs: {"data": made}


def _german_credit() -> None:
    module = types.ModuleType("ucimlrepo")
    columns: dict[str, Any] = {f"Attribute{i}": RNG.normal(size=N) for i in range(4)}
    for i in range(4, 7):
        columns[f"Attribute{i}"] = np.array([f"A{i}{k}" for k in RNG.integers(0, 4, N)], dtype=object)

    def fetch_ucirepo(**which: Any) -> Any:
        features = table(**columns).astype({k: object for k, v in columns.items() if v.dtype == object})
        return types.SimpleNamespace(
            data=types.SimpleNamespace(features=features, targets=table(**{"class": RNG.integers(1, 3, N)}))
        )

    module.fetch_ucirepo = fetch_ucirepo  # type: ignore[attr-defined]
    sys.modules["ucimlrepo"] = module


def _speeches(clean: Path) -> None:
    """A corpus of speeches as files in a folder, where a notebook would clone a repository."""
    from scipy import sparse

    clean.mkdir(parents=True)
    np.save(clean / "author_indices.npy", np.arange(600) % 8)
    sparse.save_npz(clean / "counts.npz", sparse.csr_matrix(RNG.poisson(0.5, (600, 60)).astype("float32")))
    (clean / "vocabulary.txt").write_text("\n".join(f"word{i}" for i in range(60)))
    (clean / "author_map.txt").write_text("\n".join(f"Author {i}" for i in range(8)))
