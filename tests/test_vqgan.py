"""The critic of codes felt late and by an adaptive weight, by hand; a fixed net's features; the model's bound by enumeration."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro
from scipy.special import expit, logsumexp
from scipy.stats import chi2

import probgen as pg
from probgen import catalog, runtime
from probgen.algorithm import Incompatible
from probgen.data import load
from probgen.datasets import labels
from probgen.distributions.codebook import Codes, Nearest, codebook
from probgen.evaluate.features import alike
from probgen.evaluate.features.classifier import classifier, strides
from probgen.inference.adversarial._critic import balance
from probgen.inference.likelihood import vq
from probgen.nets.features.maps import Layer, features, packed, source_of
from probgen.nets.tokens.codes import grid_of_codes
from probgen.run import conditioned

TINY = {"height": 4, "width": 4, "num_codes": 3, "dim": 2, "halvings": 1, "num_filters": 4, "prior_width": 8, "prior_depth": 1,
        "num_heads": 2}  # fmt: skip


# ---- a linear decoder, and a linear critic of two patches


def program(x=None):
    numpyro.param("before", jnp.eye(2))  # moves nothing
    W = numpyro.param("W", lambda key: jax.random.normal(key, (4, 4)))
    prior = dist.Categorical(logits=jnp.zeros((2, 3))).to_event(1)
    z = numpyro.sample("z", Codes(prior, codebook("z", 3, 2)))
    numpyro.param("after", jnp.eye(2))
    numpyro.sample("x", dist.Normal(W @ z.ravel(), 1.0).to_event(1), obs=x)


def guide(x):
    A = numpyro.param("A", lambda key: jax.random.normal(key, (4, 4)))
    numpyro.sample("z", Nearest((A @ x).reshape(2, 2), codebook("z", 3, 2)))


def critic(x):
    C = numpyro.param("C", lambda key: jax.random.normal(key, (2, 4)))
    return (C @ x)[None], jnp.tanh(x)


def data(count=300):
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(count, 2)) @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(count, 4))}


def model(**parts):
    return pg.Model(**{"program": program, "guide": guide, "critic": critic, "data": data, "by_row": True, **parts})


@pytest.fixture(scope="module")
def begun():
    """The target, its parameters before learning, and a batch, in double precision; and what is known of them by hand."""
    target = conditioned(model(), None)[1]
    with runtime.jax_scope("float64"):
        p, batch = target.initial(jax.random.key(1)), target.rows(jnp.arange(50))
    own, x = {k: np.asarray(v) for k, v in p.items()}, np.asarray(batch["x"])
    f = (x @ own["A"].T).reshape(-1, 2, 2)
    z = own["z codebook"][((f[:, :, None] - own["z codebook"]) ** 2).sum(-1).argmin(-1)]
    return target, p, batch, own, x, f, z.reshape(-1, 4)


def fooling(W, C, z):
    """A: the mean over rows and patches of -log s(D(x'))."""
    return np.logaddexp(0, -(z @ W.T) @ C.T).mean()


def test_the_weight_makes_both_gradients_equally_long_at_the_last_layer(begun):
    perceptual = 0.4
    target, p, batch, own, x, f, z = begun
    assert target.last_layer == "W"
    settings = vq.VQ(adversarial=0.7, adaptive=True, perceptual=perceptual, adversarial_from=0.25, num_steps=100)
    k_draw = jax.random.split(jax.random.key(0))[0]
    losses = lambda p: settings._losses(k_draw, target, p, batch)  # noqa: E731
    followed = jax.jit(lambda p, step: settings._followed(losses, target, p, step)[:2])
    with runtime.jax_scope("float64"):
        (found, weight), (before, nothing) = followed(p, jnp.int32(25)), followed(p, jnp.int32(24))
    W, C = own["W"], own["C"]
    shown = z @ W.T
    of_shown = -(x - shown) - perceptual * (np.tanh(x) - np.tanh(shown)) * (1 - np.tanh(shown) ** 2)
    of_critic = -(expit(-shown @ C.T) @ C) / C.shape[0]
    alike, against = of_shown.T @ z / len(x), of_critic.T @ z / len(x)
    eps = 1e-6
    for i, j in ((0, 0), (3, 1)):  # the closed form is a difference quotient
        step = np.zeros_like(W)
        step[i, j] = eps
        quotient = (fooling(W + step, C, z) - fooling(W - step, C, z)) / (2 * eps)
        assert quotient == pytest.approx(against[i, j], rel=1e-6)
    expected = 0.7 * np.linalg.norm(alike) / (np.linalg.norm(against) + 1e-4)
    assert float(weight) == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(found["W"], alike + expected * against, atol=1e-12)
    np.testing.assert_allclose(before["W"], alike, atol=1e-12)
    assert float(nothing) == 0.0
    assert np.abs(before["C"]).max() > 1e-3  # the critic learns before it is felt
    np.testing.assert_array_equal(before["C"], found["C"])
    through = (of_shown + expected * of_critic) @ W  # straight through the codes
    slope = through.reshape(f.shape) + 0.25 * (f - z.reshape(f.shape))
    np.testing.assert_allclose(found["A"], slope.reshape(-1, 4).T @ x / len(x), atol=1e-12)


def test_a_weight_stays_finite_and_small():
    with runtime.jax_scope("float64"):
        one, none = jnp.ones((2, 2)), jnp.zeros((2, 2))
        assert float(balance(one, none)) == 1e4
        assert float(balance(1e-9 * one, none)) == pytest.approx(2e-5)
        assert float(balance(none, one)) == 0.0
        assert float(balance(3 * one, 0.5 * one)) == pytest.approx(6 / (1 + 1e-4))


def test_learning_goes_on_from_its_state_bit_for_bit_and_feels_the_critic_late(tmp_path, killed):
    settings = {"num_steps": 150, "batch_size": 64, "adversarial": 0.5, "adaptive": True, "adversarial_from": 0.5}
    whole = pg.fit(model(), inference="vq", out=tmp_path / "whole", **settings)
    killed(pg.fit, model(), inference="vq", out=tmp_path / "part", **settings)
    for fit in (pg.resume(tmp_path / "part"), pg.load(tmp_path / "part")):
        for name in whole.answer:
            np.testing.assert_array_equal(fit.answer[name], whole.answer[name])
        for name in ("weight", "right", "loss"):
            np.testing.assert_array_equal(fit.records[name], whole.records[name])
    weight = whole.records["weight"][0]
    assert (weight[:75] == 0).all()
    assert (weight[75:] > 0).all()
    assert "felt it from step 76 on, by a weight of" in whole.diagnose()["critic"].message
    early = dataclasses.replace(whole, records={**whole.records, "weight": 0 * whole.records["weight"]})
    finding = early.diagnose()["critic"]
    assert (finding.status, "has not felt it at any step" in finding.message) == ("warn", True)


# ---- what pictures are compared by


def test_features_are_the_layers_of_the_classifier():
    x, y = load("digits"), labels("digits")
    given = catalog.model("vqgan").named_data("digits")
    weights = classifier(x, y).apply.args[0]
    f, expected = x[0][..., None].astype(float), []
    for i, stride in enumerate(strides(8)):
        padded = np.pad(f, ((1, 1), (1, 1), (0, 0)))
        at = [(r, c) for r in range(0, f.shape[0], stride) for c in range(0, f.shape[1], stride)]
        rows = np.stack([padded[r : r + 3, c : c + 3].ravel() for r, c in at])
        f = np.maximum(rows @ weights[2 * i] + weights[2 * i + 1], 0)
        expected.append((f / np.sqrt((f**2).sum(-1, keepdims=True) + 1e-8)).ravel() * (64 / len(at)) ** 0.5)
        f = f.reshape(8 // stride, 8 // stride, -1)
    with runtime.jax_scope("float64"):
        found = features(jnp.asarray(x[0]), jnp.asarray(given["weights"]), given["layers"])
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)
    assert "classifier of these rows" in source_of(given["layers"])


@needs_pyro
def test_a_file_of_convolutions_sees_what_torch_sees(tmp_path):
    import torch
    from torch import nn

    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = lambda a, b: nn.Conv2d(a, b, 3, 1, 1)  # noqa: E731
        net = nn.Module()
        net.features = nn.Sequential(
            conv(3, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), nn.MaxPool2d(2), conv(5, 6), nn.ReLU(), nn.MaxPool2d(2), conv(6, 7),
            nn.ReLU(), nn.MaxPool2d(2), conv(7, 8), nn.ReLU(),
        )  # fmt: skip
        net.classifier = nn.Sequential(nn.Linear(8, 2))
        torch.save(net.state_dict(), tmp_path / "net.pth")
    x = np.random.default_rng(0).random((9, 8))
    given = alike.of_file(tmp_path / "net.pth", x.shape)
    scaled = torch.as_tensor(x, dtype=torch.float32).expand(3, 9, 8)
    h = (scaled - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    expected = []
    with torch.no_grad():
        for layer in net.features[:10]:  # of the last, one pixel would be left
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                unit = (h / torch.sqrt((h**2).sum(0, keepdim=True) + 1e-8)).movedim(0, -1)
                expected.append(unit.numpy().ravel() * (72 / (h.shape[1] * h.shape[2])) ** 0.5)
    with runtime.jax_scope("float32"):
        found = features(jnp.asarray(x, "float32"), jnp.asarray(given["weights"]), given["layers"])
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-4)


def test_files_of_something_else_are_refused(tmp_path):
    def saved(**arrays):
        np.savez(tmp_path / "net.npz", **arrays)
        return str(tmp_path / "net.npz")

    w, b, rng = "features.{}.weight", "features.{}.bias", np.random.default_rng(0)
    one = {w.format(0): rng.normal(size=(4, 1, 3, 3)), b.format(0): np.zeros(4)}
    assert "net.npz" in source_of(alike.of_file(saved(**one), (8, 8))["layers"])
    for arrays, said in (
        ({"W": np.ones((2, 2))}, "holds no one chain of convolutions"),
        (one | {w.format(2): np.ones((4, 3, 3, 3)), b.format(2): np.zeros(4)}, "after 4 channels"),
        (one | {w.format(7): np.ones((4, 4, 3, 3)), b.format(7): np.zeros(4)}, "at most one pooling"),
        ({w.format(0): np.ones((4, 1, 2, 2)), b.format(0): np.zeros(4)}, "an odd side"),
        ({w.format(0): np.ones((4, 2, 3, 3)), b.format(0): np.zeros(4)}, "sees pictures of 2 channels"),
        ({w.format(0): np.full((4, 1, 3, 3), np.nan), b.format(0): np.zeros(4)}, "NaN or infinite weights"),
        ({w.format(0): np.ones((4, 1, 3, 3))}, "with a bias"),
    ):
        with pytest.raises(ValueError, match=said):
            alike.of_file(saved(**arrays), (8, 8))
    with pytest.raises(FileNotFoundError, match="There is no file"):
        pg.fit("vqgan", {"x": load("digits")[:20], "features": "nowhere.npz"})


def test_half_the_squared_distance_is_that_of_units_times_pixels():
    """Two scales of one filter, by hand."""
    k = np.zeros((3, 3, 1, 2))
    k[1, 1, 0] = [1.0, 2.0]
    given = packed(
        "mine", [Layer(3, 1, 2), Layer(3, 2, 1, 1, "mean")], [k, np.ones((3, 3, 2, 1))], [np.zeros(2), np.ones(1)]
    )
    x, y = np.zeros((4, 4)), np.ones((4, 4))
    with runtime.jax_scope("float64"):
        f, g = (np.asarray(features(jnp.asarray(v), jnp.asarray(given["weights"]), given["layers"])) for v in (x, y))
    assert ((f - g) ** 2).sum() == pytest.approx(
        16.0
    )  # no response against one, everywhere; one channel alone is alike
    assert features(jnp.zeros((4, 4)), jnp.zeros(()), "").shape == (0,)


# ---- the model


def test_what_it_is_given_says_what_pictures_are_compared_by():
    made = catalog.model("vqgan")
    x, y = load("digits"), labels("digits")
    of = lambda given: source_of(made.whole(given)["layers"])  # noqa: E731
    assert of(made.given_rows(x)) == alike.RANDOM
    assert "classifier" in of(made.given_rows(x, y))
    assert made.named_data("digits")["layers"] == made.given_rows(x, y)["layers"]
    known = made.whole(made.given_rows(x))
    assert made.whole(known)["weights"] is known["weights"]
    with pytest.raises(ValueError, match=r"features is 'vgg\.pth', and weights are from filters at random"):
        made.whole({**known, "features": "vgg.pth"})
    with pytest.raises(ValueError, match="sees 0 to 1, or whole numbers from 0 to 255"):
        pg.fit("vqgan", {"x": 3.7 * x, "likelihood": "normal"})
    with pytest.raises(ValueError, match="Class 2 has no rows"):
        made.given_rows(x[:3], np.array([0, 1, 9]))
    np.testing.assert_allclose(alike.on_scale(255 * x), x)


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    x = np.repeat(np.repeat(rng.integers(0, 2, (200, 2, 2)), 2, 1), 2, 2).astype(float)
    return {**TINY, "x": np.abs(x - (rng.random(x.shape) < 0.05))}


def test_a_grid_of_codes_has_mass_one_and_its_draws_their_mass():
    points = np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2)
    with runtime.jax_scope("float32"), numpyro.handlers.seed(rng_seed=0):
        fn = grid_of_codes("prior", (2, 2), 3, 8, 1, 2)
        fn = jax.tree.map(lambda v: 10 * v, fn)  # far from uniform
        p = np.exp(np.asarray(fn.log_prob(jnp.asarray(points, "float32")), float))
        drawn = np.asarray(fn.sample(jax.random.key(0), (5000,)))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.max() > 5 * p.min()
    count = np.bincount((drawn.reshape(-1, 4) @ [27, 9, 3, 1]).astype(int), minlength=81)
    assert ((count - 5000 * p) ** 2 / (5000 * p)).sum() < chi2.ppf(1 - 1e-6, 80)


@pytest.fixture(scope="module")
def tiny(small):
    """The target, its parameters before learning, and what a vq_vae of the same sizes begins with."""
    shared = {k: v for k, v in small.items() if not k.startswith(("prior", "num_heads"))}
    targets = [conditioned(name, data, precision="float32")[1] for name, data in (("vqgan", small), ("vq_vae", shared))]
    with runtime.jax_scope("float32"):
        return targets, [jax.tree.map(np.asarray, jax.jit(t.initial)(jax.random.key(0))) for t in targets]


def test_the_bound_is_below_the_sum_over_all_codes(tiny, small):
    """log p(x) by all 81 grids of codes, whose terms are the program's own joint density."""
    target, answer, x = tiny[0][0], tiny[1][0], small["x"][:20]
    with runtime.jax_scope("float32"):
        p, row = {k: jnp.asarray(v) for k, v in answer.items()}, {"x": jnp.asarray(x, "float32")}
        outputs = np.asarray(vq._outputs(jax.random.key(0), target, p, row)["z"])
    order = np.argsort(outputs[:, 0])
    book = outputs[order[[5, 40, 75]]]  # of codes that are used
    answer = answer | {"z codebook": book}
    grids = book[np.array(list(itertools.product(range(3), repeat=4)))].reshape(-1, 2, 2, 2)
    with runtime.jax_scope("float32"):
        p = {k: jnp.asarray(v) for k, v in answer.items()}
        joint = lambda x, z: sum(  # noqa: E731
            s["fn"].log_prob(s["value"]).sum() for s in target.told(p, {"x": x}, {"z": z}).values()
        )
        over = jax.jit(jax.vmap(jax.vmap(joint, (None, 0)), (0, None)))
        every = np.asarray(over(jnp.asarray(x, "float32"), jnp.asarray(grids)), float)
    bound = target.log_ratios(answer, {"x": x}, (0, 0), 1)[:, 0]
    z = target.codes(answer, {"x": x}, (0, 0), 0)["z"][:, 0]
    codes = np.abs(z[:, None] - grids).reshape(len(x), 81, -1).sum(-1).argmin(1)
    np.testing.assert_allclose(bound, every[np.arange(len(x)), codes], atol=1e-4)
    assert len(np.unique(codes)) > 1
    exact = logsumexp(every, 1)
    assert (bound < exact).all()
    assert (exact - bound).mean() < 5  # of at most log 81 and what the codes tell


def test_it_begins_as_a_vq_vae_and_without_critic_and_features_it_is_learned_as_one(tiny, small):
    (target, other), (own, plain) = tiny
    names = [k for k in plain if not k.startswith(("prior", "critic"))]
    assert {k.partition("$")[0] for k in names} == {"encoder", "z codebook", "decoder"}
    for name in names:
        np.testing.assert_array_equal(own[name], plain[name])
    left, other = vq.VQ(perceptual=0.0, adversarial=0.0).prepare(target), vq.VQ().prepare(other)
    assert left.offers == other.offers == "Bounded"
    values = target.codes(own, {"x": small["x"][:5]}, (0, 0), 0)["z"][:, 0]
    np.testing.assert_array_equal(values, other.codes(plain, {"x": small["x"][:5]}, (0, 0), 0)["z"][:, 0])
    np.testing.assert_array_equal(left.decoded(own, {"z": values})["x"], other.decoded(plain, {"z": values})["x"])


@pytest.mark.slow
def test_without_critic_and_features_the_fit_is_that_of_vq_vae(small):
    """The same guide, codebook and decoder, whatever the prior of the codes, which moves none of them."""
    settings = {"num_steps": 80, "batch_size": 50, "learning_rate": 0.005}
    shared = {k: v for k, v in small.items() if not k.startswith(("prior", "num_heads"))}
    plain = pg.fit("vq_vae", shared, "vq", **settings)
    same = pg.fit("vqgan", small, perceptual=0.0, adversarial=0.0, **settings)
    for name in (k for k in plain.answer if not k.startswith("prior")):
        np.testing.assert_array_equal(same.answer[name], plain.answer[name], err_msg=name)
    assert not [k for k in same.answer if k.startswith("critic")]
    np.testing.assert_array_equal(same.reconstruct(small["x"][:5])["x"], plain.reconstruct(small["x"][:5])["x"])
    assert "critic" not in [f.check for f in same.diagnose().findings]


@pytest.mark.slow
def test_it_draws_rebuilds_and_is_judged(small):
    learned = pg.fit("vqgan", small, num_steps=150, batch_size=50, learning_rate=0.01, adversarial_from=0.5)
    drawn = learned.sample(5)["x"]
    assert drawn.shape == (5, 4, 4)
    np.testing.assert_array_equal(learned.sample(5)["x"], drawn)
    rebuilt = learned.reconstruct(small["x"][:9])["x"]
    assert ((rebuilt > 0) & (rebuilt < 1)).all()
    assert "lower bound" in learned.log_prob().kind
    assert "felt it from step 76 on" in learned.diagnose()["critic"].message
    assert set(small) < set(learned.target.data)


def test_the_critic_of_bits_sees_the_most_probable_ones_straight_through():
    from probgen.models.latent.vqgan import critic

    x = np.random.default_rng(0).random((4, 4)).astype("float32")
    with runtime.jax_scope("float32"):
        logit = lambda x, **own: numpyro.handlers.seed(critic, 0)(x, num_filters=4, **own)[0].sum()  # noqa: E731
        soft, hard = jnp.asarray(x), jnp.asarray(x >= 0.5, "float32")
        of_soft, of_hard = jax.value_and_grad(logit)(soft), jax.value_and_grad(logit)(hard)
        grey = logit(soft, likelihood="normal")
    assert float(of_soft[0]) == pytest.approx(float(of_hard[0]), abs=1e-6)
    np.testing.assert_allclose(of_soft[1], of_hard[1], atol=1e-6)
    assert np.abs(of_soft[1]).max() > 1e-3
    assert abs(float(grey - of_hard[0])) > 1e-3


@needs_pyro
def test_the_other_engine_is_named(small):
    with pytest.raises(ValueError, match="vqgan is written for numpyro, and engine is 'pyro': leave it out"):
        pg.fit("vqgan", small, engine="pyro")


def test_what_does_not_fit_is_said(small):
    def vectors(x=None):
        z = numpyro.sample("z", Codes(dist.Categorical(logits=jnp.zeros((2, 3))).to_event(1), codebook("z", 3, 2)))
        numpyro.sample("x", dist.Normal(z.ravel() * numpyro.param("w", jnp.ones(4)), 1.0).to_event(1), obs=x)

    with pytest.raises(Incompatible, match="no parameter of two axes or more moves what it makes"):
        pg.fit(model(program=vectors), inference="vq", adversarial=1.0, adaptive=True)
    wrong = dataclasses.replace(model(), critic=lambda x: (jnp.zeros(3) + x[0], x))
    with pytest.raises(ValueError, match=r"or one for each patch, \(height, width\)"):
        pg.fit(wrong, inference="vq", adversarial=1.0)
    for settings, said in (({"adversarial_from": 1.0}, "below 1"), ({"adversarial_from": -0.1}, "at least 0"),
                           ({"perceptual": np.nan}, "at least 0")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            vq.VQ(**settings)
    with pytest.raises(ValueError, match="cannot be halved 3 times"):
        pg.fit("vqgan", {**small, "halvings": 3})
    with pytest.raises(ValueError, match="a multiple of the heads"):
        pg.fit("vqgan", {**small, "num_heads": 3})
