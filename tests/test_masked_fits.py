"""Fits of masked diffusion on bits whose law is known, of diffusion given a class or a prompt, and their networks."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from scipy import stats

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.data.values import prompts
from probgen.data.values.tokens import of_tokens, piece
from probgen.nets.diffusion.masking import Masking, Unmasking
from probgen.nets.tokens.transformer import Attention, Encoder, Norm
from probgen.nets.tokens.unmasker import Unmasker

FALSE_ALARM = 1e-4
POINTS = np.array(list(itertools.product((0, 1), repeat=3)))
LAW = np.array([0.3, 0.02, 0.02, 0.16, 0.02, 0.16, 0.3, 0.02])
SMALL = {"num_features": 24, "depth": 2}


def bits(n=4000, seed=0):
    return POINTS[np.random.default_rng(seed).choice(8, n, p=LAW)]


# ---- fits of three bits


@pytest.fixture(scope="module", params=["mixer", "attention"])
def fit(request):
    """In continuous time: three bits, every order of them."""
    data = {"x": bits(), "mixing": request.param} | SMALL
    return pg.fit("masked_diffusion", data, inference="svi", num_steps=1500, ema=0.99, seed=1, progress=False)


def test_the_bound_is_below_the_law_and_close(fit):
    found = fit.log_prob(POINTS, num_draws=2000)
    assert "bound" in found.kind
    z = (found.value - np.log(LAW)) / found.stderr
    assert LAW @ found.value < LAW @ np.log(LAW) + 4 * np.sqrt(LAW**2 @ found.stderr**2)
    assert LAW @ (np.log(LAW) - found.value) < 0.03, z


def test_the_bound_is_that_of_all_six_orders(fit):
    """The full chain, by enumeration: log p of a chain less log q, averaged over orders, beside random levels."""
    structure = fit.target.structure
    values = {k: jnp.asarray(v) for k, v in fit.answer.items()}
    run = lambda: structure.one.program(**structure.static, **values)  # noqa: E731
    p = handlers.trace(handlers.seed(run, 0)).get_trace()["z"]["fn"]
    assert isinstance(p, Unmasking)
    found = fit.log_prob(POINTS, num_draws=4000)
    for x, value, error in zip(POINTS, found.value, found.stderr, strict=True):
        q = Masking(x, None)
        every = jnp.stack([q.chain(q.x, np.array(w)) for w in itertools.permutations((1, 2, 3))])
        assert value == pytest.approx(float(jnp.mean(p.log_prob(every) - q.log_prob(every))), abs=4.5 * error)


def test_samples_have_the_law(fit):
    drawn = fit.sample(4000, seed=5)["x"]
    counts = np.bincount((drawn @ [4, 2, 1]).astype(int), minlength=8)
    assert abs(counts / 4000 - LAW).sum() / 2 < 0.05
    one = fit.sample(4000, seed=5, num_steps=1)["x"]  # at one level units are independent
    counts = np.bincount((one @ [4, 2, 1]).astype(int), minlength=8)
    share = one.mean(0, dtype=float)
    apart = np.prod(np.where(POINTS, share, 1 - share), 1)
    assert stats.chisquare(counts, 4000 * apart, ddof=3).pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.sample(2, sampler="ddim"),
        lambda fit: fit.log_prob(POINTS, method="ode"),
        lambda fit: fit.trajectory(2),
        lambda fit: fit.interpolate(POINTS[0], POINTS[1]),
        lambda fit: pg.fit(
            "masked_diffusion", {"x": bits(200)} | SMALL, inference="denoising", num_steps=2, progress=False
        ),
    ],
)
def test_what_asks_for_a_denoiser_of_reals_is_refused(fit, ask):
    if fit.target.structure.static["mixing"] == "mixer":
        with pytest.raises(Incompatible, match="no denoiser of reals: its points are whole numbers, which are masked"):
            ask(fit)


def test_a_chain_of_four_levels_is_the_bound_that_it_says():
    """Levels (3 values) in a picture of 2 by 1: the bound of T = 4 lies above that of the entropy by at most MI / 4, as learned."""
    law = np.array([[0.3, 0.05, 0.05], [0.05, 0.1, 0.05], [0.05, 0.05, 0.3]])
    pick = np.random.default_rng(0).choice(9, 4000, p=law.ravel())
    x = np.stack([pick // 3, pick % 3], 1).reshape(-1, 2, 1)
    made = pg.fit(
        "masked_diffusion", {"x": x, "num_levels": 4} | SMALL, inference="svi", num_steps=1200, ema=0.99, progress=False
    )
    every = np.array(list(itertools.product(range(3), repeat=2))).reshape(-1, 2, 1)
    found = made.log_prob(every, num_draws=1000)
    entropy = -(law * np.log(law)).sum()
    information = -2 * law.sum(0) @ np.log(law.sum(0)) - entropy
    assert -law.ravel() @ found.value == pytest.approx(entropy + information / 4, abs=0.04)
    drawn = made.sample(500)["x"]
    assert drawn.shape == (500, 2, 1)
    assert set(np.unique(drawn)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"x": np.linspace(0, 3, 40).reshape(10, 4)},
            r"x\[0, 1\] is 0.0769231; expected whole numbers from 0: what is masked",
        ),
        ({"x": np.full((10, 4), -1)}, r"x\[0, 0\] is -1; expected whole numbers from 0"),
        ({"x": np.eye(4) * 3, "num_values": 3}, r"x\[0, 0\] is 3; expected whole numbers from 0 to 2"),
        ({"x": np.arange(4)}, r"x has shape \(4,\); expected \(row, unit\) or \(row, height, width\)"),
        ({"x": bits(20), "num_levels": 0}, "num_levels is 0; expected a whole number, 1 or more, or None"),
        ({"x": bits(20), "mixing": "sum"}, "mixing is 'sum'; known: attention, mixer"),
    ],
)
def test_rows_that_cannot_be_masked_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        pg.fit("masked_diffusion", data, inference="svi", num_steps=2, progress=False)


def test_grey_is_the_probability_of_bits_where_two_values_are_said():
    derive = of_tokens("x")
    assert derive({"x": np.full((5, 8, 8), 0.25), "num_values": 2}) == {"height": 8, "width": 8, "piece": 2}
    assert derive({"x": np.full((5, 9), 4)}) == {"num_values": 5, "height": 0, "width": 9, "piece": 1}
    assert [piece(28, 28), piece(8, 8), piece(0, 64), piece(0, 784), piece(0, 101), piece(7, 5)] == [4, 2, 1, 1, 1, 1]


# ---- given a class, or a prompt


def test_a_class_that_is_asked_for():
    """Two classes at -2 and 2, N(0, .25): means and spreads by class, and of both where no label is shown."""
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=3000)
    x = 4.0 * label[:, None] - 2 + 0.5 * rng.normal(size=(3000, 1))
    data = {"x": x, "label": label, "dim": 1, "num_levels": 100, "width": 48, "depth": 2}
    made = pg.fit("conditional_diffusion", data, inference="denoising", num_steps=1500, progress=False)
    for one, mean in ((0, -2), (1, 2)):
        drawn = made.sample(2000, label=one, seed=2, sampler="dpm++", num_steps=30)["x"]
        assert drawn.mean() == pytest.approx(mean, abs=0.12)
        assert np.median(abs(drawn - np.median(drawn))) == pytest.approx(0.5 * 0.6745, abs=0.08)
        guided = made.sample(2000, label=one, seed=2, guidance=2.0, num_steps=20)["x"]
        assert np.sign(mean) * guided.mean() > 1.9
    either = made.sample(2000, label=-1, seed=2)["x"]
    assert (either > 0).mean() == pytest.approx(0.5, abs=0.07)
    with pytest.raises(ValueError, match=r"label\[0\] is 2"):
        made.sample(2, label=2)


def test_prompts_say_what_pictures_look_like():
    bar = np.zeros((3, 8, 8))
    bar[0, :, 3] = 1  # upright
    bar[1, range(8), 7 - np.arange(8)] = 1  # leans to the right, one column a row
    bar[2, :, 2:6] = 1  # thick
    assert prompts.slant(bar) == pytest.approx([0, 1, 0], abs=1e-9)
    assert np.argmax(prompts.ink(bar)) == 2
    assert prompts.tokens("An upright seven").tolist() == [0, 4, 13, -1]
    words, pictures = prompts.prompted_digits()
    thick, thin = ((words == prompts.WORDS.index(w)).any(1) for w in ("thick", "thin"))
    assert prompts.ink(pictures[thick]).min() > prompts.ink(pictures[thin]).max()
    for prompt, message in (("a red seven", "says 'red'; known: a, digit"), ("", "has 0 words; expected 1 to 4")):
        with pytest.raises(ValueError, match=message):
            prompts.tokens(prompt)
    for prompt in (words + 0.5, words[0], np.full((4, 2), -2)):
        with pytest.raises(ValueError, match=r"expected tokens \(row, token\), whole numbers from 0, and -1"):
            prompts.vocabulary("prompt", {"prompt": prompt})


def test_a_prompt_that_is_asked_for():
    """One number: its place is told by the second word, 3 or 4; the first says nothing."""
    rng = np.random.default_rng(1)
    word = rng.integers(2, size=2000)
    prompt = np.stack([rng.integers(3, size=2000), 3 + word, np.full(2000, -1)], 1)
    data = {"prompt": prompt, "x": 4.0 * word[:, None] - 2 + 0.5 * rng.normal(size=(2000, 1)), "dim": 1, "num_words": 5}
    small = {"num_levels": 100, "width": 48, "depth": 2, "text_width": 8}
    made = pg.fit("prompted_diffusion", data | small, inference="denoising", num_steps=1500, progress=False)
    for said, mean in (([0, 3, -1], -2), ([2, 4, -1], 2)):
        assert made.sample(1000, prompt=np.array(said), seed=2)["x"].mean() == pytest.approx(mean, abs=0.15)


# ---- networks


def test_attention_is_softmax_of_products():
    h = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    attention = Attention(jax.random.key(0), 8, 2, 1.0)
    q, k, v = (np.asarray(h @ w.T).reshape(5, 2, 4) for w in np.split(np.asarray(attention.into.weight), 3))
    out = np.zeros((5, 2, 4))
    for head in range(2):
        scores = q[:, head] @ k[:, head].T / 2
        weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        out[:, head] = weights @ v[:, head]
    assert np.allclose(attention(h), out.reshape(5, 8) @ np.asarray(attention.out.weight).T, atol=1e-5)


def test_a_norm_begins_as_the_plain_one():
    h = np.random.default_rng(0).normal(3, 2, size=(5, 64))
    found = np.asarray(Norm(64, 2)(h, jnp.ones(2)))
    assert np.allclose(found, (h - h.mean(1, keepdims=True)) / h.std(1, keepdims=True), atol=1e-4)


def test_an_encoder_does_not_see_what_is_not_there():
    encoder = Encoder(jax.random.key(0), 6, 4, 8, 2, 2)
    other = eqx.tree_at(lambda e: e.places, encoder, encoder.places.at[2:].add(5.0))
    said = jnp.array([1, 3, -1, -1])
    assert np.allclose(encoder(said), other(said), atol=1e-6)
    assert not np.allclose(encoder(said), encoder(jnp.array([3, 1, -1, -1])), atol=1e-2)
    assert np.array_equal(encoder(jnp.full(4, -1)), np.zeros(8))


@pytest.mark.parametrize("shape", [(6, 4), (24,)])
@pytest.mark.parametrize("num_values", [2, 5])
def test_pieces_are_put_together_as_they_were_taken_apart(shape, num_values):
    net = Unmasker(jax.random.key(0), shape, num_values, 2, 8, 1, 2, 0, "mixer")
    z = np.arange(24.0)
    n = 1 if num_values == 2 else num_values
    back = net.parted(net.gathered(np.repeat(z[:, None], n, 1)))
    assert np.array_equal(back.reshape(24, -1)[:, 0], z)
    first = np.asarray(net.gathered(z[:, None]))[0]
    assert first.tolist() == ([0, 1, 4, 5] if len(shape) == 2 else [0, 1])
    assert net(z % (num_values + 1), 0.5).shape == ((24,) if num_values == 2 else (24, 5))
