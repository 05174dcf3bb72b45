"""Kernel density: against scikit-learn's, its own draws, and cross-validation by scikit-learn's grid search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity as Peer

import probgen as pg
from probgen import runtime
from probgen.models.density.kernel_density import BLOCK, KERNELS, KernelDensity, radii


def centres(count, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)) + 3


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("count", "dim"), [(40, 1), (2 * BLOCK + 9, 3), (1, 5)])
def test_the_density_is_scikit_learns(kernel, count, dim):
    """At the centres themselves, near them and far away; more centres than one block, and not a multiple."""
    c, h = centres(count, dim), 0.8
    x = np.concatenate([c[:20], c[:20] + 0.3, centres(30, dim, seed=1), np.full((1, dim), 9.0)])
    with runtime.jax_scope("float64"):
        found = KernelDensity(jnp.asarray(c), h, kernel).log_prob(jnp.asarray(x))
    peer = Peer(kernel=kernel, bandwidth=h, leaf_size=5000).fit(
        c
    )  # one leaf: its sums over many are off by 0.008 nats far away
    np.testing.assert_allclose(found, peer.score_samples(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_density_integrates_to_one_in_the_plane(kernel):
    """scikit-learn's cosine does not, and the others agree with it."""
    c = centres(5, 2)
    side = np.linspace(-17, 23, 801)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    found = KernelDensity(jnp.asarray(c, "float32"), 0.8, kernel).log_prob(jnp.asarray(grid, "float32"))
    cell = (side[1] - side[0]) ** 2
    assert np.exp(np.asarray(found, float)).sum() * cell == pytest.approx(1, abs=5e-3)
    peer = np.exp(Peer(kernel=kernel, bandwidth=0.8).fit(c).score_samples(grid)).sum() * cell
    assert peer == pytest.approx(0.363 if kernel == "cosine" else 1, abs=5e-3)


@pytest.mark.parametrize("dim", [1, 4])
@pytest.mark.parametrize("kernel", KERNELS[1:])
def test_draws_of_the_kernel_have_its_radii(kernel, dim):
    """The distribution function of |u| by quadrature of r^(d-1) k(r); a false alarm once in 10^4."""
    k = {
        "tophat": lambda r: 1.0 * (r < 1),
        "epanechnikov": lambda r: np.maximum(1 - r**2, 0),
        "exponential": lambda r: np.exp(-r),
        "linear": lambda r: np.maximum(1 - r, 0),
        "cosine": lambda r: np.cos(np.pi / 2 * np.minimum(r, 1)),
    }[kernel]
    grid = np.linspace(0, 60 if kernel == "exponential" else 1, 20_001)
    mass = scipy.integrate.cumulative_simpson(grid ** (dim - 1) * k(grid), x=grid, initial=0)
    r = np.asarray(radii(jax.random.key(dim), kernel, dim, (20_000,), "float32"), float)
    assert scipy.stats.kstest(r, lambda r: np.interp(r, grid, mass / mass[-1])).pvalue > 1e-4


@pytest.mark.parametrize("kernel", ["gaussian", "tophat", "exponential"])
def test_draws_have_the_moments_of_the_mixture(kernel):
    """Each coordinate's mean is the centres', its variance theirs and that of the kernel: isotropic draws around all centres."""
    c, h, n = centres(30, 2), 0.7, 20_000
    d = KernelDensity(jnp.asarray(c), h, kernel)
    drawn = np.asarray(jax.jit(lambda key: d.sample(key, (n,)))(jax.random.key(0)), float)
    r = np.asarray(radii(jax.random.key(1), kernel, 2, (n,), "float32"), float) if kernel != "gaussian" else np.sqrt(2)
    variance = c.var(0) + h**2 * np.mean(r**2) / 2
    np.testing.assert_allclose(drawn.mean(0), c.mean(0), atol=5 * np.sqrt(variance.max() / n))
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.06)
    assert abs(np.corrcoef(drawn.T)[0, 1] - np.cov(c.T, bias=True)[0, 1] / np.sqrt(variance.prod())) < 0.03


def folds(x, grid, kernel="gaussian"):
    return GridSearchCV(Peer(kernel=kernel), {"bandwidth": grid}, cv=5).fit(x)


def test_cross_validation_is_scikit_learns():
    """53 rows in five folds, some longer than others; the loss is a row's, the score of scikit-learn a fold's."""
    x, grid = centres(53, 2), np.logspace(-1, 0.5, 7)
    fit = pg.fit("kernel_density", {"x": x, "dim": 2}, "cross_validation", bandwidths=grid)
    peer = folds(x, grid)
    np.testing.assert_allclose(-fit.records["loss"][0] * 53 / 5, peer.cv_results_["mean_test_score"], rtol=1e-10)
    assert fit.parameters["bandwidth"] == pytest.approx(peer.best_params_["bandwidth"], rel=1e-12)
    np.testing.assert_allclose(fit.parameters["centres"], x, rtol=1e-12)
    assert fit.records["best"][0, -1] == pytest.approx(peer.best_params_["bandwidth"])
    assert not fit.records["edge"][0, -1]
    assert fit.complete
    assert fit.diagnose().status == "pass"
    new = centres(20, 2, seed=4)
    found = fit.log_prob(x=new)
    np.testing.assert_allclose(found.value, peer.best_estimator_.score_samples(new), atol=1e-8)
    assert (found.stderr, found.kind) == (0.0, "exact: the program is a probability")
    drawn = fit.sample(20_000, seed=1)["x"]
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.05)


def test_the_digits_have_the_bandwidth_of_scikit_learns_example():
    """Generating new digits: 15 principal components, 20 bandwidths, five folds; scikit-learn's answer is 3.79269."""
    x = PCA(n_components=15, whiten=False).fit_transform(load_digits().data)
    fit = pg.fit("kernel_density", {"x": x, "dim": 15}, "cross_validation", bandwidths=np.logspace(-1, 1, 20))
    assert round(float(fit.parameters["bandwidth"]), 5) == 3.79269
    peer = Peer(bandwidth=float(fit.parameters["bandwidth"])).fit(x)
    np.testing.assert_allclose(fit.log_prob().value, peer.score_samples(x), atol=1e-8)


def test_a_grid_follows_the_scale_of_the_data_where_none_is_given():
    """Twenty bandwidths around Scott's rule; data a hundred times as large have bandwidths a hundred times as large."""
    x = centres(200, 1)
    small, large = (pg.fit("kernel_density", {"x": s * x, "dim": 1}, "cross_validation") for s in (1, 100))
    grid = small.records["bandwidth"][0]
    assert len(grid) == 20
    assert np.sqrt(grid[0] * grid[-1]) == pytest.approx(x.std() * 200**-0.2)
    np.testing.assert_allclose(large.records["bandwidth"][0], 100 * grid)
    assert float(large.parameters["bandwidth"]) == pytest.approx(100 * float(small.parameters["bandwidth"]))
    assert 0.3 < float(small.parameters["bandwidth"]) / (x.std() * 200**-0.2) < 3


def test_a_best_bandwidth_at_the_edge_is_told():
    x = centres(60, 1)
    for grid in ((0.01, 0.02, 0.05), (5.0, 10.0, 20.0), (0.3,)):
        fit = pg.fit("kernel_density", {"x": x, "dim": 1}, "cross_validation", bandwidths=grid)
        assert fit.records["edge"][0, -1]


def test_other_kernels_leave_out_points_beyond_their_reach():
    """No bandwidth that leaves a held-out row without mass is chosen."""
    x, grid = centres(80, 1), [0.001, 0.5, 1.0, 2.0, 4.0]
    fit = pg.fit("kernel_density", {"x": x, "dim": 1, "kernel": "epanechnikov"}, "cross_validation", bandwidths=grid)
    assert fit.records["loss"][0, 0] == np.inf
    peer = Peer(kernel="epanechnikov", bandwidth=float(fit.parameters["bandwidth"])).fit(x)
    np.testing.assert_allclose(fit.log_prob().value, peer.score_samples(x), atol=1e-8)
    assert np.isfinite(fit.records["loss"].min())
    assert fit.parameters["bandwidth"] == pytest.approx(grid[int(fit.records["loss"][0].argmin())])


def test_a_run_is_kept_on_disk(tmp_path):
    data = {"x": centres(40, 2), "dim": 2}
    fit = pg.fit("kernel_density", data, "cross_validation", bandwidths=(0.3, 0.5, 0.9), out=tmp_path / "a")
    again = pg.load(tmp_path / "a")
    np.testing.assert_array_equal(again.parameters["centres"], fit.parameters["centres"])
    np.testing.assert_array_equal(again.log_prob().value, fit.log_prob().value)


def test_what_is_no_mixture_over_rows_is_refused():
    x = centres(20, 2)
    with pytest.raises(ValueError, match=r"equal mixture over rows .* loc: \(2,\), scale_tril"):
        pg.fit("gaussian", {"x": x, "dim": 2}, "cross_validation")
    with pytest.raises(ValueError, match="There are 3 rows; num_folds=5"):
        pg.fit("kernel_density", {"x": x[:3], "dim": 2}, "cross_validation")
    with pytest.raises(ValueError, match=r"bandwidths has -1\.0"):
        pg.fit("kernel_density", {"x": x, "dim": 2}, "cross_validation", bandwidths=[1, -1])
    with pytest.raises(ValueError, match="num_folds is 1"):
        pg.inference.CrossValidation(num_folds=1)
    with pytest.raises(ValueError, match="kernel is 'square'"):
        pg.fit("kernel_density", {"x": x, "dim": 2, "kernel": "square"}, "cross_validation")


def test_free_centres_are_learned_by_maximum_likelihood():
    """Four centres for four heaps of rows."""
    heaps = np.array([[2.0, 2], [-2, 2], [2, -2], [-2, -2]])
    x = (heaps[:, None] + 0.3 * np.random.default_rng(0).normal(size=(4, 100, 2))).reshape(-1, 2)
    data = {"x": x, "dim": 2, "num_centres": 4}
    fit = pg.fit("kernel_density", data, "mle", num_steps=1500, learning_rate=0.03, seed=2)
    found = fit.parameters["centres"]
    assert max(np.linalg.norm(found - heap, axis=1).min() for heap in heaps) < 0.15
    assert float(fit.parameters["bandwidth"]) == pytest.approx(0.3, abs=0.05)


def test_the_verdict_warns_where_the_best_bandwidth_is_at_the_edge_of_the_grid():
    x = np.random.default_rng(0).normal(size=(60, 1))
    verdicts = [
        pg.fit("kernel_density", x, "cross_validation", bandwidths=grid).diagnose()
        for grid in ((2.0, 4.0), (0.05, 0.4, 3.0))
    ]
    assert [verdict.status for verdict in verdicts] == ["warn", "pass"]
