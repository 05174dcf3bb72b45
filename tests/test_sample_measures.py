"""Measures of samples against closed forms: Fréchet, kernel, inception score, coverage, modes, memorisation, distances."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import norm

import probgen as pg
from probgen.data.toys import TOYS
from probgen.evaluate.samples import distances, frechet, kernel, memorisation, modes, prdc
from probgen.evaluate.samples.inception_score import inception_score

GRID, RING = TOYS["grid_25"], TOYS["ring_8"]


def normals(seed, n, sd, mean=0.0):
    sd = np.atleast_1d(sd)
    return mean + sd * np.random.default_rng(seed).normal(size=(n, len(sd)))


# ---- Fréchet


def test_fid_of_normals_in_one_dimension_and_of_commuting_covariances():
    assert frechet.of_moments(1.0, 4.0, -0.5, 0.25) == pytest.approx(1.5**2 + 1.5**2, abs=1e-12)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    a, b = np.array([1.0, 2, 3, 0, 0.5, 7]), np.array([2.0, 2, 0, 0, 0.1, 1])
    found = frechet.of_moments(np.ones(6), turn * a @ turn.T, np.zeros(6), turn * b @ turn.T)
    assert found == pytest.approx(6 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), abs=1e-10)


def test_fid_of_features_is_that_of_their_moments():
    """Against eigenvalues of S^1/2 T S^1/2, for more rows than features; and in the order of arguments."""
    x, y = normals(0, 300, np.linspace(0.5, 2, 7), 0.3), normals(1, 400, np.ones(7))
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(values) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ t @ root)).sum()
    exact = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * trace
    assert frechet.fid(x, y).value == pytest.approx(exact, abs=1e-9)
    assert frechet.fid(y, x).value == pytest.approx(exact, abs=1e-9)
    assert frechet.of_moments(x.mean(0), s, y.mean(0), t) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("n", [3, 20, 64, 200])
def test_identical_sets_have_fid_zero_whatever_their_rank(n):
    x = normals(2, n, np.geomspace(1e-3, 30, 64))
    x[:, 5] = x[:, 6]
    assert 0 <= frechet.fid(x, x).value < 1e-9


def test_fid_is_exact_where_there_are_fewer_rows_than_features():
    """All in a plane of a space of 256 features, against the same rows in the plane alone."""
    plane = np.linalg.qr(np.random.default_rng(3).normal(size=(256, 40)))[0].T
    x, y = normals(4, 30, np.ones(40), 0.2), normals(5, 100, np.linspace(1, 2, 40))
    here = frechet.fid(x, y).value
    assert frechet.fid(x @ plane, y @ plane).value == pytest.approx(here, rel=1e-10)
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    assert here == pytest.approx(frechet.of_moments(x.mean(0), s, y.mean(0), t), rel=1e-6)


def test_bias_of_fid_is_what_it_is_on_average():
    """500 pairs of 200 and 400 normals in 4 dimensions: within 4.5 standard errors and the next order, 2 %."""
    sd = np.array([0.5, 1.0, 1.0, 2.0])
    found = [frechet.fid(normals(2 * i, 200, sd), normals(2 * i + 1, 400, sd)).value for i in range(500)]
    expected = frechet.bias(np.diag(sd**2), 200, 400)
    assert abs(np.mean(found) - expected) < 4.5 * np.std(found) / np.sqrt(500) + 0.02 * expected
    told = frechet.fid(normals(0, 200, sd), normals(1, 400, sd)).perfect
    assert told == pytest.approx(expected, rel=0.25)
    isotropic = frechet.bias(np.eye(8), 500, 500)
    assert isotropic == pytest.approx(8 * 2 / 500 + (64 + 8) / 4 * 2 / 499, rel=1e-12)


def test_error_of_fid_is_its_spread():
    """Two laws apart: the mean error within a fifth of the spread of 150 values."""
    found = [frechet.fid(normals(3 * i, 300, np.ones(5), 0.5), normals(3 * i + 1, 300, np.ones(5))) for i in range(150)]
    spread = np.std([m.value for m in found])
    assert np.mean([m.error for m in found]) == pytest.approx(spread, rel=0.2)


def test_fid_infinity_has_no_bias():
    found = [
        frechet.fid_infinity(normals(i, 400, np.ones(10), 0.2), normals(100 + i, 400, np.ones(10))) for i in range(40)
    ]
    raw = [frechet.fid(normals(i, 400, np.ones(10), 0.2), normals(100 + i, 400, np.ones(10))).value for i in range(40)]
    error = np.std([m.value for m in found]) / np.sqrt(40)
    assert abs(np.mean([m.value for m in found]) - 0.4) < 4.5 * error
    assert np.mean(raw) > 0.4 + 4.5 * error, "while FID itself is far above"
    with pytest.raises(ValueError, match="FID-infinity needs 40 rows or more of 10 features; the smaller set has 30"):
        frechet.fid_infinity(normals(0, 30, np.ones(10)), normals(1, 400, np.ones(10)))


# ---- kernel


def test_kid_of_zero_mean_normals():
    """3 |S - T|^2 / d^2, within 4.5 standard errors of 60 values; the error is no smaller than the spread, nor twice it."""
    a, b = np.array([1.0, 1.5, 0.5]), np.array([1.2, 0.8, 1.0])
    found = [kernel.kid(normals(2 * i, 300, a), normals(2 * i + 1, 200, b)) for i in range(60)]
    values = np.array([m.value for m in found])
    exact = 3 * np.sum((a**2 - b**2) ** 2) / 9
    assert abs(values.mean() - exact) < 4.5 * values.std() / np.sqrt(60)
    assert 0.8 < np.mean([m.error for m in found]) / values.std() < 1.8


def test_kid_is_a_u_statistic_by_hand():
    x, y = normals(0, 5, np.ones(2)), normals(1, 4, np.ones(2), 1.0)
    k = lambda a, b: (a @ b / 2 + 1) ** 3  # noqa: E731
    within = lambda z: np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])  # noqa: E731
    exact = within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert kernel.kid(x, y).value == pytest.approx(exact, abs=1e-10)
    whole = kernel.kid(x[:4], y, subsets=1, size=4)
    assert whole.value == pytest.approx(kernel.kid(x[:4], y).value, abs=1e-10)
    assert kernel.kid(x, y, subsets=20, size=3).error_kind == "standard deviation over subsets"


def test_kid_refuses_subsets_larger_than_the_sample():
    with pytest.raises(ValueError, match="subsets have size=1000 rows, but there are 50 samples and 80 rows of data"):
        kernel.kid(normals(0, 50, np.ones(2)), normals(1, 80, np.ones(2)), subsets=10)


# ---- inception score


@pytest.mark.parametrize("wrong", [0.0, 0.02, 0.3])
def test_inception_score_of_a_classifier_with_error(wrong):
    """Certain answers, wrong with probability e: exp(ln K - H) for probabilities, K for one-hot answers."""
    answers = np.full((10, 10), wrong / 9)
    np.fill_diagonal(answers, 1 - wrong)
    h = -(1 - wrong) * np.log(1 - wrong) - (wrong * np.log(wrong / 9) if wrong else 0)
    found = inception_score(np.tile(answers, (30, 1)), splits=1)
    assert found.value == pytest.approx(np.exp(np.log(10) - h), rel=1e-12)
    assert inception_score(np.tile(answers, (30, 1)), splits=5).value <= found.value + 1e-9


def test_inception_score_says_what_its_error_is_and_refuses_more_splits_than_rows():
    p = np.random.default_rng(0).dirichlet(np.full(10, 0.1), size=500)
    found = inception_score(p, reference=p)
    assert found.error == pytest.approx(found.more["spread"] / np.sqrt(10))
    assert found.perfect == pytest.approx(found.value)
    with pytest.raises(ValueError, match="splits is 10 and there are 8 rows"):
        inception_score(p[:8])
    with pytest.raises(ValueError, match="each row summing to 1"):
        inception_score(2 * p)


# ---- precision, recall, density, coverage


def test_coverage_and_density_of_equal_laws():
    """Of any law: 200 pairs of 60 samples and 90 rows of data, within 4.5 standard errors."""
    rng = np.random.default_rng(0)
    found = [prdc.prdc(rng.standard_cauchy((60, 2)), rng.standard_cauchy((90, 2)), k=4) for _ in range(200)]
    for word, exact in (("coverage", prdc.expected_coverage(90, 60, 4)), ("density", 1.0)):
        values = np.array([m[word].value for m in found])
        assert abs(values.mean() - exact) < 4.5 * values.std() / np.sqrt(200)
        assert found[0][word].perfect == exact
    assert prdc.expected_coverage(10**7, 10**7, 5) == pytest.approx(1 - 2**-5, abs=1e-6)
    assert prdc.expected_coverage(300, 200, 5) == pytest.approx(
        1 - np.prod([(300 - j) / (500 - j) for j in range(1, 6)])
    )


def test_precision_and_recall_by_hand_and_in_blocks(monkeypatch):
    monkeypatch.setattr(prdc, "BLOCK", 7)
    x, y = normals(0, 40, np.ones(2), 0.8), normals(1, 30, np.ones(2))
    apart = lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1)  # noqa: E731
    balls = lambda z: np.sort(apart(z, z), axis=1)[:, 3]  # noqa: E731
    found = prdc.prdc(x, y, k=3)
    assert found["precision"].value == (apart(x, y) <= balls(y)).any(1).mean()
    assert found["recall"].value == (apart(y, x) <= balls(x)).any(1).mean()
    assert found["density"].value == pytest.approx((apart(x, y) <= balls(y)).sum() / (3 * 40))
    assert found["coverage"].value == (apart(y, x).min(1) <= balls(y)).mean()


def test_duplicates_are_inside_their_balls_unless_strict():
    y = np.repeat(normals(0, 5, np.ones(3)) * 1e3, 6, axis=0)
    assert prdc.prdc(y, y, k=3)["precision"].value == 1
    assert prdc.prdc(y, y, k=3, strict=True)["precision"].value == 0
    with pytest.raises(ValueError, match="All 30 rows of data have the same features"):
        prdc.prdc(y, np.ones((30, 3)), k=3)
    with pytest.raises(ValueError, match="k is 30, and there are 30 samples"):
        prdc.prdc(y, y, k=30)


# ---- modes


@pytest.mark.parametrize(("toy", "count"), [(GRID, 25), (RING, 8)], ids=repr)
def test_modes_of_a_perfect_sampler(toy, count):
    found = [modes.modes(toy(2500, seed=i), toy.modes, toy.sd) for i in range(100)]
    assert found[0]["modes_reached"].value == found[0]["modes_kept"].value == count
    for word in ("high_quality", "modes_kl"):
        values = np.array([m[word].value for m in found])
        assert abs(values.mean() - found[0][word].perfect) < 4.5 * values.std() / 10
    assert found[0]["high_quality"].perfect == pytest.approx(1 - np.exp(-4.5), abs=1e-12)
    assert found[0]["modes_kl"].perfect == pytest.approx(count / 5000, rel=0.05), (
        "modes and one bin more: (K + 1 - 1) / 2n"
    )


def test_modes_tell_a_generator_that_reaches_all_of_them_badly():
    """25 of 25 modes, with 10 % high quality; and one that has 24 of 25 with hardly a sample in each."""
    good, noise = GRID(250, seed=0), np.random.default_rng(1).uniform(-5, 5, (2250, 2))
    found = modes.modes(np.concatenate([good, noise]), GRID.modes, GRID.sd)
    assert found["modes_reached"].value == 25
    assert found["high_quality"].value < 0.15
    assert found["modes_kl"].value > 1
    lopsided = np.concatenate([GRID.modes, np.tile(GRID.modes[:1], (975, 1))])
    told = modes.modes(lopsided, GRID.modes, GRID.sd)
    assert (told["modes_reached"].value, told["modes_kept"].value) == (25, 1)
    nowhere = modes.modes(np.full((50, 2), 1.0), GRID.modes, GRID.sd)
    assert nowhere["modes_reached"].value == nowhere["high_quality"].value == 0
    assert np.isfinite(nowhere["modes_kl"].value)


def test_floor_of_kl_over_classes():
    """(K - 1) / 2n for 1000 classes, and more where shares differ; exactly for few draws: a fair coin tossed twice."""
    assert modes.expected_kl(np.full(1000, 1e-3), 26_000) == pytest.approx(999 / 52_000, rel=0.02)
    assert modes.expected_kl(np.array([0.5, 0.5]), 2) == pytest.approx(0.5 * np.log(2))
    labels = np.random.default_rng(0).integers(1000, size=26_000)
    found = modes.classes(labels, 1000)
    assert abs(found["modes_kl"].value - found["modes_kl"].perfect) < 4.5 * 0.0009
    wrong = np.where(np.random.default_rng(1).random(26_000) < 0.0022, labels, 111)
    collapsed = modes.classes(wrong, 1000)
    assert collapsed["modes_reached"].value > 20, "a collapsed generator, seen through a classifier that errs"
    assert collapsed["modes_kept"].value == 1
    assert collapsed["modes_reached"].more["with_five"] == 1


def test_shares_of_stacked_digits_are_products():
    digits = np.random.default_rng(0).choice(3, size=(3000, 2), p=[0.5, 0.3, 0.2])
    shares, noise = modes.shares_of(digits @ [3, 1], 9, 2)
    assert abs(shares - np.outer([0.5, 0.3, 0.2], [0.5, 0.3, 0.2]).ravel()).max() < 0.02
    assert noise == pytest.approx(2 * 2 / 12_000)


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e6, 1e9])
def test_kid_far_from_zero_is_that_of_exact_arithmetic(mean):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)) + mean, 1.2 * rng.normal(size=(15, 3)) + mean

    def k(a, b):
        return (sum(Fraction(float(s)) * Fraction(float(t)) for s, t in zip(a, b, strict=True)) / 3 + 1) ** 3

    def within(z):
        pairs = [k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
        return sum(pairs) / len(pairs)

    value = within(x) + within(y) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    found = kernel.kid(x, y)
    assert found.value == pytest.approx(float(value), rel=1e-10)
    left_out = [kernel.kid(np.delete(x, i, 0), y).value for i in range(20)]
    right_out = [kernel.kid(x, np.delete(y, i, 0)).value for i in range(15)]
    jackknife = np.sqrt(19 * np.var(left_out) + 14 * np.var(right_out))
    assert found.error == pytest.approx(jackknife, rel=1e-8)


@pytest.mark.parametrize(("scale", "told"), [(1e6, "sixth power"), (1e-4, "squared distance of means"), (1.0, "")])
def test_kid_on_a_scale_of_its_own_is_told(scale, told):
    rng = np.random.default_rng(0)
    found = pg.evaluate(scale * rng.normal(size=(60, 3)), data=scale * rng.normal(size=(70, 3)), measures="kid")
    assert (told in "".join(found.notes)) if told else not found.notes


def test_kid_of_features_that_overflow_is_refused():
    with pytest.raises(ValueError, match="KID is of their sixth power"):
        kernel.kid(1e52 * np.ones((4, 2)), np.ones((4, 2)))


# ---- memorisation


def test_nearness_tells_copies_and_is_calibrated():
    train, held = GRID(1500, seed=0), GRID(400, seed=1)
    fresh = [memorisation.memorisation(GRID(400, seed=2 + i), train, held) for i in range(60)]
    again = [
        memorisation.memorisation(GRID(400, seed=200 + i), GRID(300, seed=400 + i), GRID(400, seed=600 + i))
        for i in range(150)
    ]
    for word in ("nearness", "memorisation"):
        p = np.array([found[word].more["p_value"] for found in again])
        assert np.mean(p < 0.1) < 0.1 + 4.5 * np.sqrt(0.09 / 150), word
        assert np.mean(p < 0.5) > 0.5 - 4.5 * np.sqrt(0.25 / 150), word
        assert min(found[word].more["p_value"] for found in fresh) > 1e-6, word
    copies = memorisation.memorisation(train[:400], train, held)
    assert copies["nearness"].value > 0.99
    assert copies["nearness"].more["p_value"] < 1e-50
    assert copies["memorisation"].value == pytest.approx(1)
    assert copies["memorisation"].more["p_value"] < 1e-10
    assert copies["copies"].value == 1
    near = memorisation.memorisation(train[:400] + 1e-4, train, held)
    assert near["nearness"].value > 0.9
    assert near["memorisation"].value > 0.9
    assert near["copies"].value == 0
    assert near["very_close"].value > 10 * near["very_close"].perfect
    without = memorisation.memorisation(train[:400] + 1e-3, train)
    assert without["nearness"].value > 0.9
    assert "approximate" in without["nearness"].kind
    assert without["memorisation"].value > 0.9
    assert "rough" in without["memorisation"].kind, "without held-out rows nothing tells copies from narrow draws"
    off = memorisation.memorisation(train[:400] + 1.0, train, held)
    assert off["nearness"].value < 0.1
    assert off["memorisation"].more["p_value"] > 0.001


@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_narrow_draws_are_no_copies_and_copies_among_wild_draws_are(mean):
    rng = np.random.default_rng(3)
    train, held, narrow = rng.normal(size=(1000, 4)), rng.normal(size=(500, 4)), 0.4 * rng.normal(size=(800, 4))
    found = memorisation.memorisation(narrow + mean, train + mean, held + mean)
    assert found["nearness"].more["p_value"] < 1e-6, "narrow draws are nearer to rows than rows are"
    assert abs(found["memorisation"].value) < 4 * found["memorisation"].error
    half = np.concatenate([train[:400] + 0.01, 2.5 * rng.normal(size=(400, 4))])
    found = memorisation.memorisation(half + mean, train + mean, held + mean)
    assert found["nearness"].value < 0.6, "the one half hides the other"
    assert abs(found["memorisation"].value - 0.5) < 4 * found["memorisation"].error
    assert found["memorisation"].more["p_value"] < 1e-4


# ---- distances


@pytest.mark.parametrize(("shift", "sd"), [(0.7, 1.0), (0.0, 1.8), (-0.4, 0.5)])
def test_distances_of_normals_and_of_their_densities(shift, sd):
    exact = distances.of_normals(0, 1, shift, sd)
    grid = distances.of_densities(norm.logpdf, lambda x: norm.logpdf(x, shift, sd), -20, 20, 20_000)
    for word in ("tv", "kl", "kl_reversed", "js", "w1"):
        assert grid[word].value == pytest.approx(exact[word].value, abs=3e-6), word
    assert exact["w2"].value == pytest.approx(np.hypot(shift, sd - 1))


def test_closed_forms_that_are_known():
    assert distances.of_normals(0, 1, 0.7, 1)["tv"].value == pytest.approx(2 * norm.cdf(0.35) - 1, abs=1e-12)
    assert distances.of_normals(0, 1, 0.7, 1)["kl"].value == pytest.approx(0.245, abs=1e-12)
    assert distances.of_normals(0, 1, 0, 1.8)["w1"].value == pytest.approx(0.8 * np.sqrt(2 / np.pi), abs=1e-12)
    assert distances.of_normals(0, 1, -2, 1)["w1"].value == pytest.approx(2, abs=1e-12)
    with pytest.raises(ValueError, match=r"The mass of q in the box is 0\.\d+; it must be 1"):
        distances.of_densities(norm.logpdf, lambda x: norm.logpdf(x, 7), -8, 8)


def test_transport_by_sorting_is_named_root_or_power():
    x, y = normals(0, 301, 1.0), normals(1, 301, 2.0)
    by_hand = abs(np.sort(x[:, 0]) - np.sort(y[:, 0]))
    assert distances.wasserstein(x, y).value == pytest.approx(by_hand.mean(), abs=1e-12)
    assert distances.wasserstein(x, y, 2).value == pytest.approx(np.sqrt((by_hand**2).mean()), abs=1e-12)
    assert distances.transport_cost(x, y, 2).value == pytest.approx((by_hand**2).mean(), abs=1e-12)
    assert distances.wasserstein(x, x + 0.3, 2).value == pytest.approx(0.3)
    large = distances.wasserstein(normals(2, 40_000, 1.0), normals(3, 30_000, 1.8)).value
    assert large == pytest.approx(0.8 * np.sqrt(2 / np.pi), abs=0.03)
    assert "root" in distances.wasserstein(x, y).kind
    assert "power" in distances.transport_cost(x, y).kind


def test_entropic_costs_by_name():
    """Two points a side by enumeration of plans; as epsilon goes to 0 the exact cost; the divergence of a set and itself is 0."""
    x, y, epsilon = np.array([[0.0], [1.0]]), np.array([[0.2], [1.5]]), 0.3
    p = np.linspace(0, 0.5, 200_001)[1:-1]
    plan = np.stack([p, 0.5 - p, 0.5 - p, p])
    cost = plan.T @ ((x - y.T) ** 2).ravel()
    objective = cost + epsilon * (plan * np.log(4 * plan)).sum(0)
    best = objective.argmin()
    assert distances.entropic_objective(x, y, epsilon).value == pytest.approx(objective[best], abs=1e-8)
    assert distances.entropic_cost(x, y, epsilon).value == pytest.approx(cost[best], abs=1e-4)
    assert distances.sinkhorn_divergence(x, x, epsilon).value == pytest.approx(0, abs=1e-12)
    a, b = normals(0, 60, np.ones(2)), normals(1, 60, np.ones(2), 2.0)
    exact = distances.transport_cost(a, b).value
    assert distances.sinkhorn_divergence(a, b, 0.1).value == pytest.approx(exact, rel=0.02)
    assert distances.entropic_cost(a, b, 0.1).value > exact
    with pytest.raises(ValueError, match="have not settled"):
        distances.entropic_cost(a[:9], 100 * b[:8], 1e-4)
