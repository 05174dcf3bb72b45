"""Learners with a critic, against the same losses by hand and by separate gradients; what is refused, kept and told."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen import runtime
from probgen.algorithm import Incompatible
from probgen.inference.adversarial._critic import judgement, rebuilt
from probgen.inference.adversarial.vae_gan import VAEGAN
from probgen.nets.convolutions import judge
from probgen.run import conditioned


def program(x=None):
    W = numpyro.param("W", lambda key: jax.random.normal(key, (4, 2)))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("x", dist.Normal(W @ z, 0.5).to_event(1), obs=x)


def guide(x):
    A = numpyro.param("A", lambda key: 0.3 * jax.random.normal(key, (2, 4)))
    numpyro.sample("z", dist.Normal(A @ x, 0.3).to_event(1))


def critic(x):
    C = numpyro.param("C", lambda key: jax.random.normal(key, (3, 4)))
    c = numpyro.param("c", lambda key: jax.random.normal(key, (3,)))
    features = jnp.tanh(C @ x)
    return c @ features, features


def rows(count=300):
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(count, 2)) @ rng.normal(size=(2, 4)) + 0.5 * rng.normal(size=(count, 4))}


def model(**parts):
    return pg.Model(**{"program": program, "guide": guide, "critic": critic, "data": rows, "by_row": True, **parts})


def softplus(x):
    return np.logaddexp(0, x)


@pytest.fixture(scope="module")
def begun():
    """The target, its parameters before learning, and a batch, in double precision."""
    target = conditioned(model(), None)[1]
    with runtime.jax_scope("float64"):
        return target, target.initial(jax.random.key(0)), target.rows(jnp.arange(50))


def test_a_judgement_is_that_by_hand(begun):
    target, p, batch = begun
    rng = np.random.default_rng(1)
    points = rng.normal(size=(2, 50, 4))
    with runtime.jax_scope("float64"):
        said = judgement(target, p, batch, {"x": jnp.asarray(points[0])}, {"x": jnp.asarray(points[1])})
        said = type(said)(*map(float, said))
    C, c = np.asarray(p["C"]), np.asarray(p["c"])
    seen, first, second = (np.tanh(x @ C.T) for x in (np.asarray(batch["x"]), *points))
    fooled = np.concatenate([first @ c, second @ c])
    assert said.critic == pytest.approx(softplus(-seen @ c).mean() + softplus(fooled).mean())
    assert said.model == pytest.approx(softplus(-fooled).mean())
    assert said.distance == pytest.approx(0.5 * ((seen - first) ** 2).sum(1).mean())
    assert said.right == pytest.approx(0.5 * (seen @ c > 0).mean() + 0.5 * (fooled < 0).mean())


def test_each_player_follows_the_gradient_of_its_own_loss(begun):
    target, p, batch = begun
    settings = VAEGAN(gamma=0.3, likelihood=0.2, kl_warmup=10)
    key = jax.random.key(2)
    with runtime.jax_scope("float64"):
        chains = settings.first_chains(key, target, p, batch)
        found, *_ = settings.gradient(key, target, p, batch, chains._replace(step=jnp.int32(4)))
        for i, labels in enumerate([("W",), ("A",), ("C", "c")]):
            own = jax.grad(lambda p: settings._losses(key, target, p, batch, 0.4)[0][i])(p)  # noqa: B023
            for label in labels:
                assert abs(np.asarray(found[label])).max() > 1e-3
                np.testing.assert_allclose(found[label], own[label], atol=1e-12)
    assert set(found) == {"W", "A", "C", "c"}


def test_losses_are_made_of_their_terms(begun):
    """What the program minimises does not hold the KL, what the guide minimises not the critic's judgement."""
    target, p, batch = begun
    of = lambda **settings: jax.tree.map(  # noqa: E731
        float, VAEGAN(**settings)._losses(jax.random.key(3), target, p, batch, 0.5)
    )
    with runtime.jax_scope("float64"):
        (plain, guided, judged), (loss, kl, said) = of(gamma=0.0, likelihood=0.0)
        (with_both, with_likelihood, _), _ = of(gamma=2.0, likelihood=1.0)
    assert (plain, judged) == (pytest.approx(said.model), pytest.approx(said.critic))
    assert guided == pytest.approx(0.5 * kl + said.distance)
    assert with_likelihood == pytest.approx(guided + loss - kl)  # -log p(x | z)
    assert with_both == pytest.approx(2 * (said.distance + loss - kl) + said.model)
    closed = 0.5 * (
        2 * (0.09 - 1 - np.log(0.09)) + ((np.asarray(batch["x"]) @ np.asarray(p["A"]).T) ** 2).sum(1).mean()
    )
    assert kl == pytest.approx(closed)


def test_new_points_for_the_critic_come_from_the_prior(begun):
    target, p, batch = begun
    row = {k: v[0] for k, v in batch.items()}
    with runtime.jax_scope("float64"):
        drawn = jax.vmap(lambda k: target.imagined(k, p, row)["x"])(jax.random.split(jax.random.key(4), 20_000))
    W = np.asarray(p["W"])
    np.testing.assert_allclose(np.cov(drawn.T), W @ W.T, atol=0.1 * (W @ W.T).max())


def test_points_for_the_critic_have_their_own_class():
    """Of new points the class that they were drawn for, of rebuilt ones that of the row: x = 10 y + z, whatever is drawn."""

    def pair(x=None, y=None):
        y = numpyro.sample("y", dist.Categorical(jnp.array([0.2, 0.3, 0.5])), obs=y)
        z = numpyro.sample("z", dist.Normal(numpyro.param("m", 0.0), 1.0))
        numpyro.sample("x", dist.Normal(10.0 * y + z, 1.0), obs=x)

    def guided(x, y):
        numpyro.sample("z", dist.Normal(numpyro.param("a", 0.0) * x, 1.0))

    def critical(x, y):
        c = numpyro.param("c", 1.0)
        return c * x, jnp.stack([x, c * y])

    y = np.arange(60) % 3
    data = {"x": 10.0 * y + np.random.default_rng(0).normal(size=60), "y": y}
    target = conditioned(pg.Model(pair, guide=guided, critic=critical, by_row=True), data)[1]
    keys = jax.random.split(jax.random.key(4), 60)
    with runtime.jax_scope("float64"):
        p, batch = target.initial(jax.random.key(0)), target.rows(jnp.arange(60))
        both = rebuilt(target, keys, p, batch), jax.vmap(lambda k, row: target.imagined(k, p, row))(keys, batch)
        again, new = jax.tree.map(np.asarray, both)
    np.testing.assert_array_equal(again["y"], y)
    assert set(new["y"]) == {0, 1, 2}
    for points in (again, new):
        np.testing.assert_array_less(abs(points["x"] - 10 * points["y"]), 5)
    assert abs(new["y"].mean() - 1.3) < 0.5


def test_learning_goes_on_from_its_state_bit_for_bit(tmp_path, killed):
    settings = {"num_steps": 250, "batch_size": 64}
    whole = pg.fit(model(), inference="vae_gan", out=tmp_path / "whole", **settings)
    killed(pg.fit, model(), inference="vae_gan", out=tmp_path / "part", **settings)
    for fit in (pg.resume(tmp_path / "part"), pg.load(tmp_path / "part")):
        assert set(fit.answer) == {"W", "A", "C", "c"}
        for name in whole.answer:
            np.testing.assert_array_equal(fit.answer[name], whole.answer[name])
        np.testing.assert_array_equal(fit.records["right"], whole.records["right"])


def test_a_learned_model_has_bounds_codes_and_points():
    fit = pg.fit(model(), inference="vae_gan", num_steps=1500, batch_size=100, learning_rate=0.005)
    x = rows()["x"]
    W = fit.parameters["W"].astype(float)
    covariance = W @ W.T + 0.25 * np.eye(4)
    exact = -0.5 * (
        np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x) + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    np.testing.assert_allclose(fit.log_prob(x[:20], num_particles=5000).value, exact[:20], atol=0.1)
    assert fit.records["loss"][0, -100:].mean() < fit.records["loss"][0, :20].mean() - 2
    assert fit.sample(7)["x"].shape == (7, 4)
    assert 0.4 < fit.diagnose()["critic"].value < 0.9
    assert "no bound" in fit.diagnose()["critic"].message


def test_a_critic_that_has_won_is_told():
    """Data on a shell that a linear map of two normals cannot reach, and a critic that sees radii."""

    def radii(x):
        c = numpyro.param("c", jnp.zeros(2))
        features = jnp.stack([jnp.ones(()), jnp.sum(x**2)])
        return c @ features, features

    def narrow(x=None):
        w = numpyro.param("w", jnp.full((), 0.1))
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", dist.Normal(jnp.tanh(w * z), 1.0).to_event(1), obs=x)

    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 300)
    x = 3 * np.stack([np.cos(angle), np.sin(angle)], 1)
    far = pg.Model(narrow, guide=lambda x: numpyro.sample("z", dist.Normal(x, 1.0).to_event(1)), critic=radii)
    found = pg.fit(far, {"x": x}, "vae_gan", num_steps=800, learning_rate=0.02, optimizer="adam").diagnose()["critic"]
    assert found.status in ("warn", "fail")
    assert found.value > 0.95


def test_without_use_for_it_a_critic_makes_no_difference():
    settings = {"num_steps": 60, "batch_size": 50}
    fits = [pg.fit(model(critic=c), inference="svi", **settings) for c in (None, critic)]
    assert set(fits[1].answer) == {"W", "A"}
    for name in ("W", "A"):
        np.testing.assert_array_equal(fits[0].answer[name], fits[1].answer[name])


def test_what_does_not_fit_is_said():
    with pytest.raises(Incompatible, match="vae_gan needs a Judged target"):
        pg.fit("vae", inference="vae_gan")
    with pytest.raises(ValueError, match="batch_size is 400; the data have 300 rows"):
        pg.fit(model(), inference="vae_gan", batch_size=400)
    for settings, said in (({"gamma": -1.0}, "gamma is -1.0"), ({"likelihood": -0.1}, "at least 0")):
        with pytest.raises(ValueError, match=said):
            VAEGAN(**settings)
    for wrong, said in (
        (lambda x: jnp.sum(x), "expected a logit"),
        (lambda x: (x, x), "expected a logit"),
        (lambda x: (jnp.sum(numpyro.param("W", jnp.zeros((4, 2)))), x), "'W' belongs to program or guide"),
        (lambda x: (jnp.sum(x @ jnp.zeros((3, 3))), x), "The critic does not run on a row"),
    ):
        with pytest.raises(ValueError, match=said):
            pg.fit(model(critic=wrong), inference="vae_gan")
    with pytest.raises(Incompatible, match="need a critic"):
        pg.fit("vq_vae_2", inference="vq", adversarial=1.0)


@needs_pyro
def test_pyro_programs_with_a_critic_play_against_it_alone():
    from probgen import catalog

    made = catalog.model("vae_pyro")
    with pytest.raises(Incompatible, match="vae_gan runs on numpyro"):
        pg.fit(pg.Model(made.program, guide=made.guide, critic=critic, data=made.data), inference="vae_gan")


# ---- the models


def test_the_critic_of_pictures_halves_their_sides():
    found = jax.eval_shape(lambda: handlers_seeded(lambda: judge("critic", 8, 12, 2, 3)(jnp.ones((8, 12)))))
    assert (found[0].shape, found[1].shape) == ((), (2 * 3 * 6,))
    with pytest.raises(ValueError, match="cannot be halved 3 times"):
        handlers_seeded(lambda: judge("critic", 8, 12, 3, 3))


def handlers_seeded(function):
    with numpyro.handlers.seed(rng_seed=0):
        return function()


@pytest.mark.slow
def test_the_picture_model_learns_sharp_digits():
    fit = pg.fit("vae_gan", num_steps=3000)
    x = np.asarray(fit.target.data["x"])
    new = fit.decode(z=np.random.default_rng(0).normal(size=(500, 8)))["x"]
    assert new.std() == pytest.approx(x.std(), rel=0.05)
    assert fit.diagnose()["critic"].status == "pass"
    assert fit.log_prob(x[:100]).value.mean() > 15
