"""NumPyro programs and guides of a batch of rows, as its examples write them."""

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.example_libraries import stax
from numpyro.infer import autoguide
from scipy.stats import norm

import probgen as pg
from probgen import runtime
from probgen.engine.numpyro import engine
from probgen.inference.variational.guided_svi import Elbo

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(80, 2)) @ RNG.normal(size=(2, 6)) + 0.3 * RNG.normal(size=(80, 6))).astype(np.float32)
Y = RNG.normal(1.0, 1.0, 60)
W, A = 0.1 * RNG.normal(size=(2, 6)), 0.1 * RNG.normal(size=(6, 2))
POSITIVE = dist.constraints.positive
SHORT = {"num_steps": 6, "progress": False}


def batch(x):
    n, width = x.reshape(len(x), -1).shape
    w = numpyro.param("w", W)
    with numpyro.plate("rows", n):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("seen", dist.Normal(z @ w, 0.3).to_event(1), obs=x.reshape(n, width))


def guide_of_batch(x):
    x = x.reshape(len(x), -1)
    a, s = numpyro.param("a", A), numpyro.param("s", 0.5 * jnp.ones(2), constraint=POSITIVE)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("z", dist.Normal(x @ a, s).to_event(1))


def row(seen=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("seen", dist.Normal(z @ numpyro.param("w", W), 0.3).to_event(1), obs=seen)


def guide_of_row(seen):
    a, s = numpyro.param("a", A), numpyro.param("s", 0.5 * jnp.ones(2), constraint=POSITIVE)
    numpyro.sample("z", dist.Normal(seen @ a, s).to_event(1))


@pytest.fixture(scope="module")
def of_batch():
    return pg.fit(batch, {"x": X}, "svi", guide=guide_of_batch, batch_size=20, num_steps=400, progress=False)


def test_a_batch_learns_what_its_rows_learn(of_batch):
    """The same parameters as of the program of one row, step by step: draws have the same keys."""
    rows = pg.fit(
        row, {"seen": X}, "svi", guide=guide_of_row, by_row=True, batch_size=20, num_steps=400, progress=False
    )
    assert of_batch.inference.name == "amortised_svi"
    assert of_batch.answer.keys() == rows.answer.keys()
    for name, value in rows.answer.items():
        np.testing.assert_allclose(of_batch.answer[name], value, rtol=1e-3, atol=1e-4)


def test_settings_of_svi_mean_the_same_as_the_word(of_batch):
    svi = pg.inference.SVI(num_steps=400)
    fit = pg.fit(batch, {"x": X}, svi, guide=guide_of_batch, batch_size=20, progress=False)
    np.testing.assert_array_equal(fit.answer["w"], of_batch.answer["w"])


def test_a_second_fit_of_a_pair_compiles_nothing(of_batch):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: compiled.append(name))
    settings = {"batch_size": 20, "num_steps": 400, "progress": False}
    pg.fit(batch, {"x": X[:70]}, "svi", guide=guide_of_batch, **settings)
    assert any("backend_compile" in name for name in compiled)  # for fewer rows
    compiled.clear()
    pg.fit(batch, {"x": X + 1}, "svi", guide=guide_of_batch, seed=1, **settings)
    assert not any("backend_compile" in name for name in compiled)


def test_what_is_learned_of_batches_is_a_model_of_a_row(of_batch):
    assert of_batch.sample(5)["seen"].shape == (5, 6)
    bound = of_batch.log_prob(X[:10])
    w = of_batch.answer["w"]
    cov = w.T @ w + 0.09 * np.eye(6)
    squares = np.einsum("ni,ij,nj->n", X[:10], np.linalg.inv(cov), X[:10])
    exact = -0.5 * (squares + np.linalg.slogdet(2 * np.pi * cov)[1])
    assert (bound.value < exact + 4 * np.maximum(bound.stderr, 0.1)).all()
    assert np.mean(bound.value - exact) == pytest.approx(0, abs=0.5)


def test_rows_of_other_shapes_and_guides_with_other_names_are_the_same_rows(of_batch):
    def guide(images):
        guide_of_batch(images)

    settings = {"batch_size": 20, "num_steps": 400, "progress": False}
    fit = pg.fit(batch, {"x": X.reshape(80, 2, 3)}, "svi", guide=guide, **settings)
    np.testing.assert_allclose(fit.answer["w"], of_batch.answer["w"], rtol=1e-5)


def test_a_run_of_batches_is_found_again(tmp_path):
    fit = pg.fit(batch, {"x": X}, "svi", guide=guide_of_batch, out=tmp_path / "run", **SHORT)
    np.testing.assert_array_equal(fit.answer["w"], pg.load(tmp_path / "run").answer["w"])


def test_networks_by_numpyro_module_and_labels_beside_the_rows():
    labels = np.arange(80) % 3

    def model(x, label):
        decode = numpyro.module("decoder", stax.serial(stax.Dense(8), stax.Relu, stax.Dense(6)), (len(x), 5))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
            both = jnp.concatenate([z, jnp.eye(3)[label]], -1)
            numpyro.sample("x", dist.Bernoulli(logits=decode(both)).to_event(1), obs=x)

    def guide(x, label):
        encode = numpyro.module("encoder", stax.Dense(4), (len(x), 6))
        with numpyro.plate("rows", len(x)):
            m, s = jnp.split(encode(x), 2, -1)
            numpyro.sample("z", dist.Normal(m, jnp.exp(s)).to_event(1))

    fit = pg.fit(model, {"x": (X > 0).astype(np.float32), "label": labels}, "svi", guide=guide, **SHORT)
    assert fit.inference.name == "amortised_svi"
    assert fit.condition(label=1).sample(4)["x"].shape == (4, 6)


def test_the_batch_of_a_programs_plate_is_the_batch_of_learning():
    def model(x):
        w = numpyro.param("w", W)
        with numpyro.plate("rows", len(x), subsample_size=16) as i:
            z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
            numpyro.sample("seen", dist.Normal(z @ w, 0.3).to_event(1), obs=x[i])

    def guide(x):
        a = numpyro.param("a", A)
        with numpyro.plate("rows", len(x), subsample_size=16) as i:
            numpyro.sample("z", dist.Normal(x[i] @ a, 0.5).to_event(1))

    fit = pg.fit(model, {"x": X}, "svi", guide=guide, **SHORT)
    assert (fit.inference.name, fit.inference.batch_size) == ("amortised_svi", 16)


@pytest.mark.parametrize("of", ["an entry for every row", "rows that mix"])
def test_an_entry_for_every_row_or_rows_that_mix_are_learned_on_the_whole_data(of):
    def own(x):
        loc = numpyro.param("loc", jnp.zeros((len(x), 2)))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("z", dist.Normal(loc, 0.5).to_event(1))

    def mixing(x):
        w = numpyro.param("w", W)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
            numpyro.sample("seen", dist.Normal((z - z.mean(0)) @ w, 0.3).to_event(1), obs=x)

    model, guide = (mixing, guide_of_batch) if of == "rows that mix" else (batch, own)
    fit = pg.fit(model, {"x": X}, "svi", guide=guide, num_draws=4, **SHORT)
    assert fit.inference.name == "guided_svi"
    assert fit.draws["z"].shape == (4, 4, 80, 2)


def test_an_automatic_guide_of_a_subsampled_plate_draws_all_of_it():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", len(y), subsample_size=20) as i:
            z = numpyro.sample("z", dist.Normal(m, 1.0))
            numpyro.sample("y", dist.Normal(z, 0.5), obs=y[i])

    settings = {"num_steps": 1500, "learning_rate": 0.05, "num_draws": 250, "block": 50, "progress": False}
    fit = pg.fit(model, {"y": Y}, "svi", guide=autoguide.AutoNormal, **settings)
    sd, total = 1.25**0.5, 60
    mean = Y.sum() / (total + sd**2)  # of m, the z integrated out
    assert fit.draws["m"].mean() == pytest.approx(mean, abs=0.1)
    exact = (4 * Y + mean) / 5
    np.testing.assert_allclose(fit.draws["z"].mean((0, 1)), exact, atol=0.35)


@pytest.mark.parametrize("elbo", ["trace", "mean_field", "graph", "renyi"])
def test_kinds_of_bounds_lead_to_the_posterior_that_the_guide_can_be(elbo):
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 3))
        with numpyro.plate("n", len(y)):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def guide(y):
        scale = numpyro.param("scale", 0.4, constraint=POSITIVE)
        numpyro.sample("mu", dist.Normal(numpyro.param("loc", 0.5), scale))

    settings = {"num_steps": 600, "learning_rate": 0.03, "block": 20, "num_draws": 250, "progress": False}
    fit = pg.fit(model, {"y": Y}, "svi", guide=guide, elbo=elbo, **settings)
    mean, sd = Y.sum() / (60 + 1 / 9), (60 + 1 / 9) ** -0.5
    assert fit.draws["mu"].mean() == pytest.approx(mean, abs=0.4 * sd)
    allowed = 0.8 if elbo == "renyi" else 0.3  # whose bound widths hardly move
    assert fit.draws["mu"].std() == pytest.approx(sd, rel=allowed)
    with pytest.raises(ValueError, match="known: trace"):
        pg.fit(model, {"y": Y}, "svi", guide=guide, elbo="best", progress=False)


def test_a_guide_may_draw_finite_unknowns_which_are_then_summed_over():
    """Of two clusters far apart the means are those of the clusters; the note says whose distribution is learned."""
    y = np.concatenate([RNG.normal(m, 0.3, 20) for m in (-4.0, 4.0)])

    def model(y):
        low, high = numpyro.param("low", -1.0), numpyro.param("high", 1.0)
        with numpyro.plate("n", len(y)):
            k = numpyro.sample("k", dist.Bernoulli(0.5))
            numpyro.sample("y", dist.Normal(jnp.where(k == 1, high, low), 1.0), obs=y)

    def guide(y):
        q = numpyro.param("q", 0.5 * jnp.ones(len(y)), constraint=dist.constraints.unit_interval)
        with numpyro.plate("n", len(y)):
            numpyro.sample("k", dist.Bernoulli(q), infer={"enumerate": "parallel"})

    settings = {"num_steps": 800, "learning_rate": 0.05, "block": 20, "num_draws": 10, "progress": False}
    fit = pg.fit(model, {"y": y}, "svi", guide=guide, **settings)
    assert fit.draws["low"].mean() == pytest.approx(y[:20].mean(), abs=0.1)
    assert fit.draws["high"].mean() == pytest.approx(y[20:].mean(), abs=0.1)
    assert any("'k' is used in learning" in note for note in fit.notes)


def test_a_divergence_that_numpyro_has_as_a_few_terms_of_a_series_is_that_of_the_draws():
    """The guide is the prior, so that the bound is log p(y) at every draw; NumPyro's divergence of the two is .96 nats a row."""

    def model(y):
        numpyro.sample("v", dist.Beta(1.0, 0.3).expand([len(y)]).to_event(1))
        numpyro.sample("y", dist.Normal(jnp.zeros(len(y)), 1.0).to_event(1), obs=y)

    def guide(y):
        b = numpyro.param("b", 0.3, constraint=POSITIVE)
        numpyro.sample("v", dist.Kumaraswamy(1.0, b).expand([len(y)]).to_event(1))

    target = engine.guided(engine.prepare(model, {"y": Y}, by_row=False), guide).paired()
    with runtime.jax_scope(target.precision):
        key = jax.random.key(0)
        loss, _ = target.guide_loss_and_gradient(key, target.guide_start(key), Elbo("mean_field", 1, 0.0))
    assert -loss == pytest.approx(norm.logpdf(Y).sum(), rel=1e-4)
