"""The twin of `test_parameters` in Pyro: parameters beside unknowns are learned or refused, an author's guide is used or told.

y ~ N(mu, s) with mu's prior as good as flat: the bound of a normal guide is exact, its maximum over s the sample's sd.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro.nn import PyroModule, PyroParam  # noqa: E402

import probgen as pg  # noqa: E402
from probgen.algorithm import Incompatible  # noqa: E402

POSITIVE = dist.constraints.positive
Y = np.random.default_rng(0).normal(2, 3, 50)
SD = Y.std(ddof=1)
QUICK = {"num_steps": 700, "num_particles": 4, "learning_rate": 0.05, "block": 20, "num_draws": 400, "progress": False}
SHORT = {"num_steps": 300, "num_particles": 1, "num_draws": 100, "progress": False}


def plate(y):
    s = pyro.param("s", torch.tensor(1.0), constraint=POSITIVE)
    mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu, s), obs=y)


def no_plate(y=None):
    """What Pyro makes of it on the whole data: one mu for all of them."""
    s = pyro.param("s", torch.tensor(1.0), constraint=POSITIVE)
    mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
    pyro.sample("y", dist.Normal(mu, s), obs=y)


class Module(PyroModule):
    def __init__(self):
        super().__init__()
        self.s = PyroParam(torch.tensor(1.0), constraint=POSITIVE)

    def forward(self, y):
        mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
        pyro.sample("y", dist.Normal(mu, self.s).expand([len(y)]).to_event(1), obs=y)


@pytest.mark.parametrize("form", ["plate", "no plate", "module"])
def test_a_parameter_is_learned_beside_the_posterior_of_an_unknown(form):
    program = {"plate": plate, "no plate": no_plate}.get(form) or Module()
    fit = pg.fit(program, {"y": Y}, "svi" if form == "plate" else "mean_field", **QUICK)
    (name,) = fit.target.points
    assert fit.draws[name].reshape(-1)[0] == pytest.approx(SD, rel=0.05)
    assert fit.draws["mu"].mean() == pytest.approx(Y.mean(), abs=0.2)
    assert fit.draws["mu"].std() == pytest.approx(SD / np.sqrt(50), rel=0.2)
    assert fit.predict()["y"].values.std() == pytest.approx(SD, rel=0.1)  # predictions have the learned one


@pytest.mark.parametrize("inference", ["nuts", "random_walk", "laplace", "mle"])
def test_what_cannot_learn_a_parameter_refuses_it_by_name(inference):
    with pytest.raises(Incompatible, match=r"parameters? 's'[\s\S]*'svi'"):
        pg.fit(plate, {"y": Y}, inference, progress=False)


def stubborn(y):
    pyro.sample("mu", dist.Normal(100.0, 0.001))


def test_a_guide_that_is_wrong_is_used_and_fails():
    fit = pg.fit(pg.Model(plate, guide=stubborn), {"y": Y}, "svi", **SHORT)
    assert fit.inference.name == "guided_svi"
    assert fit.draws["mu"].mean() == pytest.approx(100, abs=0.01)
    assert fit.diagnose().status == "fail"


def test_a_guide_is_run():
    def broken(y):
        raise RuntimeError("the guide was called")

    with pytest.raises((RuntimeError, ValueError), match="the guide was called"):
        pg.fit(plate, {"y": Y}, "svi", guide=broken, **SHORT)


def test_an_algorithm_without_use_for_a_guide_says_so():
    def plain(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
        pyro.sample("y", dist.Normal(mu, 3.0).expand([50]).to_event(1), obs=y)

    fit = pg.fit(plain, {"y": Y}, "laplace", guide=stubborn, num_draws=100, progress=False)
    assert any("laplace does not use the program's guide" in note for note in fit.notes)
    assert fit.draws["mu"].mean() == pytest.approx(Y.mean(), abs=0.3)
