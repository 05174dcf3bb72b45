"""Made data in the form of the data sets that Pyro's examples download, and packages that they only draw pictures with.

Nothing is fetched: `put()` answers by the last word of an address. Shapes and types are those of the examples' own data, numbers
are drawn. Packages that are installed are left as they are.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import pickle
import sys
import types
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

PICTURES = ("seaborn", "visdom", "graphviz", "wordcloud", "corner", "ipywidgets", "scanpy")
SMALL = {
    "num_epochs": 3, "num_steps": 8, "n_epochs": 3, "num_samples": 5, "warmup_steps": 5, "num_iterations": 8, "nsteps": 8,
}  # fmt: skip
# What a user would type behind a file's name, each a run of its own; only what the file offers.
VARIANTS: dict[str, list[list[str]]] = {
    "cjs": [["-m", str(i)] for i in range(1, 6)],
    "hmm": [["-m", str(i), "-n", "3", "-b", "4"] for i in range(8)],
    "scanvi": [["-d", "mock"]],
    "sparse_gamma_def": [["--guide", kind] for kind in ("custom", "auto", "easy")],
    "ProfileHMM": [["--test", "--small", "--no-plots", "--no-save"]],
    "FactorMuE": [["--test", "--small", "--no-plots", "--no-save"]],
}


def variants(file: Path) -> list[list[str]]:
    """The lists of arguments that a file is run with: none, or one for each of its models."""
    return VARIANTS.get(file.stem, [[]]) if "funsor" not in file.parts else [[]]


def put(small: bool = True) -> None:
    """Stand-ins for addresses, data sets and absent packages; small: defaults of arguments that count steps are few."""
    for name in PICTURES:
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = MagicMock()
    if importlib.util.find_spec("torchvision") is None:
        _torchvision()
    _six()
    _addresses()
    _own_data_sets()
    _pictures()
    if small:
        _few_steps()


# ---- tables and arrays, by the last word of an address ---------------------------------------------------------------


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _rugged() -> Any:
    import pandas as pd

    rng, n = _rng(), 170
    found = {"cont_africa": rng.integers(0, 2, n), "rugged": rng.gamma(1.0, 1.0, n)}
    return pd.DataFrame(found | {"rgdppc_2000": np.exp(rng.normal(8.5, 1.0, n))})


def _baseball() -> Any:
    import pandas as pd

    rng = _rng()
    rows = {"FirstName": [f"A{i}" for i in range(18)], "LastName": [f"B{i}" for i in range(18)]}
    rows |= {"At-Bats": np.full(18, 45), "Hits": rng.integers(7, 19, 18)}
    return pd.DataFrame(rows | {"SeasonAt-Bats": np.full(18, 300), "SeasonHits": rng.integers(60, 110, 18)})


def _sunspots() -> Any:
    import pandas as pd

    return pd.DataFrame({"time": 1700.5 + np.arange(320), "sunspot.year": _rng().gamma(1.5, 50.0, 320)})


def _cells() -> Any:
    import pandas as pd

    stages = [f"{2 ** (i % 7)} stage" for i in range(437)]
    return pd.DataFrame(_rng().normal(size=(437, 48)), index=stages)


def _states() -> list[str]:
    return [
        "AL", "AK", "AZ", "AR", "CA", "CO", "CT", "DE", "DC", "FL", "GA", "HI", "ID", "IL", "IN", "IA", "KS", "KY", "LA", "ME",
        "MD", "MA", "MI", "MN", "MS", "MO", "MT", "NE", "NV", "NH", "NJ", "NM", "NY", "NC", "ND", "OH", "OK", "OR", "PA", "RI",
        "SC", "SD", "TN", "TX", "UT", "VT", "VA", "WA", "WV", "WI", "WY",
    ]  # fmt: skip


def _votes(*years: int) -> Any:
    import pandas as pd

    rng, states = _rng(), _states()
    columns = pd.MultiIndex.from_product([years, ["Democrat", "Republican"]])
    return pd.DataFrame(rng.integers(100_000, 900_000, (len(states), 2 * len(years))), index=states, columns=columns)


def _electors() -> Any:
    import pandas as pd

    return pd.DataFrame({"EC": _rng().integers(3, 40, 51)}, index=_states())


def _seals() -> Any:
    import pandas as pd

    rng, animals, steps = _rng(), 6, 40
    n = animals * steps
    found = {"sex": np.repeat(["F", "M"], n // 2), "ID": np.repeat(np.arange(animals), steps)}
    found |= {"step": rng.gamma(2.0, 1.0, n), "angle": rng.uniform(-3, 3, n), "omega": rng.beta(2, 2, n)}
    return pd.DataFrame(found)


def _eeg() -> str:
    rows = np.column_stack([_rng().normal(size=(14980, 14)), np.zeros(14980)])
    return "\n" * 19 + "\n".join(",".join(f"{x:.3f}" for x in row) for row in rows)


def _chorales() -> dict[str, Any]:
    rng = _rng()
    song = lambda: [tuple(int(n) for n in rng.integers(30, 90, 4)) for _ in range(int(rng.integers(5, 9)))]  # noqa: E731
    return {s: [song() for _ in range(9)] for s in ("train", "test", "valid")}


TABLES: dict[str, Callable[[], Any]] = {
    "rugged_data.csv": _rugged,
    "EfronMorrisBB.txt": _baseball,
    "SN_y_tot_V2.0.csv": _sunspots,
    "guo_qpcr.csv": _cells,
}
FETCHED: dict[str, Callable[[], bytes]] = {
    "electoral_college_votes.pickle": lambda: pickle.dumps(_electors()),
    "us_presidential_election_data_historical.pickle": lambda: pickle.dumps(_votes(*range(1976, 2013, 4))),
    "us_presidential_election_data_test.pickle": lambda: pickle.dumps(_votes(2016)),
    "prep_seal_data.csv": lambda: _seals().to_csv(index=False).encode(),
    "EEG%20Eye%20State.arff": lambda: _eeg().encode(),
    "jsb_chorales.pickle": lambda: pickle.dumps(_chorales()),
    "faces_training.csv": lambda: "\n".join(
        ",".join(map(str, r)) for r in _rng().integers(0, 255, (320, 4096))
    ).encode(),
}


def _last(address: Any) -> str:
    return str(address).rsplit("/", 1)[-1].split("?")[0]  # "?raw=true"


def _addresses() -> None:
    import pandas as pd

    read = pd.read_csv

    def read_csv(path: Any, *args: Any, **kwargs: Any) -> Any:
        return TABLES[_last(path)]() if _last(path) in TABLES else read(path, *args, **kwargs)

    def urlopen(address: Any, *args: Any, **kwargs: Any) -> Any:
        if _last(address) not in FETCHED:
            raise OSError(f"{_last(address)} is not here")
        return io.BytesIO(FETCHED[_last(address)]())

    def download(address: str, path: str, *args: Any) -> None:
        Path(path).write_bytes(urlopen(address).read())

    pd.read_csv, urllib.request.urlopen, urllib.request.urlretrieve = read_csv, urlopen, download  # type: ignore[assignment]
    if importlib.util.find_spec("wget") is None:
        sys.modules["wget"] = types.SimpleNamespace(download=download)  # type: ignore[assignment]
    if "seaborn" in sys.modules and isinstance(sys.modules["seaborn"], MagicMock):
        sys.modules["seaborn"].load_dataset = lambda name: _irises()  # type: ignore[attr-defined]


def _irises() -> Any:
    import pandas as pd
    from sklearn.datasets import load_iris

    found = load_iris()
    frame = pd.DataFrame(found.data, columns=["sepal_length", "sepal_width", "petal_length", "petal_width"])
    frame["species"] = [str(found.target_names[i]) for i in found.target]
    return frame


# ---- data sets of pyro.contrib.examples and scikit-learn -------------------------------------------------------------


def _own_data_sets() -> None:
    import sklearn.datasets
    from pyro.contrib.examples import bart, finance, multi_mnist, nextstrain

    bart.load_bart_od = lambda: _riders(bart.load_fake_od())
    finance.load_snp500 = _index
    nextstrain.load_nextstrain_counts = _lineages
    multi_mnist.load = _digits_on_canvas
    sklearn.datasets.fetch_20newsgroups = lambda **_: {"data": _news()}


def _riders(few: dict[str, Any]) -> dict[str, Any]:
    """Of 120 weeks, hour by hour; the library's own made data are of 8."""
    import torch

    return few | {"counts": torch.from_numpy(_rng().poisson(100, (24 * 7 * 120, 3, 3))).float()}


def _index() -> Any:
    import pandas as pd

    days = [f"{1990 + i // 250}-01-{1 + i % 28:02d}" for i in range(600)]
    return pd.DataFrame({"Date": days, "Close": 100 * np.exp(np.cumsum(_rng().standard_t(3, 600) / 100))})


def _lineages(map_location: Any = None) -> dict[str, Any]:
    import datetime

    import torch

    rng, names = _rng(), ["B.1.1.7", "Q.1", "B.1.617.2", "AY.1", "B.1"]
    states = (
        "Massachusetts",
        "New York",
        "Connecticut",
        "New Hampshire",
        "Vermont",
        "New Jersey",
        "Maine",
        "Rhode Island",
    )
    places = [f"USA / {s}" for s in states] + ["England", "Brazil", "Germany", "Denmark", "France"]
    counts = torch.tensor(rng.poisson(2.0, (27, len(places), len(names)))).float()
    index = counts.nonzero(as_tuple=True)
    return {
        "counts": counts,
        "features": torch.tensor(rng.integers(0, 2, (len(names), 7))).float(),
        "lineages": names,
        "locations": places,
        "mutations": [f"S:D{i}G" for i in range(7)],
        "start_date": datetime.datetime(2020, 1, 1),
        "time_step_days": 28,
        "sparse_counts": {"index": torch.stack(index), "value": counts[index], "total": counts.sum(-1)},
    }


def _digits_on_canvas(path: Any = None) -> tuple[np.ndarray, np.ndarray]:
    rng = _rng()
    labels = np.array([list(rng.integers(0, 10, rng.integers(0, 3))) for _ in range(256)], dtype=object)
    return rng.integers(0, 255, (256, 50, 50)).astype(np.uint8), labels


def _news() -> list[str]:
    rng, words = _rng(), [f"word{chr(97 + i)}{chr(97 + j)}" for i in range(6) for j in range(10)]
    return [" ".join(rng.choice(words, 40, p=rng.dirichlet(np.full(len(words), 0.2)))) for _ in range(300)]


# ---- packages --------------------------------------------------------------------------------------------------------


def _torchvision() -> None:
    """Datasets and transforms of torchvision, as far as the examples use them; digits are drawn."""
    import torch

    class MNIST(torch.utils.data.Dataset):
        def __init__(
            self,
            root: Any = "",
            train: bool = True,
            transform: Any = None,
            target_transform: Any = None,
            download: Any = False,
        ) -> None:
            whole = "ss_vae" in sys.argv[0]  # which splits it into parts of fixed sizes
            rng, many = _rng(), (60_000 if train else 10_000) if whole else (2_000 if train else 1_000)
            images = rng.integers(0, 255, (500, 28, 28)).astype(np.uint8)
            self.data = torch.from_numpy(np.tile(images, (many // 500, 1, 1)))
            self.targets = torch.from_numpy(np.tile(rng.integers(0, 10, 500), many // 500))
            self.train, self.transform, self.target_transform = train, transform, target_transform

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, i: Any) -> Any:
            image, label = self.data[i].numpy(), int(self.targets[i])
            return (self.transform(image) if self.transform else image), label

    def to_tensor(image: Any) -> Any:
        return torch.as_tensor(np.asarray(image), dtype=torch.float32).reshape(1, 28, 28) / 255

    functional = types.ModuleType("torchvision.transforms.functional")
    functional.__dict__.update(to_tensor=to_tensor, to_pil_image=MagicMock())
    transforms = types.ModuleType("torchvision.transforms")
    in_turn = lambda steps: lambda x: _in_turn(steps, x)  # noqa: E731
    shifted = lambda mean, scale: lambda x: (x - mean[0]) / scale[0]  # noqa: E731
    transforms.__dict__.update(Compose=in_turn, ToTensor=lambda: to_tensor, Normalize=shifted, functional=functional)
    datasets = types.ModuleType("torchvision.datasets")
    datasets.__dict__.update(MNIST=MNIST, utils=MagicMock())
    whole = types.ModuleType("torchvision")
    whole.__dict__.update(transforms=transforms, datasets=datasets, utils=MagicMock())
    sys.modules |= {
        "torchvision": whole,
        "torchvision.transforms": transforms,
        "torchvision.transforms.functional": functional,
        "torchvision.datasets": datasets,
        "torchvision.utils": whole.utils,
    }


def _in_turn(steps: Any, x: Any) -> Any:
    for step in steps:
        x = step(x)
    return x


def _six() -> None:
    import queue

    if importlib.util.find_spec("six") is None:
        moves = types.SimpleNamespace(queue=queue)
        sys.modules |= {"six": types.SimpleNamespace(moves=moves), "six.moves": moves}  # type: ignore[dict-item]


def _pictures() -> None:
    """Figures are not drawn: what is measured is models."""
    import pyro

    pyro.render_model = MagicMock()
    pyro.infer.inspect.render_model = MagicMock()
    names = {k: MagicMock() for k in ("figure", "subplot", "axis", "imshow", "plot", "show", "title", "hist")}
    builtin = __import__("builtins")
    builtin.__dict__.update(names)  # of %pylab


def _few_steps() -> None:
    """Defaults of the arguments that count steps are small; what a user types stays."""
    add = argparse.ArgumentParser.add_argument

    def few(self: Any, *names: str, **kwargs: Any) -> Any:
        found = [n.lstrip("-").replace("-", "_") for n in names]
        known = next((SMALL[n] for n in found if n in SMALL), None)
        if known is not None and isinstance(kwargs.get("default"), int) and kwargs["default"] > known:
            kwargs["default"] = known
        return add(self, *names, **kwargs)

    argparse.ArgumentParser.add_argument = few  # type: ignore[assignment]
