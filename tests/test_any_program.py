"""Programs as their authors wrote them: any arguments, and Python that looks at the data. Both engines, three algorithms each."""

import collections
import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pandas as pd
import pytest
from conftest import ENGINES

import probgen as pg
from probgen.data.files import read_file
from probgen.programs.arguments import taken_apart

ALGORITHMS = {
    "nuts": {"num_warmup": 200, "num_samples": 200, "num_chains": 2},
    "laplace": {},
    "mean_field": {"num_steps": 3000},
}
GROUP = np.array([0, 1, 2, 0, 1, 2, 2, 1])
Y = np.array([0.1, 0.9, 2.3, -0.4, 1.2, 1.8, 2.2, 0.7])
X = np.linspace(-1, 1, 8)
HOLES = np.where(np.arange(8) % 3 == 1, np.nan, Y)
TABLE = pd.DataFrame({"g": ["a", "b", "c", "a", "b", "c", "c", "b"], "x": X, "y": Y})
Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Batch:
    x: object
    y: object
    scale: float = 2.0


def numpyro_line(x, y):
    b = numpyro.sample("b", ndist.Normal(0.0, 3.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", ndist.Normal(b * x, 1.0), obs=y)


def numpyro_means(num_groups, group, y):
    with numpyro.plate("level", num_groups):
        a = numpyro.sample("a", ndist.Normal(0.0, 3.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", ndist.Normal(a[jnp.asarray(group)], 1.0), obs=y)


def pyro_line(x, y):
    import pyro
    import pyro.distributions as dist
    import torch

    x, y = (v if isinstance(v, torch.Tensor) else torch.from_numpy(np.array(v)) for v in (x, y))
    b = pyro.sample("b", dist.Normal(torch.zeros(()), 3.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(b * x, 1.0), obs=y)


def pyro_means(num_groups, group, y):
    import pyro
    import pyro.distributions as dist
    import torch

    group, y = (v if isinstance(v, torch.Tensor) else torch.from_numpy(np.array(v)) for v in (group, y))
    with pyro.plate("level", num_groups):
        a = pyro.sample("a", dist.Normal(torch.zeros(()), 3.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(a[group], 1.0), obs=y)


LINE = {"numpyro": numpyro_line, "pyro": pyro_line}
MEANS = {"numpyro": numpyro_means, "pyro": pyro_means}
SLOPE = (X @ Y) / (X @ X + 1 / 9), 1 / np.sqrt(X @ X + 1 / 9)  # mean and sd of b
LEVELS = np.array([Y[k == GROUP].sum() / ((k == GROUP).sum() + 1 / 9) for k in range(3)])  # means of a
SEEN = Y[~np.isnan(HOLES)]
FEW = (X[~np.isnan(HOLES)] @ SEEN) / (X[~np.isnan(HOLES)] @ X[~np.isnan(HOLES)] + 1 / 9)


class Owner:
    """A model in a class, its parts in methods."""

    def __init__(self, line):
        self.line, self.factor = line, 1.0

    def part(self, x, y):
        self.line(x, y)

    def model(self, x, y):
        self.part(self.factor * x, y)

    def __call__(self, x, y):
        self.model(x, y)


def unpacked(line):
    return lambda batch: line(*batch)


def table_of(means):
    def program(table):
        codes, levels = pd.factorize(table["g"], sort=True)
        means(len(levels), codes, table.y.to_numpy())

    return program


def without_holes(line):
    def program(x, y):
        seen = ~np.isnan(y)
        line(x[seen], y[seen])

    return program


def by_power(line):
    def program(power, x, y):
        line(x if power > 1 else 0 * x, y)

    return program


def spread(line):
    def program(*rows, scale=1.0):
        line(scale * rows[0], rows[1])

    return program


# By name: from an engine's line and means to the program; how it is called; the exact posterior means.
CASES = {
    "len(np.unique(g))": (lambda line, means: lambda g, y: means(len(np.unique(g)), g, y), {"g": GROUP, "y": Y}, LEVELS),
    "int(g.max()) + 1": (lambda line, means: lambda g, y: means(int(g.max()) + 1, g, y), {"g": GROUP, "y": Y}, LEVELS),
    "max of a list": (lambda line, means: lambda g, y: means(int(max(g)) + 1, g, y), {"g": GROUP.tolist(), "y": Y}, LEVELS),
    "y[~np.isnan(y)]": (lambda line, means: without_holes(line), {"x": X, "y": HOLES}, FEW),
    "if power > 1": (lambda line, means: by_power(line), {"power": np.array(2.0), "x": X, "y": Y}, SLOPE[0]),
    "a float": (lambda line, means: by_power(line), {"power": 2.0, "x": X, "y": Y}, SLOPE[0]),
    "a dictionary": (lambda line, means: lambda d: line(d["in"]["x"], d["y"]), {"d": {"in": {"x": X, "w": "?"}, "y": Y}}, SLOPE[0]),
    "a tuple": (lambda line, means: unpacked(line), {"batch": (X, Y)}, SLOPE[0]),
    "a named tuple": (lambda line, means: lambda p: line(p.x, p.y), {"p": Point(X, Y)}, SLOPE[0]),
    "a dataclass": (lambda line, means: lambda b: line(b.x * b.scale / 2, b.y), {"b": Batch(X, Y)}, SLOPE[0]),
    "a namespace": (lambda line, means: lambda n: line(n.x, n.y), {"n": types.SimpleNamespace(x=X, y=Y)}, SLOPE[0]),
    "a table": (lambda line, means: table_of(means), {"table": TABLE}, LEVELS),
    "columns": (lambda line, means: line, {"x": TABLE.x, "y": TABLE.y}, SLOPE[0]),
    "words": (lambda line, means: lambda g, y: means(3, g, y), {"g": list(TABLE.g), "y": TABLE.y}, LEVELS),
    "categories": (lambda line, means: lambda g, y: means(3, g, y), {"g": TABLE.g.astype("category"), "y": TABLE.y}, LEVELS),
    "a function": (lambda line, means: lambda f, x, y: line(f(x), y), {"f": lambda v: v * 1.0, "x": X, "y": Y}, SLOPE[0]),
    "a method": (lambda line, means: Owner(line).model, {"x": X, "y": Y}, SLOPE[0]),
    "a callable object": (lambda line, means: Owner(line), {"x": X, "y": Y}, SLOPE[0]),
    "positional": (lambda line, means: line, (X, Y), SLOPE[0]),
    "any number": (lambda line, means: spread(line), (X, Y), SLOPE[0]),
}  # fmt: skip


def fitted(engine, case, inference, **more):
    make, given, _ = CASES[case]
    called = {"args": given} if isinstance(given, tuple) else {"data": given}
    program = make(LINE[engine], MEANS[engine])
    settings = ALGORITHMS[inference] | {"progress": False} | more
    return pg.fit(program, inference=inference, **called, **settings)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_as_it_is_has_the_exact_posterior_mean(engine, case):
    fit = fitted(engine, case, "laplace")
    (found,) = fit.draws.values()
    exact = CASES[case][2]
    spread = found.std(axis=(0, 1))
    np.testing.assert_allclose(
        found.mean((0, 1)), exact, atol=5 * spread.max() / np.sqrt(found.shape[1] * found.shape[0])
    )


@pytest.mark.parametrize("inference", ["nuts", "mean_field"])
@pytest.mark.parametrize("case", ["len(np.unique(g))", "a dictionary", "any number"])
@pytest.mark.parametrize("engine", ENGINES)
def test_other_algorithms_take_it_too(engine, case, inference):
    (found,) = fitted(engine, case, inference).draws.values()
    np.testing.assert_allclose(found.mean((0, 1)), CASES[case][2], atol=0.3)


def numpyro_slopes(table, y):
    b = numpyro.sample("b", ndist.Normal(0.0, 3.0).expand([1]).to_event(1))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", ndist.Normal(table @ b, 1.0), obs=y)


def pyro_slopes(table, y):
    import pyro
    import pyro.distributions as dist
    import torch

    b = pyro.sample("b", dist.Normal(torch.zeros(1), 3.0).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(table @ b, 1.0), obs=y)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_that_a_program_multiplies_is_an_array(engine):
    program = {"numpyro": numpyro_slopes, "pyro": pyro_slopes}[engine]
    fit = pg.fit(program, {"table": TABLE[["x"]], "y": Y}, "laplace", progress=False)
    np.testing.assert_allclose(fit.draws["b"].mean(), SLOPE[0], atol=0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_looked_at_is_told_and_predicted_on(engine):
    fit = fitted(engine, "words", "laplace")
    assert any("codes: 0 for a, 1 for b, 2 for c" in note for note in fit.notes)
    drawn = fit.predict(g=["c", "a"], y=np.zeros(2))["y"]
    np.testing.assert_allclose(drawn.mean(("chain", "draw")), LEVELS[[2, 0]], atol=0.15)
    with pytest.raises(ValueError, match="'g' has 'd'; the fit's are a, b, c"):
        fit.predict(g=["d"], y=np.zeros(1))


def test_looking_is_noted_and_other_values_give_other_code():
    program = lambda g, y: numpyro_means(int(g.max()) + 1, g, y)  # noqa: E731
    first = pg.fit(program, {"g": GROUP, "y": Y}, "laplace", progress=False)
    assert any("looks at the values of g" in note for note in first.notes)
    assert not any("y" in note.split("values of")[1].split(" in ")[0] for note in first.notes)
    second = pg.fit(program, {"g": np.minimum(GROUP, 1), "y": Y}, "laplace", progress=False)
    assert [fit.draws["a"].shape[-1] for fit in (first, second)] == [3, 2]
    with pytest.raises(ValueError, match=r"would be of shape \(6,\)"):
        first.predict(g=np.array([5, 0]), y=np.zeros(2))


def test_the_same_values_compile_nothing_again():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: compiled.append(name))
    program = lambda g, y: numpyro_means(int(g.max()) + 1, g, y)  # noqa: E731
    pg.fit(program, {"g": GROUP, "y": Y}, "laplace", progress=False)
    compiled.clear()
    pg.fit(program, {"g": GROUP.copy(), "y": Y + 1}, "laplace", progress=False)
    assert not [name for name in compiled if "backend_compile" in name]


# ---- NaN -----------------------------------------------------------------------------------------------------------


def handled(x, y):
    """Missing inputs are unknowns, missing outputs are masked."""
    b, guess = numpyro.sample("b", ndist.Normal(0.0, 3.0)), numpyro.sample("guess", ndist.Normal(0.0, 1.0))
    seen = ~jnp.isnan(y)
    with numpyro.plate("row", len(y)), numpyro.handlers.mask(mask=seen):
        x = jnp.where(jnp.isnan(x), guess, x)
        numpyro.sample("y", ndist.Normal(b * x, 1.0), obs=jnp.where(seen, y, 0.0))


def bounded(high, y):
    m = numpyro.sample("m", ndist.Normal(0.0, 3.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", ndist.TruncatedNormal(m, 1.0, high=high), obs=y)


def test_nan_that_a_program_handles_passes():
    fit = pg.fit(handled, {"x": X, "y": HOLES}, "laplace", progress=False)
    np.testing.assert_allclose(fit.draws["b"].mean(), FEW, atol=0.1)
    pg.fit(handled, {"x": np.where(X > 0.9, np.nan, X), "y": Y}, "laplace", progress=False)
    pg.fit(bounded, {"high": np.full(8, np.inf), "y": Y}, "laplace", progress=False)


@pytest.mark.parametrize("data", [{"x": X, "y": HOLES}, {"x": HOLES, "y": Y}], ids=["observed", "an input"])
@pytest.mark.parametrize("engine", ENGINES)
def test_nan_that_reaches_the_density_is_refused(engine, data):
    name = next(k for k, v in data.items() if np.isnan(v).any())
    with pytest.raises(ValueError, match=rf"{name}\[1\].(?s:.*)Leave those rows out"):
        pg.fit(LINE[engine], data, "laplace", progress=False)


# ---- what is refused -----------------------------------------------------------------------------------------------

REFUSED = {
    "too many": ({"args": (X, Y, X)}, TypeError, r"do not fit .*too many"),
    "twice": ({"data": {"x": X, "y": Y}, "kwargs": {"x": X}}, TypeError, "'x' is in data and in kwargs"),
    "a string": ({"args": "xy"}, TypeError, "args is a str; expected a tuple"),
    "words as numbers": ({"data": {"x": list(TABLE.g), "y": Y}}, ValueError, "'x' has dtype <U1; expected numbers, as from"),
    "words observed": ({"data": {"x": X, "y": list(TABLE.g)}}, ValueError, "'y' has dtype <U1; expected numbers, as from"),
    "missing": ({"args": (X,)}, TypeError, "Missing data for numpyro_line: y"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_do_not_fit_are_refused(case):
    called, kind, message = REFUSED[case]
    with pytest.raises(kind, match=f"(?s){message}"):
        pg.fit(numpyro_line, inference="laplace", progress=False, **called)


def test_a_form_that_changes_is_refused():
    fit = fitted("numpyro", "a tuple", "laplace")
    assert fit.predict(batch=(X[:3], Y[:3]))["y"].shape[-1] == 3
    with pytest.raises(ValueError, match=r"'batch' has another form than the fit's"):
        fit.predict(batch=(X, Y, X))


# ---- on disk -------------------------------------------------------------------------------------------------------


def kept(table, link=np.tanh, opts=None):
    """A program with a table, a function and a dictionary of an array."""
    codes = np.unique(table["g"], return_inverse=True)[1]
    numpyro_means(int(codes.max()) + 1, codes, table.y.to_numpy() + 0 * link(opts["x"]))


def test_a_run_with_any_arguments_is_read_again(tmp_path):
    data = {"table": TABLE, "link": jnp.tanh, "opts": {"x": X, "s": 2}}
    fit = pg.fit(kept, data, "laplace", progress=False, out=tmp_path / "run")
    again = pg.load(tmp_path / "run", kept)
    np.testing.assert_array_equal(again.z, fit.z)
    np.testing.assert_array_equal(again.predict()["y"], fit.predict()["y"])


def test_what_cannot_be_kept_is_asked_for(tmp_path):
    data = {"table": TABLE, "link": lambda v: v, "opts": {"x": X}}
    fit = pg.fit(kept, data, "laplace", progress=False, out=tmp_path / "run")
    with pytest.raises(LookupError, match=r"'link' \(function\) cannot be kept on disk"):
        pg.load(tmp_path / "run", kept)
    np.testing.assert_array_equal(pg.load(tmp_path / "run", kept, data=data).z, fit.z)


def test_leaves_have_names():
    program, data = taken_apart(lambda batch, *rest, n: None, [{"x": X, "z": [X, Y[:2]]}, Y], {"n": 3})
    assert set(data) == {"batch.x", "batch.z[0]", "batch.z[1]", "rest[0]", "n"}
    assert callable(program)
    assert data["n"] == 3


def test_columns_of_a_table_on_disk_are_data(tmp_path):
    TABLE.to_csv(tmp_path / "rows.csv")
    found = read_file(tmp_path / "rows.csv")
    fit = pg.fit(numpyro_means, {"num_groups": 3, "group": found["g"], "y": found["y"]}, "laplace", progress=False)
    np.testing.assert_allclose(fit.draws["a"].mean((0, 1)), LEVELS, atol=0.1)
    assert set(found) == {"g", "x", "y"}


def numpyro_levels(group, y):
    a = numpyro.sample("a", ndist.Normal(0.0, 3.0).expand([int(group.max()) + 1]).to_event(1))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", ndist.Normal(a[group], 1.0), obs=y)


def test_columns_of_a_table_are_indices():
    """A program that looks at a column in Python and has it as an index gets an array: an index is no Series."""
    table = pd.DataFrame({"group": GROUP, "y": Y})
    columns = pg.fit(numpyro_levels, {"group": table["group"], "y": table["y"]}, "laplace", progress=False)
    arrays = pg.fit(numpyro_levels, {"group": GROUP, "y": Y}, "laplace", progress=False)
    assert np.allclose(columns.posterior["a"], arrays.posterior["a"])
