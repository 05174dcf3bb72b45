"""WaveNet: its field and order, windows, draws from what is kept, and a waveform of known entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import probgen as pg
from probgen.catalog import model
from probgen.data.values import sounds
from probgen.nets.pixel_networks import at_random
from probgen.nets.waves.dilated import Dilated
from probgen.nets.waves.heads import Classes, Mixture
from probgen.nets.waves.wave import Wave

BLOCKS, LAYERS, LENGTH, LEVELS = 2, 3, 24, 32
FIELD = sounds.field_of(BLOCKS, LAYERS)
HEADS = {"classes": Classes(LEVELS), "mixture": Mixture(LEVELS, 3, 15.5, 6.0)}


def series(n, seed=0):
    return np.random.default_rng(seed).integers(0, LEVELS, n).astype(np.float32)


@pytest.fixture(scope="module", params=HEADS)
def wave(request):
    """A network of random numbers after a context of random levels."""
    head = HEADS[request.param]
    net = at_random(jax.random.key(1), Dilated(head.num_outputs, BLOCKS, LAYERS, 8, 8))
    return Wave(net, jnp.asarray(series(FIELD)), head, LENGTH, 15.5, 6.0)


def outputs(wave, seen):
    """What follows each sample of a series that is seen whole, from the first with a whole field on."""
    return np.asarray(jax.jit(lambda net, x: net((x - 15.5) / 6.0))(wave.net, jnp.asarray(seen)))


def test_an_output_depends_on_its_field_and_on_nothing_later(wave):
    seen, t = series(FIELD + 2 * LENGTH), FIELD + LENGTH
    assert FIELD == wave.net.field == 2 + BLOCKS * (2**LAYERS - 1)
    before = outputs(wave, seen)
    changed = outputs(wave, np.where(np.arange(len(seen)) == t, (seen + 7) % LEVELS, seen))
    differs = (before != changed).any(1)
    at = np.arange(len(before)) + FIELD - 1  # the sample after which an output is
    assert not differs[at < t].any()
    assert not differs[at >= t + FIELD].any()
    assert differs[at == t].all()
    assert differs[at == t + FIELD - 1].all()


def test_the_distribution_sums_to_one_and_agrees_with_its_draws():
    x, levels = jnp.arange(float(LEVELS)), np.arange(LEVELS)
    for head in HEADS.values():
        outputs = 0.7 * jax.random.normal(jax.random.key(3), (head.num_outputs,))
        p = np.exp(np.asarray(jax.vmap(lambda x, out=outputs, head=head: head.log_prob(out, x))(x), float))
        assert abs(p.sum() - 1) < 1e-5
        uniform = jax.random.uniform(jax.random.key(4), (40_000, head.num_uniforms))
        drawn = np.asarray(jax.jit(jax.vmap(lambda u, out=outputs, head=head: head.draw(out, u)))(uniform))
        shares = (drawn[:, None] == levels).mean(0)
        assert np.abs(shares - p).max() < 5 * np.sqrt(0.25 / 40_000)


def test_draws_from_what_is_kept_are_those_of_the_whole_field(wave):
    key, nothing = jax.random.key(5), jnp.zeros(LENGTH)
    drawn = np.asarray(jax.jit(lambda w: w.complete(key, nothing, nothing > 0))(wave))
    uniform = jax.random.uniform(key, (LENGTH, wave.head.num_uniforms))
    one = jax.jit(lambda seen, u: wave.head.draw(wave.net((seen - 15.5) / 6.0)[0], u))
    seen = list(np.asarray(wave.context))
    for t in range(LENGTH):
        seen.append(float(one(jnp.asarray(seen[-FIELD:], jnp.float32), uniform[t])))
    np.testing.assert_array_equal(drawn, seen[FIELD:])
    assert len(set(drawn)) > 5
    given = jnp.where(jnp.arange(LENGTH) < 9, 3.0, 0.0)
    completed = wave.complete(key, given, jnp.arange(LENGTH) < 9)
    assert (completed[:9] == 3).all()


@pytest.mark.parametrize("length", [1, 5, 24, 60])
def test_the_density_of_a_series_is_the_same_however_it_is_cut(wave, length):
    """The sum over windows is that of the conditionals, one by one, of all samples but the first of the field."""
    whole = series(FIELD + 120, seed=2)
    after = outputs(wave, whole[:-1])
    exact = np.asarray(wave.head.log_prob(jnp.asarray(after), jnp.asarray(whole[FIELD:])), float)
    cut = sounds.windows(whole, FIELD, length)
    assert cut["x"].size == 120
    total = 0.0
    for context, x in zip(cut["context"], cut["x"], strict=True):
        total += float(Wave(wave.net, jnp.asarray(context), wave.head, length, 15.5, 6.0).log_prob(jnp.asarray(x)))
    assert abs(total - exact.sum()) < 1e-4 * abs(exact.sum())


@pytest.fixture(scope="module")
def fit():
    return pg.fit("wavenet", inference="mle", num_steps=700, learning_rate=0.01, progress=False)


def test_a_resonance_takes_the_bits_of_its_entropy_rate(fit):
    """On fresh samples, beside the process itself, whose -log2 p has a standard error of 1 / (sqrt(2) log(2) 245) = .0042 bits."""
    x = sounds.resonance(60_000, seed=9)
    settings = {"num_blocks": 1, "num_layers": 4, "length": 128}
    fresh = model("wavenet").rows(x, 8000, sounds.LEVELS, "linear", **settings)
    found = fit.log_prob(context=fresh["context"], x=fresh["x"])
    edges, (a, b) = np.floor((x + 1) * 512)[2:, None] / 512 - 1 + np.array([0, 2 / 1024]), sounds.COEFFICIENTS
    below, above = norm.cdf((edges - (a * x[1:-1] + b * x[:-2])[:, None]) / (2 * 16 / 1024)).T
    exact = -np.log2(above - below).mean()
    assert found.stderr == 0
    assert abs(exact - sounds.ENTROPY) < 0.013
    assert exact - 0.005 < -found.value.mean() / 128 / np.log(2) < exact + 0.03
