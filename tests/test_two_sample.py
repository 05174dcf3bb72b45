"""Distances of distributions: against SciPy, closed forms and enumeration; tests of two samples against their null."""

import itertools

import numpy as np
import pytest
import scipy.stats

from probgen.data.toys import two_moons
from probgen.evaluate import density, two_sample

# ---- tables


def test_divergences_of_tables_are_their_sums():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert two_sample.total_variation(p, q) == pytest.approx(0.5)
    assert two_sample.kl(p, q) == pytest.approx(np.log(2))
    assert two_sample.kl(q, p) == np.inf
    m = (p + q) / 2
    assert two_sample.js(p, q) == pytest.approx((scipy.stats.entropy(p, m) + scipy.stats.entropy(q, m)) / 2)
    assert two_sample.js(p, q) == two_sample.js(q, p)
    apart = np.eye(2)
    assert two_sample.js(*apart) == pytest.approx(np.log(2))
    assert two_sample.total_variation(*(100 * apart)) == 1
    assert (two_sample.kl(p, 7 * p), two_sample.js(p, p), two_sample.total_variation(p, p)) == (0, 0, 0)


@pytest.mark.parametrize("shift", [0.3, 1.0, 2.5])
def test_divergences_of_gaussians_on_a_grid_have_closed_forms(shift):
    edges = [np.linspace(-8, 10, 181)]
    p, q = (two_sample.masses(lambda x, m=m: scipy.stats.norm(m).logpdf(x[:, 0]), edges) for m in (0, shift))
    assert p.sum() == pytest.approx(1, abs=1e-9)
    assert two_sample.kl(p, q) == pytest.approx(shift**2 / 2, rel=2e-3)
    assert two_sample.total_variation(p, q) == pytest.approx(2 * scipy.stats.norm.cdf(shift / 2) - 1, rel=2e-3)
    draws = scipy.stats.norm.rvs(size=20_000, random_state=0)
    found = two_sample.kl_of_draws(scipy.stats.norm.logpdf(draws), scipy.stats.norm(shift).logpdf(draws))
    assert found.value == pytest.approx(shift**2 / 2, abs=4 * found.stderr)
    assert found.stderr == pytest.approx(shift / np.sqrt(20_000), rel=0.05)  # the log ratio has sd `shift`


def test_a_density_and_its_draws_have_the_same_masses():
    """In two dimensions; 20,000 draws in 400 cells: at most 0.08 by noise, half the cells wrong would give 0.5."""
    x = two_moons(20_000, seed=0)
    counts, _, edges = two_sample.histograms(x, x[:10], bins=20, limits=[(-4, 4), (-4, 4)])
    assert counts.shape == (20, 20)
    cells = two_sample.masses(two_moons.log_prob, edges)
    assert cells.sum() == pytest.approx(1, abs=1e-3)
    assert two_sample.total_variation(counts, cells) < 0.08
    assert two_sample.total_variation(counts, cells.T) > 0.2


# ---- transport


@pytest.mark.parametrize(("n", "m"), [(50, 50), (40, 70), (1, 9)])
def test_w1_by_sorting_is_scipys(n, m):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n).round(1), rng.gamma(2, size=m)  # with ties
    assert two_sample.wasserstein(x, y) == pytest.approx(scipy.stats.wasserstein_distance(x, y), rel=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_transport_by_sorting_and_by_assignment_is_the_best_of_all_couplings(order):
    rng = np.random.default_rng(0)
    for dim in (1, 2):
        x, y = rng.normal(size=(6, dim)), rng.normal(size=(6, dim))
        costs = np.linalg.norm(x[:, None] - y, axis=-1) ** order
        best = min(costs[np.arange(6), order_of].mean() for order_of in map(list, itertools.permutations(range(6))))
        assert two_sample.wasserstein(x, y, order) == pytest.approx(best ** (1 / order), rel=1e-12)


def test_transport_between_shifted_gaussians_is_the_shift():
    """W_r of a distribution and its copy moved by a vector is the vector's length, for every r; so it is of draws."""
    x = np.random.default_rng(0).normal(size=(300, 3))
    shift = np.array([1.0, -2.0, 2.0])
    for order in (1, 2):
        assert two_sample.wasserstein(x, x + shift, order) == pytest.approx(3.0, rel=1e-9)
    sliced = two_sample.sliced_wasserstein(x, x + shift, num_directions=4000)
    assert sliced.value == pytest.approx(
        1.5, abs=4 * sliced.stderr
    )  # |shift| E|u_1|, and |u_1| is uniform on [0, 1] in 3-d
    assert sliced.stderr == pytest.approx(3 / np.sqrt(12 * 4000), rel=0.1)
    sliced = two_sample.sliced_wasserstein(x, x + shift, order=2, num_directions=4000)
    assert sliced.value == pytest.approx(np.sqrt(3), abs=4 * sliced.stderr)
    a, b = (scipy.stats.norm.rvs(m, size=100_000, random_state=s) for s, m in ((0, 0.0), (1, 0.7)))
    assert two_sample.wasserstein(a, b) == pytest.approx(0.7, abs=0.02)
    assert two_sample.sliced_wasserstein(a, b) == (two_sample.wasserstein(a, b), 0.0, "exact")


# ---- tests of two samples

TESTS = pytest.mark.parametrize("test", [two_sample.mmd, two_sample.energy_distance])


@TESTS
def test_the_null_is_kept(test):
    """P-values of 200 pairs of sets of one distribution; uniformity is refused once in 10^4, a level of 0.1 for 0.05 always."""
    rng = np.random.default_rng(0)
    found = [test(rng.normal(size=(25, 2)), rng.normal(size=(40, 2)), num_permutations=99, seed=i) for i in range(200)]
    p = np.array([f.p_value for f in found]) - rng.random(200) / 100  # of the hundred values that it takes
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-4
    values = np.array([f.value for f in found])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(200)  # unbiased: zero on average


@TESTS
def test_the_statistic_is_the_double_sum_and_differences_are_seen(test):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(9, 3)) + 0.5
    kernel = (
        (lambda a, b: np.exp(-np.sum((a - b) ** 2) / 8))
        if test is two_sample.mmd
        else lambda a, b: -np.linalg.norm(a - b)
    )
    within = [np.mean([kernel(a, b) for a, b in itertools.permutations(z, 2)]) for z in (x, y)]
    expected = sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    settings = {"bandwidth": 2.0} if test is two_sample.mmd else {}
    assert test(x, y, **settings).value == pytest.approx(expected, rel=1e-10)
    large = rng.normal(size=(200, 2))
    assert test(large, rng.normal([0.6, 0], size=(200, 2))).p_value == pytest.approx(1 / 1001)
    assert test(large, 2 * rng.normal(size=(200, 2))).p_value == pytest.approx(1 / 1001)


def test_mmd_of_gaussians_has_a_closed_form():
    """E k(x, y) of N(m, 1) and N(0, 1) is sqrt(h^2 / (h^2 + 2)) exp(-m^2 / (2 (h^2 + 2)))."""
    rng = np.random.default_rng(2)
    values = [two_sample.mmd(rng.normal(size=100), rng.normal(size=100) + 1, 0.8, 1).value for _ in range(200)]
    overlap = lambda m: np.sqrt(0.64 / 2.64) * np.exp(-(m**2) / (2 * 2.64))  # noqa: E731
    assert np.mean(values) == pytest.approx(2 * overlap(0) - 2 * overlap(1), abs=4 * np.std(values) / np.sqrt(200))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: two_sample.mmd(x, x[:, :1]), "x has 2 dimensions, y 1"),
        (lambda x: two_sample.mmd(x, x[:1]), "two or more"),
        (lambda x: two_sample.mmd(x, np.where(x > 9, x, np.nan)), "y has NaN or infinite values, the first in draw 0"),
        (lambda x: two_sample.mmd(0 * x, 0 * x), "bandwidth is 0"),
        (lambda x: two_sample.mmd(np.zeros((9000, 1)), np.zeros((9000, 1))), "Thin them"),
        (lambda x: two_sample.wasserstein(x, x[:3]), "sliced_wasserstein"),
        (lambda x: two_sample.histograms(np.ones((5, 4)), np.ones((5, 4))), "at most 3"),
        (lambda x: two_sample.kl(x[0], x[0, :1]), r"p has shape \(2,\), q \(1,\)"),
        (lambda x: two_sample.js([-1, 2], [1, 1]), "p is no table"),
        (lambda x: density.transform([0.5, 3.0], scipy.stats.norm.logpdf, -1, 1), r"x lies in \[0.5, 3\]"),
        (lambda x: density.transform([0.5], scipy.stats.norm.logpdf, -1, 1), "mass in .* is 0.6827"),
        (lambda x: density.bits_per_dim(1.0, 0), "dim is 0"),
        (lambda x: density.transform_by_draws(x, x), r"x has shape \(10, 2\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.arange(20.0).reshape(10, 2) / 20 + 0.1)


# ---- densities


def test_the_transform_is_the_distribution_function():
    d = scipy.stats.t(5)
    x = d.rvs(size=500, random_state=0)
    found = density.transform(x, d.logpdf, -60, 60)
    np.testing.assert_allclose(found.u, d.cdf(x), atol=1e-6)
    assert found.statistic == pytest.approx(scipy.stats.kstest(x, d.cdf).statistic, abs=1e-4)
    assert found.p_value > 1e-3
    assert density.transform(x, scipy.stats.norm(0.4, 1.2).logpdf, -60, 60).p_value < 1e-6
    by_draws = density.transform_by_draws(x, d.rvs(size=20_000, random_state=1))
    np.testing.assert_allclose(by_draws.u, d.cdf(x), atol=0.02)
    assert by_draws.p_value > 1e-3
    assert density.transform_by_draws([1.0, 1, 3], [0.0, 1, 1, 2]).u.tolist() == [0.5, 0.5, 1.0]


def test_bits_per_dimension_say_how_data_were_dequantised():
    """A uniform density on [0, 1]^d is log2(256) = 8 bits; fair coins are 1 bit."""
    found = density.bits_per_dim(np.zeros(5), 12, levels=256)
    assert (found.value, found.stderr) == (8.0, 0.0)
    assert "dequantisation of 256 levels" in found.kind
    coins = density.bits_per_dim(-10 * np.log(2), 10)
    assert coins.value == pytest.approx(1)
    assert "no dequantisation" in coins.kind
    rows = np.log([0.5, 0.25])
    assert density.bits_per_dim(rows, 1)[:2] == pytest.approx((1.5, 0.5))
