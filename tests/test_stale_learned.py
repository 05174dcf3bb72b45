"""Learned models, and runs read from disk, whose programs read the environment or files: a change is refused, not mixed in.

The mean of rows is SHIFT + loc, so that loc learned with one SHIFT belongs to no other.
"""

import os

import numpy as np
import pytest
from conftest import ENGINES

import probgen as pg
from probgen.programs.pinned import Changed
from probgen.run import from_file

X = np.linspace(4.0, 6.0, 30)
WORD = "PROBGEN_TEST_SHIFT"
LEARNED = {
    "numpyro": """
import os, numpyro as E, numpyro.distributions as dist
def program(x=None):
    loc = E.param("loc", 0.0) + float(os.environ["PROBGEN_TEST_SHIFT"])
    E.sample("x", dist.Normal(loc, 1.0), obs=x)
def hidden(x=None):
    loc = E.param("loc", 0.0) + float(os.environ["PROBGEN_TEST_SHIFT"])
    E.sample("x", dist.Normal(loc + E.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)
""",
    "pyro": """
import os, pyro as E, pyro.distributions as dist, torch
def program(x):
    loc = E.param("loc", torch.tensor(0.0)) + float(os.environ["PROBGEN_TEST_SHIFT"])
    with E.plate("row", len(x)):
        E.sample("x", dist.Normal(loc, 1.0), obs=x)
def hidden(x):
    loc = E.param("loc", torch.tensor(0.0)) + float(os.environ["PROBGEN_TEST_SHIFT"])
    with E.plate("row", len(x)):
        E.sample("x", dist.Normal(loc + E.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)
""",
}
POSTERIOR = {
    "numpyro": """
import os, numpyro as E, numpyro.distributions as dist
def program(x):
    m = E.sample("m", dist.Normal(0.0, 10.0))
    E.deterministic("mean", m + float(os.environ["PROBGEN_TEST_SHIFT"]))
    with E.plate("row", len(x)):
        E.sample("x", dist.Normal(m + float(os.environ["PROBGEN_TEST_SHIFT"]), 1.0), obs=x)
""",
}
POSTERIOR["pyro"] = POSTERIOR["numpyro"].replace("numpyro", "pyro")


@pytest.fixture(autouse=True)
def _shift(monkeypatch):
    monkeypatch.setenv(WORD, "3")


@pytest.fixture(scope="module", params=ENGINES)
def learned(request, tmp_path_factory):
    """A model learned with SHIFT = 3, and the same read from disk."""
    folder, before = tmp_path_factory.mktemp("learned"), os.environ.get(WORD)
    os.environ[WORD] = "3"
    (folder / "program.py").write_text(LEARNED[request.param])
    settings = {"num_steps": 800, "learning_rate": 0.05, "batch_size": 30, "progress": False, "out": folder / "run"}
    fit = pg.fit(from_file(folder / "program.py", "program"), {"x": X}, "mle", **settings)
    yield {"fitted": fit, "loaded": pg.load(folder / "run")}
    os.environ.pop(WORD) if before is None else os.environ.update({WORD: before})


USES = {
    "sample": lambda fit: fit.sample(5),
    "condition": lambda fit: fit.condition(),
    "log_prob": lambda fit: fit.log_prob(X[:2]),
    "log_prob of its rows": lambda fit: fit.log_prob(),
    "energy": lambda fit: fit.energy(X[:2]),
    "verdict": lambda fit: fit.diagnose(),  # whose checks draw from it
}


@pytest.mark.parametrize("whence", ["fitted", "loaded"])
def test_a_learned_model_does_not_mix_two_environments(learned, whence, monkeypatch):
    fit = learned[whence]
    monkeypatch.setenv(WORD, "-3")
    for name, use in USES.items():
        if whence == "fitted" or name in ("sample", "log_prob"):
            with pytest.raises(Changed, match=r"(?s)density changed after it was fitted \(at 'x'; it reads .*environ"):
                use(fit)
    monkeypatch.setenv(WORD, "3")
    assert fit.sample(4000)["x"].mean() == pytest.approx(5, abs=0.1)
    exact = -0.5 * (X[:2] - 5) ** 2 - 0.5 * np.log(2 * np.pi)
    assert fit.log_prob(X[:2]).value == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_nor_does_one_with_codes(engine, tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(LEARNED[engine])
    settings = {"num_steps": 30, "batch_size": 30, "by_row": True, "progress": False}
    fit = pg.fit(from_file(tmp_path / "program.py", "hidden"), {"x": X}, "svi", **settings)
    before = fit.decode(z=[0.0])["x"]
    monkeypatch.setenv(WORD, "-3")
    for use in (lambda: fit.decode(z=[0.0]), lambda: fit.encode(X[:2])):
        with pytest.raises(Changed, match="density changed after it was fitted"):
            use()
    monkeypatch.setenv(WORD, "3")
    np.testing.assert_array_equal(fit.decode(z=[0.0])["x"], before)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_read_from_disk_keeps_to_the_environment_it_was_read_in(engine, tmp_path, monkeypatch):
    """What it computes at all comes of that one; predictions in another are refused."""
    (tmp_path / "program.py").write_text(POSTERIOR[engine])
    program = from_file(tmp_path / "program.py", "program")
    small = {"num_samples": 100, "num_warmup": 100, "num_chains": 1, "progress": False}
    pg.fit(program, {"x": X}, "nuts", out=tmp_path / "run", **small)
    fit = pg.load(tmp_path / "run")
    monkeypatch.setenv(WORD, "-3")
    assert float(fit.posterior["m"].mean()) == pytest.approx(2, abs=0.2)
    assert float(fit.posterior["mean"].mean()) == pytest.approx(5, abs=0.2)
    with pytest.raises(Changed, match="density changed after it was fitted"):
        fit.predict()
