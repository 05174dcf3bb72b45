"""Grey levels where a program has bits: learners from rows draw bits and say so, posteriors refuse, on both engines."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import ENGINES

import probgen as pg
from probgen.datasets import binarised
from probgen.run import conditioned

GREY = np.random.default_rng(0).uniform(0.05, 0.95, (200, 4))
SETTINGS = {"num_steps": 40, "batch_size": 50, "progress": False}


def numpyro_rows(x=None):
    logits = numpyro.param("logits", jnp.zeros(4))
    numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def numpyro_latent(x=None):
    w = numpyro.param("w", jnp.ones((2, 4)))
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("x", dist.Bernoulli(logits=z @ w).to_event(1), obs=x)


def numpyro_posterior(x):
    p = numpyro.sample("p", dist.Beta(1.0, 1.0).expand([4]).to_event(1))
    with numpyro.plate("row", len(x)):
        numpyro.sample("x", dist.Bernoulli(p).to_event(1), obs=x)


def pyro_programs():
    import pyro
    import pyro.distributions as dist
    import torch

    def rows(x):
        logits = pyro.param("logits", torch.zeros(4))
        with pyro.plate("row", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def latent(x):
        w = pyro.param("w", torch.ones((2, 4)))
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z @ w).to_event(1), obs=x)

    def posterior(x):
        p = pyro.sample("p", dist.Beta(torch.ones(4), 1.0).to_event(1))
        with pyro.plate("row", len(x)):
            pyro.sample("x", dist.Bernoulli(p).to_event(1), obs=x)

    return {"rows": rows, "latent": latent, "posterior": posterior}


@pytest.fixture(scope="module", params=ENGINES)
def programs(request):
    if request.param == "pyro":
        return pyro_programs()
    return {"rows": numpyro_rows, "latent": numpyro_latent, "posterior": numpyro_posterior}


@pytest.mark.parametrize(("name", "word"), [("rows", "mle"), ("latent", "svi")])
def test_rows_are_drawn_as_bits_and_it_is_told(programs, name, word):
    declared = {"by_row": True} if name == "latent" else {}
    fit = pg.fit(programs[name], {"x": GREY}, word, **declared, **SETTINGS)
    assert fit.target.notes == (
        "Grey levels of x are drawn as bits at every step (dynamic binarisation); likelihoods are of drawn bits.",
    )
    few = {"num_particles": 5} if name == "latent" else {}
    own, given = fit.log_prob(**few), fit.log_prob(GREY, **few)
    assert own.kind.endswith("of bits drawn from grey levels (dynamic binarisation)")
    assert given.kind == own.kind
    np.testing.assert_array_equal(own.value, given.value)
    assert "grey" not in fit.log_prob(binarised(GREY), **few).kind


def test_likelihoods_are_those_of_drawn_bits(programs):
    """log p of independent bits has two values a pixel, log p and log (1 - p), and none between."""
    fit = pg.fit(programs["rows"], {"x": GREY}, "mle", **SETTINGS)
    p = 1 / (1 + np.exp(-fit.parameters["logits"].astype(float)))
    every = np.array([np.log(np.where(bits, p, 1 - p)).sum() for bits in np.ndindex(2, 2, 2, 2)])
    away = np.abs(fit.log_prob(GREY).value[:, None] - every).min(1)
    assert away.max() < 1e-5
    bits = fit.target.all_rows()["x"]
    assert set(np.unique(bits)) == {0, 1}
    np.testing.assert_allclose(bits.mean(0), GREY.mean(0), atol=4.5 * 0.5 / 200**0.5)


def test_a_model_of_bits_asked_about_grey_levels(programs):
    fit = pg.fit(programs["rows"], {"x": binarised(GREY)}, "mle", **SETTINGS)
    assert fit.target.notes == ()
    assert "grey" not in fit.log_prob().kind
    assert fit.log_prob(GREY[:3]).kind.endswith("of bits drawn from grey levels (dynamic binarisation)")


@pytest.mark.parametrize("word", ["nuts", "svi", "laplace"])
def test_a_posterior_refuses_grey_levels_and_says_what_to_do(programs, word):
    message = r"(?s)site 'x'.*integers from 0 to 1; x\[0, 0\] is 0.\d+.\nMake bits of grey levels.*binarised\(x, seed=0\).*\(Beta\)"
    for _ in range(2):  # the second time the program is known
        with pytest.raises(ValueError, match=message):
            pg.fit(programs["posterior"], {"x": GREY}, word, progress=False)
        conditioned(programs["posterior"], {"x": binarised(GREY, seed=0)})


@pytest.mark.parametrize(("name", "word"), [("rows", "mle")])
def test_what_is_no_probability_is_refused(programs, name, word):
    with pytest.raises(ValueError, match=r"numbers from 0 to 1; x\[\d+, \d\] is 1.\d+"):
        pg.fit(programs[name], {"x": 2 * GREY}, word, **SETTINGS)
    fit = pg.fit(programs[name], {"x": GREY}, word, **SETTINGS)
    with pytest.raises(ValueError, match=r"numbers from 0 to 1; x\[0, \d\] is -"):
        fit.log_prob(-GREY)
    with pytest.raises(ValueError, match=r"(?s)integers from 0 to 1; .*Make bits of grey levels"):
        fit.condition(x=GREY[0])


def test_the_collection_follows_the_same_rule():
    """A VAE of the collection and the same rows in a program of one's own: the same words."""
    own = pg.fit(numpyro_latent, {"x": GREY}, "svi", by_row=True, **SETTINGS)
    theirs = pg.fit("vae", {"x": GREY, "dim": 4, "num_latents": 2, "width": 8}, "svi", **SETTINGS)
    assert own.target.notes == theirs.target.notes
    assert own.log_prob(num_particles=5).kind == theirs.log_prob(num_particles=5).kind
