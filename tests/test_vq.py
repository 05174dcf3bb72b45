"""Codebooks: masses by enumeration, bounds and gradients by hand, running means, what is refused."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import expit, log_softmax, logsumexp
from scipy.stats import chi2

import probgen as pg
from probgen import runtime
from probgen.algorithm import Incompatible
from probgen.data import load
from probgen.distributions.codebook import Codes, Nearest, codebook
from probgen.inference.likelihood import vq
from probgen.nets.convolutions import pixelcnn
from probgen.run import conditioned

CODES = np.array(list(itertools.product(range(3), repeat=2)))  # of two places
SMALL = {"num_codes": 8, "dim": 3, "num_filters": 8, "num_blocks": 1, "num_layers": 1, "prior_filters": 6}


def program(x=None):
    logits = numpyro.param("logits", lambda key: jax.random.normal(key, (2, 3)))
    W = numpyro.param("W", lambda key: jax.random.normal(key, (4, 4)))
    z = numpyro.sample("z", Codes(dist.Categorical(logits=logits).to_event(1), codebook("z", 3, 2)))
    numpyro.sample("x", dist.Bernoulli(logits=W @ z.ravel()).to_event(1), obs=x)


def guide(x):
    A = numpyro.param("A", lambda key: jax.random.normal(key, (4, 4)))
    numpyro.sample("z", Nearest((A @ x).reshape(2, 2), codebook("z", 3, 2)))


def elsewhere(x):
    numpyro.sample("z", dist.Normal(jnp.zeros((2, 2)), 1).to_event(2))


def rows(count=300):
    """Four bits: two pairs of equal ones, one in ten flipped."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.integers(0, 2, (count, 2)), 2, axis=1)
    return {"x": np.where(rng.random(x.shape) < 0.1, 1 - x, x).astype(float)}


def model(guide=guide):
    return pg.Model(program=program, guide=guide, data=rows(), by_row=True)


@pytest.fixture(scope="module")
def tiny():
    return pg.fit(model(), inference="vq", num_steps=400, batch_size=64, learning_rate=0.02)


def by_hand(answer, x):
    """Outputs (row, place, dim), codes (row, place), and log p(x, k) of all codes: (row, 9)."""
    p = {k: np.asarray(v, float) for k, v in answer.items()}
    outputs = (x @ p["A"].T).reshape(-1, 2, 2)
    codes = ((outputs[:, :, None] - p["z codebook"]) ** 2).sum(-1).argmin(-1)
    logits = p["z codebook"][CODES].reshape(-1, 4) @ p["W"].T
    prior = log_softmax(p["logits"], -1)[np.arange(2), CODES].sum(-1)
    return outputs, codes, x @ logits.T - np.logaddexp(0, logits).sum(-1) + prior


def test_the_bound_is_that_by_hand_and_below_the_sum_over_all_codes(tiny):
    x = rows()["x"]
    _, codes, joint = by_hand(tiny.answer, x)
    found = tiny.log_prob(x, method="elbo", num_particles=1).value
    np.testing.assert_allclose(found, joint[np.arange(len(x)), codes @ [3, 1]], atol=1e-4)
    exact = logsumexp(joint, 1)
    assert (found <= exact + 1e-4).all()
    assert exact.mean() - found.mean() < 1
    np.testing.assert_allclose(tiny.encode(x)["z"], tiny.answer["z codebook"][codes], atol=1e-6)


def test_the_verdict_and_the_draws(tiny):
    verdict = tiny.diagnose()
    assert verdict["codes"].value == 1.0
    assert verdict["codes"].status == "pass"
    drawn = tiny.sample(2000)
    np.testing.assert_array_equal(tiny.sample(2000)["x"], drawn["x"])
    points = np.array(list(itertools.product(range(2), repeat=4)), float)
    p = np.exp(logsumexp(by_hand(tiny.answer, points)[2], 1))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    count = np.bincount((drawn["x"] @ [8, 4, 2, 1]).astype(int), minlength=16)
    assert ((count - 2000 * p) ** 2 / (2000 * p)).sum() < chi2.ppf(1 - 1e-6, 15)


@pytest.mark.parametrize("rule", ["ema", "gradient"])
def test_the_gradient_goes_straight_through(rule):
    target = conditioned(model(), None, precision="float32")[1]
    with runtime.jax_scope("float32"):
        p = target.initial(jax.random.key(1))
        batch, settings = target.rows(jnp.arange(50)), vq.VQ(codebook=rule, commitment=0.7)
        found = jax.jit(jax.grad(lambda p: settings._losses(jax.random.key(0), target, p, batch)[0][0]))(p)
    p, x = {k: np.asarray(v, float) for k, v in p.items()}, np.asarray(batch["x"], float)
    f, codes, _ = by_hand(p, x)
    e = p["z codebook"][codes]
    through = -(x - expit(e.reshape(-1, 4) @ p["W"].T)) @ p["W"]
    slope = through.reshape(f.shape) + 0.7 * (f - e)  # of the mean of two places' squares
    np.testing.assert_allclose(found["A"], slope.reshape(-1, 4).T @ x / len(x), atol=1e-5)
    book = np.zeros((3, 2))
    np.add.at(book, codes, (e - f) / len(x))
    np.testing.assert_allclose(found["z codebook"], book if rule == "gradient" else 0, atol=1e-5)


def test_running_means_are_those_by_hand():
    rng = np.random.default_rng(0)
    f, book, counts = rng.normal(size=(40, 2)), rng.normal(size=(5, 2)), rng.uniform(1, 9, 5)
    book[4], counts[3:] = 100, [1e-9, 3]  # far away, and hardly counted
    book[3] = -100
    codes = ((f[:, None] - book) ** 2).sum(-1).argmin(-1)
    n = 0.9 * counts + 0.1 * np.bincount(codes, minlength=5)
    m = 0.9 * counts[:, None] * book
    np.add.at(m, codes, 0.1 * f)
    with runtime.jax_scope("float64"):
        new, means = vq.running(jnp.asarray(f), jnp.asarray(book), jnp.asarray(counts), 0.9)
    np.testing.assert_allclose(new, n)
    np.testing.assert_allclose(means, m / n[:, None])


@pytest.mark.parametrize("rule", ["ema", "gradient"])
def test_dead_codes_are_moved_to_outputs(rule):
    target = conditioned(model(), None, precision="float32")[1]
    settings = vq.VQ(num_steps=100, batch_size=64, codebook=rule)
    with runtime.jax_scope("float32"):
        state, step = jax.jit(settings.init)(jax.random.key(0), target), jax.jit(settings.step)
        far = state.parameters["z codebook"].at[2].set(50.0)
        counts = {"z": state.chains.counts["z"].at[2].set(0.0)}
        state = state._replace(parameters=state.parameters | {"z codebook": far})
        state = state._replace(chains=state.chains._replace(counts=counts))
        outputs = vq._outputs(jax.random.key(0), target, state.parameters, target.rows(jnp.arange(300)))["z"]
        moved = step(jax.random.key(1), state, target)[0]
        late = state._replace(chains=state.chains._replace(step=jnp.int32(80)))
        kept = step(jax.random.key(1), late, target)[0]
    assert np.abs(outputs - moved.parameters["z codebook"][2]).sum(1).min() < 1e-5
    np.testing.assert_allclose(kept.parameters["z codebook"][2], 50.0, rtol=1e-3)
    np.testing.assert_array_equal(moved.average["z codebook"], moved.parameters["z codebook"])


@pytest.mark.parametrize(("given", "num_heads"), [(False, 0), (True, 0), (False, 2)])
def test_a_grid_of_codes_has_mass_one_and_its_draws_their_mass(given, num_heads):
    rng = np.random.default_rng(0)
    seen = jnp.asarray(rng.normal(size=(2, 2, 3)), "float32") if given else None
    with runtime.jax_scope("float32"), numpyro.handlers.seed(rng_seed=0):
        book = codebook("z", 3, 2)
        fn = Codes(pixelcnn("prior", (2, 2), 3, 1, 4, given=seen, num_heads=num_heads), book)
        points = np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2)
        p = np.exp(np.asarray(fn.log_prob(book[points]), float))
        drawn = np.asarray(fn.sample(jax.random.key(0), (5000,)))
        assert fn.support(drawn[0])
        assert not fn.support(drawn[0] + 0.1)
    assert p.sum() == pytest.approx(1, abs=1e-5)
    codes = ((drawn[..., None, :] - np.asarray(book)) ** 2).sum(-1).argmin(-1)
    count = np.bincount(codes.reshape(-1, 4) @ [27, 9, 3, 1], minlength=81)
    assert ((count - 5000 * p) ** 2 / (5000 * p)).sum() < chi2.ppf(1 - 1e-6, 80)


@pytest.mark.parametrize("num_heads", [0, 1, 2])
def test_attention_sees_all_places_before_and_none_after(num_heads):
    with runtime.jax_scope("float32"), numpyro.handlers.seed(rng_seed=0):
        net = pixelcnn("prior", (5, 5), 3, 1, 16, num_heads=num_heads).net
        x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (5, 5)), "float32")
        first = np.asarray(net.outputs(x)).reshape(25, -1)
        changed = [np.asarray(net.outputs(x.at[i].set((x[i] + 1) % 3))).reshape(25, -1) for i in np.ndindex(5, 5)]
    sees = np.array([(there != first).any(1) for there in changed])  # (place that changes, place that sees it)
    assert not np.tril(sees).any()
    assert sees[np.triu_indices(25, 2)].all() == bool(num_heads)  # the next place may lie in another row


def test_what_attention_keeps_gives_the_draws_of_one_pass_a_place():
    """The same uniform numbers, and all conditionals anew for every place."""
    key, blank = jax.random.key(4), jnp.zeros((3, 4))
    with runtime.jax_scope("float32"), numpyro.handlers.seed(rng_seed=0):
        net = jax.tree.map(lambda p: 2 * p, pixelcnn("prior", (3, 4), 3, 1, 8, num_heads=2).net)
        drawn = net.complete(key, blank, jnp.zeros((3, 4), bool))
        uniform, x = jax.random.uniform(key, (3, 4, 1)), blank
        for i in np.ndindex(3, 4):
            x = x.at[i].set(net.head.draw(net.outputs(x)[i], uniform[i], jnp.zeros(1), jnp.zeros(1, bool))[0])
    np.testing.assert_array_equal(drawn, x)
    assert len(np.unique(x)) > 1


def test_heads_share_the_filters():
    refused = pytest.raises(ValueError, match="4 filters cannot be shared by 3 heads; use as many heads as divide them")
    with refused, numpyro.handlers.seed(rng_seed=0):
        pixelcnn("prior", (2, 2), 3, 1, 4, num_heads=3)


@pytest.mark.parametrize("name", ["vq_vae", "vq_vae_2"])
def test_models_are_programs_of_one_picture(name):
    target = conditioned(name, {"x": load("digits")[:20], **SMALL}, precision="float32")[1]

    @jax.jit
    def begun(key):
        p, row = target.initial(key), jax.tree.map(lambda v: v[0], target.rows(jnp.arange(1)))
        return p, target.terms(key, p, row), target.draw(key, p, row)

    with runtime.jax_scope("float32"):
        p, terms, drawn = begun(jax.random.key(0))
    rate = sum(map(float, terms.kl.values()))
    assert float(terms.log_ratio) == pytest.approx(float(terms.likelihood) - rate, abs=1e-4)
    assert {k: v.shape for k, v in drawn.items()} == {v.name: v.shape for v in target.hidden}
    assert -64 < float(terms.likelihood) < -32
    for site, values in drawn.items():
        book = np.asarray(p[f"{site} codebook"])
        assert np.abs(np.asarray(values)[..., None, :] - book).sum(-1).min(-1).max() < 1e-5
        assert float(terms.kl[site]) == pytest.approx(values[..., 0].size * np.log(8), rel=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vq_vae", "vq_vae_2"])
def test_models_learn_and_make_pictures(name):
    x = load("digits")[:200]
    fit = pg.fit(name, {"x": x, **SMALL}, "vq", num_steps=120, batch_size=64, learning_rate=0.002)
    assert fit.records["loss"][0, -20:].mean() < fit.records["loss"][0, :20].mean() - 5
    drawn = fit.sample(3)["x"]
    assert drawn.shape == (3, 8, 8)
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    np.testing.assert_array_equal(fit.sample(3)["x"], drawn)
    assert fit.reconstruct(x[:5])["x"].shape == (5, 8, 8)
    for site, values in fit.encode(x[:5]).items():
        book = fit.answer[f"{site} codebook"]
        assert np.abs(values[..., None, :] - book).sum(-1).min(-1).max() < 1e-5
    with pytest.raises(Incompatible, match="nuts needs a Continuous target"):
        pg.fit(fit.condition(x=x[0]), inference="nuts")


def test_learning_goes_on_from_its_state_bit_for_bit(tmp_path, killed):
    settings = {"num_steps": 150, "batch_size": 64}
    whole = pg.fit(model(), inference="vq", out=tmp_path / "whole", **settings)
    killed(pg.fit, model(), inference="vq", out=tmp_path / "part", **settings)
    for fit in (pg.resume(tmp_path / "part"), pg.load(tmp_path / "part")):
        for name in whole.answer:
            np.testing.assert_array_equal(fit.answer[name], whole.answer[name])
        np.testing.assert_array_equal(fit.records["loss"], whole.records["loss"])


def test_against_a_critic_if_asked():
    def critic(x):
        C = numpyro.param("C", lambda key: jax.random.normal(key, (3, 4)))
        features = jnp.tanh(C @ x)
        return jnp.sum(features), features

    with_one, settings = dataclasses.replace(model(), critic=critic), {"num_steps": 60, "batch_size": 50}
    plain, idle = (pg.fit(m, inference="vq", **settings) for m in (model(), with_one))
    against = pg.fit(with_one, inference="vq", perceptual=1.0, adversarial=0.5, **settings)
    for name in plain.answer:
        np.testing.assert_array_equal(idle.answer[name], plain.answer[name])
    assert (set(idle.answer), set(against.answer) - set(plain.answer)) == (set(plain.answer), {"C"})
    assert np.abs(against.answer["W"] - plain.answer["W"]).max() > 1e-3
    assert (plain.records["right"] == 0).all()
    assert (against.records["right"] > 0.1).all()
    assert against.log_prob().value.shape == (300,)
    alike = pg.fit(with_one, inference="vq", perceptual=1.0, num_steps=100, batch_size=50).diagnose()
    assert "no bound" in alike["critic"].message
    assert "critic" not in [finding.check for finding in idle.diagnose().findings]


def test_the_critic_moves_the_decoder_and_not_the_critic_the_codes():
    """The losses with a critic are the plain ones, and its judgement weighed; each player has the gradient of its own."""

    def critic(x):
        C = numpyro.param("C", lambda key: jax.random.normal(key, (3, 4)))
        return jnp.sum(jnp.tanh(C @ x)), C @ x

    target = conditioned(dataclasses.replace(model(), critic=critic), None)[1]
    with runtime.jax_scope("float64"):
        p, key = target.initial(jax.random.key(1)), jax.random.key(0)
        batch = target.rows(jnp.arange(50))
        plain = vq.VQ()._losses(key, target.unjudged, p, batch)[0][0]
        settings = vq.VQ(perceptual=0.7, adversarial=0.3)
        (loss, fooling, judged), _ = settings._losses(key, target, p, batch)
        x, C = np.asarray(batch["x"]), np.asarray(p["C"])
        _, codes, _ = by_hand(p, x)
        shown = expit(np.asarray(p["z codebook"])[codes].reshape(-1, 4) @ np.asarray(p["W"]).T)
        logits, fooled = np.tanh(x @ C.T).sum(1), np.tanh(shown @ C.T).sum(1)
        distance = 0.5 * (((x - shown) @ C.T) ** 2).sum(1).mean()
        assert float(loss - plain) == pytest.approx(0.7 * distance)
        assert float(fooling) == pytest.approx(np.logaddexp(0, -fooled).mean())
        assert float(judged) == pytest.approx(np.logaddexp(0, -logits).mean() + np.logaddexp(0, fooled).mean())
        chains = settings.first_chains(key, target, p, batch)
        found = settings.gradient(key, target, p, batch, chains)[0]
        k_draw = jax.random.split(key)[0]
        for parts, labels in (((1.0, 0.3, 0.0), ("W", "A", "logits")), ((0.0, 0.0, 1.0), ("C",))):
            of = lambda p, parts=parts: jnp.stack(settings._losses(k_draw, target, p, batch)[0]) @ jnp.array(parts)  # noqa: E731
            own = jax.grad(of)(p)
            for label in labels:
                np.testing.assert_allclose(found[label], own[label], atol=1e-12)


def test_a_dead_codebook_is_flagged():
    alike = pg.Model(program=program, guide=guide, data={"x": np.zeros((100, 4))})  # of which all outputs are zero
    finding = pg.fit(alike, inference="vq", num_steps=120, batch_size=64, learning_rate=0.002).diagnose()["codes"]
    assert (finding.status, finding.value) == ("fail", pytest.approx(1 / 3))
    assert "perplexity 1.0" in finding.message


def test_what_does_not_fit_is_said():
    with pytest.raises(Incompatible, match="inference='vq'"):
        pg.fit(model(), inference="svi")
    with pytest.raises(Incompatible, match="'z' does not hold codes of a codebook: use inference='svi'"):
        pg.fit("vae", inference="vq")
    with pytest.raises(Incompatible, match="The guide has no parameter 'z codebook'"):
        pg.fit(model(elsewhere), inference="vq")
    with pytest.raises(ValueError, match="batch_size is 500; the data have 300 rows"):
        pg.fit(model(), inference="vq", batch_size=500)
    for settings, said in (
        ({"codebook": "mean"}, "known: ema, gradient"),
        ({"average": 0.2}, "do not go together"),
        ({"commitment": -1.0}, "must be at least 0"),
        ({"ema_decay": 1.0}, "below 1"),
    ):
        with pytest.raises(ValueError, match=said):
            vq.VQ(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_codes": 1}, "num_codes is 1; expected a whole number, 2 or more"),
        ({"dim": 0}, "dim is 0"),
        ({"halvings": 4}, "Pictures of 8 by 8 cannot be halved 4 times"),
        ({"num_filters": 0}, "num_filters is 0"),
        ({"likelihood": "round"}, "known: bernoulli, normal, levels"),
        ({"x": np.full((128, 8, 8), 2.0)}, "'x' is observed at site 'x'"),
    ],
)
def test_bad_input_is_told_before_anything_compiles(settings, said):
    with pytest.raises(ValueError, match=said):
        pg.fit("vq_vae", {"x": np.ones((128, 8, 8)), **settings}, "vq")
