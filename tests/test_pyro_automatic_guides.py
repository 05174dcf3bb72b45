"""Pyro's automatic guides as `guide=`, and pairs as its examples write them."""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.infer import autoguide  # noqa: E402
from pyro.nn import PyroModule, PyroSample  # noqa: E402
from torch import nn  # noqa: E402

import probgen as pg  # noqa: E402

Y = np.random.default_rng(0).normal(2.0, 1.0, 30)
X = np.random.default_rng(1).normal(size=(40, 2))
BITS = (np.random.default_rng(2).random((60, 12)) < 0.4).astype(np.float32)
MEAN, SD = Y.sum() / (30 + 1 / 9), (30 + 1 / 9) ** -0.5  # of mu in `normal`
QUICK = {"num_steps": 700, "num_particles": 2, "learning_rate": 0.03, "block": 20, "num_draws": 250, "progress": False}
SHORT = {"num_steps": 4, "num_draws": 4, "progress": False}


def normal(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("n", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_a_class_is_one_of_the_program_and_objects_of_the_user_stay_as_they_are():
    guide = autoguide.AutoNormal(normal)
    for given in (autoguide.AutoNormal, guide):
        fit = pg.fit(normal, {"y": Y}, "svi", guide=given, **QUICK)
        assert fit.draws["mu"].mean() == pytest.approx(MEAN, abs=0.35 * SD)
        assert fit.draws["mu"].std() == pytest.approx(SD, rel=0.2)
        assert "log_q" in fit.answer
    assert guide.prototype_trace is None
    assert guide.model is not None
    assert not pyro.get_param_store().keys()


def test_draws_of_the_laplace_guide_are_normal_about_the_mode():
    guide = autoguide.AutoLaplaceApproximation(normal)
    fit = pg.fit(normal, {"y": Y}, "svi", guide=guide, **QUICK)
    assert fit.draws["mu"].std() == pytest.approx(SD, rel=0.1)


def test_a_list_with_points_in_it_says_which_part_has_no_width():
    def two(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        s = pyro.sample("s", dist.LogNormal(0.0, 0.2))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(mu, s), obs=y)

    guide = autoguide.AutoGuideList(two)
    guide.append(autoguide.AutoNormal(poutine.block(two, hide=["s"])))
    guide.append(autoguide.AutoDelta(poutine.block(two, hide=["mu"])))
    fit = pg.fit(two, {"y": Y}, "svi", guide=guide, **SHORT)
    assert fit.draws["s"].std() < 1e-6 < fit.draws["mu"].std()
    assert "1 of 2 unknown coordinates are points" in str(fit.diagnose())


@pytest.mark.parametrize(
    "guide",
    [
        autoguide.AutoNormal(normal, init_loc_fn=autoguide.init_to_mean, init_scale=0.2),
        functools.partial(autoguide.AutoMultivariateNormal, init_scale=0.2),
    ],
)
def test_a_run_with_an_automatic_guide_is_found_again(guide, tmp_path):
    whole = pg.fit(normal, {"y": Y}, "svi", out=tmp_path / "run", guide=guide, **SHORT)
    np.testing.assert_array_equal(whole.draws["mu"], pg.load(tmp_path / "run").draws["mu"])


@pytest.mark.filterwarnings("ignore:The gradient of this program cannot be compiled")
def test_a_regression_of_pyro_modules_takes_the_guide_of_itself():
    class Regression(PyroModule):
        def __init__(self):
            super().__init__()
            self.linear = PyroModule[nn.Linear](2, 1)
            self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
            self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

        def forward(self, x, y=None):
            mean = self.linear(x).squeeze(-1)
            with pyro.plate("data", len(x)):
                return pyro.sample("y", dist.Normal(mean, 0.5), obs=y)

    with torch.random.fork_rng():
        model = Regression()
    y = X @ [1.0, -2.0] + 0.5 * np.random.default_rng(3).normal(size=40)
    fit = pg.fit(model, {"x": X, "y": y}, "svi", guide=autoguide.AutoDiagonalNormal(model), **QUICK)
    np.testing.assert_allclose(fit.draws["linear.weight"].mean((0, 1)), [[1.0, -2.0]], atol=0.35)


class Decoder(nn.Module):
    def __init__(self, wide=8):
        super().__init__()
        self.one, self.two = nn.Linear(3, wide), nn.Linear(wide, 12)

    def forward(self, z):
        return self.two(torch.relu(self.one(z)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(12, 8), nn.Linear(8, 6)

    def forward(self, x):
        return self.two(torch.relu(self.one(x))).chunk(2, -1)


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = Decoder(), Encoder()

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x.reshape(-1, 12))

    def guide(self, images):
        pyro.module("encoder", self.encoder)
        mean, log_sd = self.encoder(images.reshape(-1, 12))
        with pyro.plate("data", len(images)):
            pyro.sample("z", dist.Normal(mean, log_sd.exp()).to_event(1))


def test_images_are_rows_and_a_guide_may_call_them_by_another_name():
    with torch.random.fork_rng():
        vae = Vae()
    fit = pg.fit(vae.model, {"x": BITS.reshape(60, 3, 4)}, "svi", guide=vae.guide, num_steps=5, progress=False)
    assert fit.inference.name == "amortised_svi"
    assert fit.answer["decoder$$$one.weight"].shape == (8, 3)


def test_a_guide_with_an_entry_for_every_row_learns_on_the_whole_data():
    def model(y):
        s = pyro.param("s", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("n", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, s))
            pyro.sample("y", dist.Normal(z, 0.5), obs=y)

    def guide(y):
        loc = pyro.param("loc", torch.zeros(len(y)))
        with pyro.plate("n", len(y)):
            pyro.sample("z", dist.Normal(loc, 0.4))

    fit = pg.fit(model, {"y": Y}, "svi", guide=guide, **SHORT)
    assert fit.inference.name == "guided_svi"
    assert fit.draws["z"].shape[-1] == 30


@pytest.mark.parametrize("elbo", ["trace", "mean_field", "graph", "renyi"])
def test_kinds_of_bounds_lead_to_the_posterior_that_the_guide_can_be(elbo):
    def guide(y):
        scale = pyro.param("scale", torch.tensor(0.4), constraint=dist.constraints.positive)
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(1.5)), scale))

    fit = pg.fit(normal, {"y": Y}, "svi", guide=guide, elbo=elbo, **QUICK)
    assert fit.draws["mu"].mean() == pytest.approx(MEAN, abs=0.4 * SD)
    assert fit.draws["mu"].std() == pytest.approx(SD, rel=0.3)


def test_a_guide_may_draw_finite_unknowns_which_are_then_summed_over():
    y = np.concatenate([np.random.default_rng(5).normal(m, 0.3, 20) for m in (-4.0, 4.0)])

    def model(y):
        means = pyro.param("means", torch.tensor([-3.5, 3.5]))
        with pyro.plate("n", len(y)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2) / 2))
            pyro.sample("y", dist.Normal(means[k], 1.0), obs=y)

    def guide(y):
        q = pyro.param("q", torch.ones(len(y), 2) / 2, constraint=dist.constraints.simplex)
        with pyro.plate("n", len(y)):
            pyro.sample("k", dist.Categorical(q), infer={"enumerate": "parallel"})

    fit = pg.fit(
        model,
        {"y": y},
        "svi",
        guide=guide,
        **QUICK | {"num_steps": 250, "num_particles": 1, "num_draws": 5, "block": 5, "learning_rate": 0.05},
    )
    np.testing.assert_allclose(fit.draws["means"].mean((0, 1)), [y[:20].mean(), y[20:].mean()], atol=0.25)
    assert any("'k' is used in learning" in note for note in fit.notes)
