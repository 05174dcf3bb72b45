"""Ways of writing programs and guides that the libraries' own examples have, which once failed here."""

import functools
import types

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pyro
import pyro.distributions as pdist
import pytest
import torch
from numpyro import handlers
from numpyro.infer.autoguide import AutoDelta as PointOfNumpyro
from numpyro.infer.autoguide import AutoNormal as OfNumpyro
from pyro import poutine
from pyro.infer.autoguide import AutoDelta as PointOfPyro
from pyro.infer.autoguide import AutoNormal as OfPyro
from torch import nn

import probgen as pg
from probgen.target import Continuous

Y = np.array([1.0, 2.0, 3.0])


def on_numpyro(y, args):
    m = numpyro.sample("m", dist.Normal(0.0, args.scale))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(m, 1.0), obs=y)


def on_pyro(y, args):
    m = pyro.sample("m", pdist.Normal(0.0, args.scale))
    with pyro.plate("n", len(y)):
        pyro.sample("y", pdist.Normal(m, 1.0), obs=y)


@pytest.mark.parametrize(("program", "auto"), [(on_numpyro, OfNumpyro), (on_pyro, OfPyro)], ids=["numpyro", "pyro"])
def test_an_automatic_guide_with_an_argument_that_is_always_given(program, auto):
    """Precision 3 + 1/4: a conjugate normal mean."""
    args = types.SimpleNamespace(scale=2.0)
    model, guide = functools.partial(program, args=args), functools.partial(auto(program), args=args)
    fit = pg.fit(model, {"y": Y}, "svi", guide=guide, learning_rate=0.1, block=20, progress=False)
    assert fit.draws["m"].mean() == pytest.approx(6 / 3.25, abs=0.1)
    assert fit.draws["m"].std() == pytest.approx(3.25**-0.5, rel=0.2)


def switched_on_numpyro(y, args):
    m = numpyro.sample("m", dist.Normal(0.0, args.scale))
    with numpyro.plate("n", len(y)):
        k = numpyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(m + 0.0 * k, 1.0), obs=y)


def switched_on_pyro(y, args):
    m = pyro.sample("m", pdist.Normal(0.0, args.scale))
    with pyro.plate("n", len(y)):
        k = pyro.sample("k", pdist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.sample("y", pdist.Normal(m + 0.0 * k, 1.0), obs=y)


@pytest.mark.parametrize(
    ("program", "guide"),
    [
        (switched_on_numpyro, PointOfNumpyro(handlers.block(switched_on_numpyro, hide=["k"]))),
        (switched_on_pyro, PointOfPyro(poutine.block(switched_on_pyro, hide=["k"]))),
    ],
    ids=["numpyro", "pyro"],
)
def test_an_automatic_guide_of_a_part_of_a_program_with_arguments_of_any_kind(program, guide):
    """As of the libraries' hidden Markov models: finite unknowns are summed out, and `args` is a namespace of settings."""
    settings = {
        "guide": guide,
        "elbo": "enum",
        "learning_rate": 0.1,
        "num_steps": 300,
        "num_draws": 2,
        "progress": False,
    }
    fit = pg.fit(program, None, "svi", args=(Y, types.SimpleNamespace(scale=2.0)), **settings)
    assert fit.draws["m"].mean() == pytest.approx(6 / 3.25, abs=0.02)


class Tones(nn.Module):
    """Made in the first run of the program, in whatever precision that has."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            self.conv, self.out = nn.Conv1d(1, 2, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        return self.out(self.conv(x.reshape(-1, 1, 4)).reshape(*x.shape[:-1], -1))


net = Tones()


def of_tones(y):
    pyro.module("net", net)
    m, before = pyro.sample("m", pdist.Normal(0.0, 1.0)), torch.zeros(4)
    for t in range(len(y)):
        before = pyro.sample(f"y{t}", pdist.Bernoulli(logits=net(before) + m).to_event(1), obs=y[t])


def test_an_automatic_guide_begins_in_the_types_in_which_it_was_looked_at():
    y = torch.bernoulli(torch.full((3, 4), 0.5), generator=torch.Generator().manual_seed(0))
    fit = pg.fit(of_tones, {"y": y}, "svi", guide=OfPyro, num_steps=10, progress=False)
    assert fit.target.precision == "float64"
    assert np.isfinite(fit.records["loss"]).all()


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(), torch.no_grad():
            self.rnn, self.out = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 1)
            torch.nn.init.constant_(self.out.weight, 0.5)

    def model(self, x, y=None):
        pyro.module("m", self)
        s = pyro.sample("s", pdist.HalfNormal(1.0))
        with pyro.plate("n", len(x)):
            pyro.sample("y", pdist.Normal(self.out(self.rnn(x)[0][:, -1])[:, 0], s), obs=y)

    def guide(self, x, y=None):
        pyro.module("m", self)
        pyro.sample("s", pdist.LogNormal(self.rnn(x)[0].mean(), 0.1))


def test_a_recurrent_network_is_left_as_it_was():
    """It keeps a list of its weights beside them, which a run with others fills anew."""
    x = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(1))
    pair = Recurrent()
    before = [w.detach().clone() for w in pair.rnn.parameters()]
    fit = pg.fit(
        pair.model, {"x": x, "y": x[:, 0, 0]}, "svi", guide=pair.guide, num_steps=20, num_draws=10, progress=False
    )
    learned = next(v for k, v in fit.draws.items() if "weight_ih" in k)
    assert np.abs(learned[0, 0] - before[0].numpy()).max() > 1e-3
    for own, held, old in zip(pair.rnn.parameters(), pair.rnn._flat_weights, before, strict=True):
        assert held is own
        assert torch.equal(own, old)


def asserting(y):
    assert len(y) > 5, "six rows at least"
    numpyro.sample("y", dist.Normal(numpyro.sample("m", dist.Normal()), 1.0).expand([3]), obs=y)


def without_a_key(y):
    pyro.sample("m", pdist.Normal(0.0, {}["scale"]))


def divided(y):
    pyro.sample("m", pdist.Normal(0.0, 1 / (len(y) - 3)))


@pytest.mark.parametrize("inference", ["nuts", "svi"])
@pytest.mark.parametrize(
    ("program", "said"),
    [
        (asserting, "AssertionError: six rows at least"),
        (without_a_key, "KeyError: 'scale'"),
        (divided, "ZeroDivisionError"),
    ],
)
def test_what_a_program_raises_is_told_with_its_kind(program, said, inference):
    with pytest.raises(ValueError, match=r"does not run on this data \(y: \(3,\)\)") as told:
        pg.fit(program, {"y": Y}, inference, progress=False)
    assert said in str(told.value)


def looking(y):
    m = pyro.sample("m", pdist.Normal(0.0, 1.0))
    if float(m) > 0:  # which torch.vmap does not follow
        m = 2 * m
    with pyro.plate("n", 3):
        pyro.sample("y", pdist.Normal(m, 1.0), obs=y)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # run eagerly, for it looks at its unknown
@pytest.mark.parametrize("program", [functools.partial(on_pyro, args=types.SimpleNamespace(scale=2.0)), looking])
def test_densities_of_many_points_are_those_of_each(program):
    fit = pg.fit(program, {"y": Y}, num_warmup=10, num_samples=10, num_chains=1, progress=False)
    target, points = fit.target, np.random.default_rng(0).normal(size=(5, 1))
    assert isinstance(target, Continuous)
    np.testing.assert_allclose(target.densities(points), target.gradients(points)[0], rtol=1e-10)


def test_an_array_of_jax_is_data_of_such_a_partial():
    fit = pg.fit(
        functools.partial(on_numpyro, args=types.SimpleNamespace(scale=2.0)), {"y": jnp.asarray(Y)}, progress=False
    )
    assert fit.draws["m"].mean() == pytest.approx(6 / 3.25, abs=0.05)
