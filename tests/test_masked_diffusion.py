"""Masked diffusion against two bits that can be enumerated, and laws of draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from probgen.nets.diffusion.masking import At, Masking, Shown, Unmasking, drawn_values, shares

P = np.array([[0.4, 0.1], [0.1, 0.4]])
ENTROPY, INFORMATION = 1.193550, 2 * np.log(2) - 1.193550
POINTS = np.array(list(itertools.product((0, 1), repeat=2)), float)
FALSE_ALARM = 1e-4


def exact(z, share):
    """The logits of both bits given the other, where that is shown, under P."""
    seen = jnp.array([0.25, 4.0])
    other = z[::-1]
    return jnp.where(other == 2, 0.0, jnp.log(seen)[jnp.minimum(other, 1).astype(int)])


def wrong(z, share):
    """Some network, one that looks at the share too."""
    return jnp.array([0.3, -0.7]) * (1 + share) + 0.4 * z[::-1]


def as_levels(predict):
    """The same as logits of both values."""
    return lambda z, share: jnp.stack([jnp.zeros(2), predict(z, share)], -1)


def pair(x, predict, num_levels, schedule="linear"):
    return Masking(x, num_levels, 2, schedule), Unmasking(predict, num_levels, 2, 2, schedule)


def by_levels(x, predict, num_levels, schedule="linear"):
    """E gap, over all levels and masks: what `lazily` draws, enumerated."""
    q, p = pair(x, predict, num_levels, schedule)
    total = 0.0
    for hidden in itertools.product((False, True), repeat=2):
        z, k = np.where(hidden, 2.0, x), sum(hidden)
        if num_levels is None:  # the number that are masked is as probable as any other, and so is each set of so many
            total += float(p.gap(q, At(jnp.int32(k), k / 2, z))) / 3 / [1, 2, 1][k]
            continue
        for t, m in enumerate(shares(num_levels, schedule)[1:], 1):
            chance = m**k * (1 - m) ** (2 - k)
            total += chance * float(p.gap(q, At(jnp.int32(t), m, z))) / num_levels
    return total


def chains(num_levels):
    """When both bits are masked, in every way."""
    whens = itertools.product(range(1, (num_levels or 2) + 1), repeat=2)
    return [np.array(w) for w in whens if num_levels or w[0] != w[1]]


def by_chains(x, predict, num_levels, schedule="linear"):
    """KL(q || p) over all chains, and the mass of q: what the full chain says, enumerated."""
    q, p = pair(x, predict, num_levels, schedule)
    every = jnp.stack([q.chain(q.x, w) for w in chains(num_levels)])
    log_q, log_p = (np.asarray(d.log_prob(every), float) for d in (q, p))
    return np.sum(np.exp(log_q) * (log_q - log_p)), np.exp(log_q).sum()


@pytest.mark.parametrize(
    ("num_levels", "bound"), [(1, 1.386294), (2, 1.289922), (10, ENTROPY + INFORMATION / 10), (None, ENTROPY)]
)
def test_the_bound_of_exact_conditionals(num_levels, bound):
    """NELBO_T = H + MI / T."""
    found = sum(P[tuple(x.astype(int))] * by_levels(x, exact, num_levels) for x in POINTS)
    assert found == pytest.approx(bound, abs=3e-6)


@pytest.mark.parametrize(("num_levels", "schedule"), [(1, "linear"), (4, "linear"), (4, "cosine"), (None, "linear")])
@pytest.mark.parametrize("predict", [exact, wrong, as_levels(wrong)])
def test_the_full_chain_is_the_mean_of_its_levels(num_levels, schedule, predict):
    for x in POINTS[1:3]:
        whole, mass = by_chains(x, predict, num_levels, schedule)
        assert mass == pytest.approx(1, abs=1e-5)
        assert whole == pytest.approx(by_levels(x, predict, num_levels, schedule), abs=1e-5)


def test_continuous_time_is_the_limit_of_levels_for_every_schedule():
    """int m'/m E sum -log p, by quadrature, for a network that does not look at the share."""
    x = POINTS[1]
    still = lambda z, share: wrong(z, 0.5)  # noqa: E731
    nodes, weights = np.polynomial.legendre.leggauss(12)
    total = 0.0
    for m, w in zip((nodes + 1) / 2, weights / 2, strict=True):  # over m itself: m' dt = dm
        for hidden in itertools.product((False, True), repeat=2):
            nats = np.logaddexp(0, np.where(x == 1, -1, 1) * np.asarray(still(np.where(hidden, 2.0, x), 0.0)))
            total += w / m * m ** sum(hidden) * (1 - m) ** (2 - sum(hidden)) * nats[list(hidden)].sum()
    assert by_levels(x, still, None) == pytest.approx(total, abs=1e-5)
    for schedule in ("linear", "cosine"):
        assert by_levels(x, still, 200, schedule) == pytest.approx(total, abs=5e-3)


@pytest.mark.parametrize(("num_levels", "schedule"), [(1, "linear"), (3, "cosine"), (None, "linear")])
def test_the_backward_chain_has_mass_one(num_levels, schedule):
    _, p = pair(POINTS[0], wrong, num_levels, schedule)
    every = jnp.stack([p.chain(x, w) for x in POINTS for w in chains(num_levels)])
    assert np.exp(np.asarray(p.log_prob(every), float)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("num_levels", [1, 2, None])
@pytest.mark.parametrize("predict", [exact, as_levels(exact)])
def test_draws_have_the_law_of_the_chain(num_levels, predict):
    """Chi-square over the four points, and over when bits are masked. In continuous time the law is P; at T levels a mixture of it
    and independent bits, with weight 1 / T."""
    _, p = pair(POINTS[0], predict, num_levels)
    drawn = np.asarray(p.sample(jax.random.key(1), (20_000,)))
    apart = 1 / num_levels if num_levels else 0.0
    law = (1 - apart) * P + apart / 4
    counts = np.bincount((drawn[:, 0] @ [2, 1]).astype(int), minlength=4)
    assert stats.chisquare(counts, 20_000 * law.ravel()).pvalue > FALSE_ALARM
    whens = (drawn != 2).sum(1)
    ways = chains(num_levels)
    seen = [(whens == w).all(1).sum() for w in ways]
    assert sum(seen) == 20_000
    if len(ways) > 1:
        assert stats.chisquare(seen).pvalue > FALSE_ALARM
    assert np.isfinite(p.log_prob(drawn[:50])).all()


@pytest.mark.parametrize("num_levels", [3, None])
def test_a_random_level_is_that_of_the_chain(num_levels):
    """Of `lazily`: the share of masked units, by chi-square; the point itself comes first."""
    q = Masking(np.arange(6) % 3, num_levels, 3)
    first, at = jax.vmap(q.lazily)(jax.random.split(jax.random.key(0), 9000))
    assert (first == q.x).all()
    count = np.asarray((at.z == 3).sum(1))
    assert ((at.z == 3) | (at.z == q.x)).all()
    if num_levels is None:
        assert (count == at.index).all()
        law = np.full(7, 1 / 7)
    else:
        law = np.mean([stats.binom.pmf(np.arange(7), 6, t / 3) for t in (1, 2, 3)], 0)
        assert np.allclose(at.share, at.index / 3)
    assert stats.chisquare(np.bincount(count, minlength=7), 9000 * law).pvalue > FALSE_ALARM


def test_what_is_no_chain_has_no_mass():
    q, p = pair(POINTS[1], exact, 2)
    back = np.array([[2.0, 1.0], [0.0, 1.0]])  # shown, after it was masked
    other = np.array([[1.0, 1.0], [2.0, 1.0]])  # of another point
    changed = np.array([[0.0, 1.0], [0.0, 0.0]])
    assert np.isneginf(q.log_prob(np.stack([back, other, changed]))).all()
    assert list(np.isneginf(p.log_prob(np.stack([back, other, changed])))) == [True, False, True]
    both = np.array([[0.0, 1.0], [2.0, 2.0]])  # in continuous time, one by one
    assert np.isneginf(pair(POINTS[1], exact, None)[0].log_prob(both))
    assert list(p.support(np.stack([back, back * 1.5]))) == [True, False]


def test_completion_draws_from_the_conditional():
    """P(x_1 = 1 | x_0 = 1) = .8; what is known may not change, what is not known may be NaN."""
    _, p = pair(POINTS[0], exact, None)
    keys = jax.random.split(jax.random.key(2), 4000)
    drawn = jax.vmap(lambda k: p.complete(k, jnp.array([1.0, jnp.nan]), jnp.array([True, False])))(keys)
    assert (drawn[:, 0] == 1).all()
    assert stats.binomtest(int(drawn[:, 1].sum()), 4000, 0.8).pvalue > FALSE_ALARM


def test_values_are_drawn_by_noise_whose_tail_has_no_end():
    """JAX's default Gumbel noise in float32 ends at 16.6, which draws rare values too rarely (arXiv:2409.02908)."""
    key, logits = jax.random.key(3), jnp.linspace(-1, 1, 600).reshape(200, 3)
    noise = {mode: jax.random.gumbel(key, logits.shape, mode=mode) for mode in ("high", "low")}
    drawn = drawn_values(key, logits)
    assert (drawn == jnp.argmax(logits + noise["high"], -1)).all()
    assert (drawn != jnp.argmax(logits + noise["low"], -1)).any()


@pytest.mark.slow
def test_rare_values_are_drawn_as_often_as_they_should():
    """2^17 values of probability 7e-8 each, together .0093, beside one of nearly all mass: JAX's default draws half of them."""
    num_values, logit = 2**17, -16.45
    rare = num_values * np.exp(logit) / (1 + num_values * np.exp(logit))
    logits = jnp.concatenate([jnp.zeros(1), jnp.full(num_values, logit)])[None]
    draw = jax.jit(lambda key: drawn_values(key, jnp.broadcast_to(logits, (25, num_values + 1))))
    keys = jax.random.split(jax.random.key(3, impl="unsafe_rbg"), 120)
    drawn = np.concatenate([draw(key) for key in keys])
    assert stats.binomtest(int((drawn > 0).sum()), len(drawn), rare).pvalue > FALSE_ALARM


def test_what_is_shown_is_a_point_mass():
    shown = Shown(np.array([0.0, 1.0]))
    assert np.array_equal(np.exp(shown.log_prob(POINTS)), [0, 1, 0, 0])
    assert np.array_equal(shown.sample(jax.random.key(0), (3,)), np.tile([0, 1], (3, 1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Masking(np.zeros(2), 0), "num_levels is 0; expected a whole number, 1 or more, or None"),
        (lambda: Masking(np.zeros(2), 2, 1), "num_values is 1; expected a whole number, 2 or more"),
        (lambda: Masking(np.zeros((2, 2)), 2), r"x has shape \(2, 2\); expected the units of one point"),
        (lambda: Masking(np.zeros(2), 2, schedule="square"), "schedule is 'square'; known: linear, cosine"),
        (
            lambda: Unmasking(lambda z, s: z[:1], 2, 2).sample(jax.random.key(0)),
            r"logits of shape \(1,\); expected \(2, 2\)",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
