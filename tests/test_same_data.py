"""compare holds fits of the same data against each other: other data are refused, learned models have their error."""

import numpy as np
import pytest
from conftest import ENGINES

import probgen as pg

X = np.linspace(-1, 1, 12)
SMALL = {"num_samples": 60, "num_warmup": 80, "num_chains": 1, "progress": False}


def program_of(engine, body, **space):
    library = "import numpyro as E, numpyro.distributions as dist\n"
    text = library if engine == "numpyro" else library.replace("numpyro", "pyro") + "import torch\n"
    space["__name__"] = "__main__"
    exec(text + body, space)
    return space["program"]


MEAN = """
def program(y=None):
    m = E.sample("m", dist.Normal(0.0, 1.0))
    with E.plate("row", 12): E.sample("y", dist.Normal(m, SD), obs=y)
"""


@pytest.fixture(scope="module", params=ENGINES)
def fits(request):
    program = program_of(request.param, MEAN, SD=1.0)
    other = program_of(request.param, MEAN.replace('"y"', '"z"'), SD=1.0)
    run = lambda p, y: pg.fit(p, {"y": y}, **SMALL)  # noqa: E731
    found = {"one": run(program, X), "again": run(program, X), "moved": run(program, 5 + X), "named": run(other, X)}
    return found | {"large": run(program, 1e8 + X), "as large": run(program, 1e8 + np.roll(X, 1))}


def chosen(fits, *names):
    return {name: fits[name] for name in names}


def test_the_same_data(fits):
    assert list(pg.compare(chosen(fits, "one", "again", "named")).table.index) == ["one", "again", "named"]


@pytest.mark.parametrize("pair", [("one", "moved"), ("moved", "again"), ("named", "moved"), ("large", "as large")])
def test_other_values(fits, pair):
    with pytest.raises(ValueError, match=r"are fits of different data: .* differs at 12 of 12 values"):
        pg.compare(chosen(fits, *pair))


@pytest.mark.parametrize("what", ["runs/a", None])
def test_what_is_no_fit(fits, what):
    with pytest.raises(TypeError, match=r"fits\['other'\] is a .*; expected a fit"):
        pg.compare({**chosen(fits, "one"), "other": what})


def test_other_numbers_of_rows():
    def program(y=None):
        import numpyro
        import numpyro.distributions as dist

        numpyro.sample("y", dist.Normal(numpyro.sample("m", dist.Normal(0.0, 1.0)), 1.0).expand([len(y)]), obs=y)

    fits = {str(n): pg.fit(program, {"y": X[:n]}, **SMALL) for n in (12, 7)}
    with pytest.raises(ValueError, match="site 'y' has 12 and 7 values"):
        pg.compare(fits)


def test_data_that_a_program_reads_itself():
    space = {"Y": X, "__name__": "__main__"}
    body = MEAN.replace("y=None", "").replace("obs=y", "obs=Y").replace("SD", "1.0")
    exec(f"import numpyro as E, numpyro.distributions as dist\n{body}", space)
    fits = {}
    for name, space["Y"] in (("one", X), ("other", 3 + X)):
        fits[name] = pg.fit(space["program"], {}, **SMALL)
    assert fits["other"].posterior["m"].mean() - fits["one"].posterior["m"].mean() > 2
    with pytest.raises(ValueError, match="different data"):
        pg.compare(fits)


CODES = """
def program(x=None):
    z = E.sample("z", dist.Normal(0.0, 1.0))
    E.sample("x", dist.Normal(E.param("w", 0.5) * z, 1.0), obs=x)
"""


@pytest.fixture(scope="module")
def latent():
    """Models with a hidden site, as autoencoders are, learned by two bounds and on other rows."""
    program, settings = (
        program_of("numpyro", CODES),
        {"num_steps": 40, "batch_size": 20, "progress": False, "by_row": True},
    )
    rows = np.random.default_rng(0).normal(size=40)
    fits = {word: pg.fit(program, {"x": rows}, word, **settings) for word in ("svi", "iwae")}
    return fits | {"moved": pg.fit(program, {"x": rows + 1}, "svi", **settings)}


def test_models_with_an_error_for_each_row(latent):
    compared = pg.compare(chosen(latent, "svi", "iwae"))
    assert (compared.table["log_prob_error"] > 0).all()
    assert "mean_diff" not in compared.table, "parameters are not held against each other"
    found = latent["svi"].log_prob()
    assert compared.table.loc["svi", "log_prob"] == pytest.approx(found.value.mean())
    assert compared.table.loc["svi", "log_prob_error"] == pytest.approx(np.sqrt((found.stderr**2).sum()) / 40)
    assert "lower bound" in compared.table.loc["svi", "log_prob_kind"]
    assert "lower bound" in str(compared)


def test_learned_models_of_other_rows(latent):
    with pytest.raises(ValueError, match="different data"):
        pg.compare(chosen(latent, "svi", "moved"))


def test_no_leave_one_out_of_learned_models(latent):
    with pytest.raises(ValueError, match="loo is for posterior draws"):
        pg.compare(chosen(latent, "svi", "iwae"), loo=True)


def test_the_command_line_checks_all_before_it_fits_one(capsys, tmp_path, monkeypatch):
    from probgen import run
    from probgen.cli import main

    monkeypatch.setattr(run, "fit", lambda *_, **__: pytest.fail("it began to fit"))
    assert main(["compare", "vae", "--inference", "svi", "nuts", "--out", str(tmp_path / "both"), "--no-progress"]) == 2
    assert "nuts needs" in capsys.readouterr().err.lower()
