"""kill -9 of programs that ask more of a run than chains do: finite unknowns drawn after it, and code that calls LAPACK.

Each is killed in the middle of its steps and resumed; records, state, posterior and predictions are those of an uninterrupted
run, bit for bit.
"""

import random
import signal
import time

import numpy as np
import pytest
from conftest import needs_pyro
from test_crash import same, shell, wait_for_news  # noqa: F401  a fixture among them

import probgen as pg
from probgen.run import from_file

MIXTURE = """
import numpyro as E, numpyro.distributions as dist, jax.numpy as np

def program(x, y=None):
    m = E.sample("m", dist.Normal(np.zeros(2), 5.0).to_event(1))
    with E.plate("row", len(x)):
        k = E.sample("k", dist.Bernoulli(0.4), infer={"enumerate": "parallel"})
        E.deterministic("centre", m[INDEX])
        E.sample("y", dist.Normal(m[INDEX], 1.0), obs=y)
"""
PROCESS = """
import numpyro as E, numpyro.distributions as dist, jax.numpy as np

def program(x, y=None):
    scale, length = (E.sample(k, dist.LogNormal(0.0, 0.5)) for k in ("scale", "length"))
    K = scale**2 * np.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + 0.01 * np.eye(len(x))
    E.sample("y", dist.MultivariateNormal(np.zeros(len(x)), K), obs=y)
"""


def to_pyro(source):
    return source.replace("numpyro", "pyro").replace("jax.numpy as np", "torch as np")


SOURCES = {
    "numpyro-finite": MIXTURE.replace("INDEX", "k"),
    "pyro-finite": to_pyro(MIXTURE.replace("INDEX", "k.long()")),
    "numpyro-lapack": PROCESS,
}
KINDS = [pytest.param(k, marks=[needs_pyro] * k.startswith("pyro")) for k in SOURCES]
X = np.linspace(-1, 1, 20)
DATA = {"x": X, "y": np.where(X > 0.2, 1.5, -1.0) + 0.3 * np.random.default_rng(0).normal(size=20)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_bits(kind, shell, tmp_path):  # noqa: F811
    (tmp_path / "program.py").write_text(SOURCES[kind])
    np.savez(tmp_path / "data.npz", **DATA)
    settings = {"num_warmup": 100, "num_samples": 200 if kind.startswith("pyro") else 3000, "num_chains": 2}
    words = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items()]
    process = shell("fit", "program.py:program", "--inference", "nuts", "--data", "data.npz", "--out", "run", *words)
    wait_for_news(tmp_path / "run" / "state.safetensors", process)
    time.sleep(random.Random(kind).uniform(0, 0.2))
    process.kill()
    assert process.wait(60) == -signal.SIGKILL, f"the run was over before it was killed: {process.stderr.read()}"
    resumed = pg.resume(tmp_path / "run")
    whole = pg.fit(from_file(tmp_path / "program.py", "program"), DATA, "nuts", progress=False, **settings)
    assert resumed.complete
    assert same(resumed, whole)
    assert resumed.draws.keys() == whole.draws.keys()
    for name, value in whole.draws.items():
        np.testing.assert_array_equal(resumed.draws[name], value, err_msg=name)
    np.testing.assert_array_equal(resumed.predict()["y"].values, whole.predict()["y"].values)
    if kind.endswith("finite"):
        assert set(np.unique(whole.draws["k"])) == {0, 1}
