"""Chains of latents against closed forms: bounds of normal data with the exact denoiser, by quadrature, and a chain in full."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from scipy.stats import norm

from probgen.distributions.discretised_normal import DiscretisedNormal
from probgen.nets.diffusion.chains import Backward, Noised, early, levels
from probgen.nets.diffusion.denoiser import BEGUN, Mixed, Mixture, Normal
from probgen.nets.diffusion.observed import measured, observed
from probgen.nets.diffusion.schedules import Elucidated, Exploding, Levels, LinearLogSNR, linear_levels

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(3)  # exact for the squares that a KL of normals is made of
PAIRS = [(a, b, v * w) for a, v in zip(NODES, WEIGHTS, strict=True) for b, w in zip(NODES, WEIGHTS, strict=True)]
POINTS = np.array([0.3, -1.7, 1.1]), np.array([0.5, 0.01, 0.9])  # z and times
TOTAL = sum(w for *_, w in PAIRS)


def normal_chain(variance, num_levels, schedule, kind="beta", times=None, continuous=False):
    denoiser = Normal(schedule, jnp.zeros(1), jnp.eye(1) * variance)
    times = levels(schedule, num_levels) if times is None else times
    return Backward(denoiser, (1,), times, kind, continuous)


def bound(variance, chain):
    """-E[ELBO] of x ~ N(0, variance) by quadrature over x and the noise of every level, in nats."""
    schedule, times = chain.schedule, chain.times

    def one(x, e):
        q = Noised(jnp.array([x]), schedule, times)

        def at(index):
            z = schedule.noised(q.x, jnp.array([e]), times[index])
            point = q._at(jax.random.key(0), 0.0, 1.0, index)._replace(noise=jnp.array([e]), z=z)
            return chain.gap(q, point) / max(len(times) - 1, 1)

        first = schedule.noised(q.x, jnp.array([e]), times[0])
        last = -observed(*chain.last(first)).log_prob(q.x)
        return last + chain.end_gap(q) + jax.vmap(at)(jnp.arange(1, len(times))).sum()

    points = jnp.array([(a * np.sqrt(variance), b) for a, b, _ in PAIRS])
    values = jax.vmap(one)(points[:, 0], points[:, 1])
    return float(values @ np.array([w for *_, w in PAIRS]) / TOTAL)


def entropy(variance):
    return 0.5 * np.log(2 * np.pi * np.e * variance)


@pytest.mark.parametrize(("variance", "gap"), [(1.0, 0.0), (0.25, 0.001092), (0.01, 0.01959)])
def test_ddpm_bound_of_normal_data(variance, gap):
    with jax.enable_x64(True):
        chain = normal_chain(variance, 1000, linear_levels(1000))
        assert bound(variance, chain) - entropy(variance) == pytest.approx(gap, abs=2e-5)


@pytest.mark.parametrize("num_levels", [1, 4, 50])
def test_ddpm_is_exact_for_data_of_variance_one_with_any_number_of_levels(num_levels):
    with jax.enable_x64(True):
        schedule = linear_levels(num_levels) if num_levels > 1 else Levels(jnp.array([0.1]))
        assert bound(1.0, normal_chain(1.0, num_levels, schedule)) == pytest.approx(1.418939, abs=1e-6)


@pytest.mark.parametrize(("num_levels", "loss"), [(10, 15.72756), (100, 6.48569), (1000, 6.00624)])
def test_diffusion_loss_of_so_many_levels(num_levels, loss):
    """1/2 sum (SNR_s - SNR_t) mmse: what the KLs of bridges add up to where the step has the bridge's variance."""
    with jax.enable_x64(True):
        schedule = LinearLogSNR(13.3, -5.0)
        chain = normal_chain(0.25, 0, schedule, "bridge", jnp.linspace(0, 1, num_levels + 1))
        assert _gaps(chain, 0.25) == pytest.approx(loss, abs=2e-4)


def test_diffusion_loss_of_infinitely_many_levels():
    with jax.enable_x64(True):
        schedule = LinearLogSNR(13.3, -5.0)
        chain = normal_chain(0.25, 0, schedule, "bridge", jnp.array([0.0, 1.0]), continuous=True)
        nodes, weights = np.polynomial.legendre.leggauss(200)
        values = [_slope(chain, 0.25, float(t)) for t in 0.5 * (nodes + 1)]
        assert 0.5 * weights @ np.array(values) == pytest.approx(5.956015, abs=1e-5)


def saying(shares, spreads, clean):
    """Of one coordinate: components at -2 and 2, whatever is seen of the others."""
    said = jnp.concatenate([jnp.log(shares), jnp.array([-1.0, 1.0]), jnp.log(spreads) - BEGUN])[:, None]
    return Mixed(LinearLogSNR(clean, -14.0), lambda z, level: said)


def test_a_mixture_is_seen_by_bayes_rule():
    with jax.enable_x64(True):
        shares, spreads = jnp.array([0.3, 0.7]), jnp.array([0.5, 1.2])
        said = saying(shares, spreads, 3.0)
        exact = Mixture(said.schedule, shares, jnp.array([[-2.0], [2.0]]), spreads[:, None])
        told = jax.jit(jax.vmap(lambda z, t: [(*d(z[None], t), d.noise(z[None], t)) for d in (said, exact)]))(*POINTS)
        assert np.ravel(told[0]) == pytest.approx(np.ravel(told[1]), rel=1e-6)


def test_the_bound_of_a_mixture_is_its_entropy_wherever_the_noise_ends():
    """An equal mixture of N(+-2, .25): what a step of noise no longer tells of x, its law given the last level does."""
    with jax.enable_x64(True):
        denoiser = saying(jnp.ones(2) / 2, jnp.full(2, 0.5), 3.0)
        chain = Backward(denoiser, (1,), jnp.array([0.0, 1.0]), "bridge", continuous=True)
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
        x, e = (a.ravel() for a in np.meshgrid(2 + 0.5 * nodes, nodes, indexing="ij"))  # one side is as the other

        def fixed(x, e):
            q = Noised(x[None], denoiser.schedule, chain.times)
            return chain.end_gap(q) - observed(*chain.last(denoiser.schedule.noised(q.x, e[None], 0.0))).log_prob(q.x)

        def slope(x, e, time):
            q = Noised(x[None], denoiser.schedule, chain.times)
            return chain.gap(q, q._at(jax.random.key(0), time, 1.0, 1)._replace(noise=e[None]))

        def total(x, e):
            each = jax.vmap(slope, (None, None, 0))(x, e, 0.5 * (times + 1))
            return fixed(x, e) + 0.5 * shares @ each

        times, shares = np.polynomial.legendre.leggauss(60)
        assert float(weights @ jax.jit(jax.vmap(total))(x, e)) == pytest.approx(1.418845, abs=2e-5)


def test_what_noise_takes_of_a_mixture_sums_to_its_entropy():
    """h = 1/2 log 2 pi e - 1/2 int (1 / (1 + snr) - mmse) d snr (Guo et al. 2005), of an equal mixture of N(+-2, .25)."""
    with jax.enable_x64(True):
        one = jnp.ones((2, 1))
        said = Mixture(LinearLogSNR(14.0, -14.0), jnp.ones(2) / 2, 2 * jnp.array([[-1.0], [1.0]]), 0.5 * one)
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
        x, e = (a.ravel() for a in np.meshgrid(2 + 0.5 * nodes, nodes, indexing="ij"))  # one side is as the other

        def error(t):
            z = said.schedule.noised(x, e, t)
            return weights @ jax.vmap(lambda z: said(z[None], t).variance[0])(z)

        times, shares = np.polynomial.legendre.leggauss(60)
        times = np.append(0.5 * (times + 1), 0.5)
        found, snr = jax.jit(jax.vmap(error))(times), np.exp(14 - 28 * times)
        assert float(found[-1]) == pytest.approx(0.482114, abs=1e-6)
        total = 14 * shares @ ((1 / (1 + snr) - np.asarray(found)) * snr)[:-1]
        assert 0.5 * np.log(2 * np.pi * np.e) - 0.5 * total == pytest.approx(1.418845, abs=2e-5)


def test_a_mixture_cut_into_levels_is_the_mass_of_its_normals():
    means, scales, shares = np.array([-1.2, 0.1, 0.6]), np.array([0.01, 0.3, 2.0]), np.array([0.5, 0.3, 0.2])
    law = observed(*(jnp.asarray(a)[:, None] for a in (means, scales, np.log(shares))), whole=17)
    found = np.exp([float(law.log_prob(jnp.array([k]))) for k in range(17)])
    edges = np.concatenate([[-np.inf], (np.arange(16) + 0.5) / 8 - 1, [np.inf]])
    mass = np.diff(norm.cdf((edges[:, None] - means) / scales), axis=0) @ shares
    assert found == pytest.approx(mass, abs=1e-6)
    drawn = np.bincount(np.asarray(law.sample(jax.random.key(0), (20_000,))).astype(int).ravel(), minlength=17) / 20_000
    assert np.all(abs(drawn - mass) < 5 * np.sqrt(mass / 20_000) + 1e-6)  # a false alarm once in 100,000


def _gaps(chain, variance):
    def one(x, e):
        q = Noised(jnp.array([x]), chain.schedule, chain.times)

        def at(index):
            z = chain.schedule.noised(q.x, jnp.array([e]), chain.times[index])
            point = q._at(jax.random.key(0), 0.0, 1.0, index)._replace(noise=jnp.array([e]), z=z)
            return chain.gap(q, point) / (len(chain.times) - 1)

        return jax.vmap(at)(jnp.arange(1, len(chain.times))).sum()

    points = jnp.array([(a * np.sqrt(variance), b) for a, b, _ in PAIRS])
    return float(jax.vmap(one)(points[:, 0], points[:, 1]) @ np.array([w for *_, w in PAIRS]) / TOTAL)


def _slope(chain, variance, time):
    def one(x, e):
        q = Noised(jnp.array([x]), chain.schedule, chain.times)
        return chain.gap(q, q._at(jax.random.key(0), time, 1.0, 1)._replace(noise=jnp.array([e])))

    points = jnp.array([(a * np.sqrt(variance), b) for a, b, _ in PAIRS])
    return float(jax.vmap(one)(points[:, 0], points[:, 1]) @ np.array([w for *_, w in PAIRS]) / TOTAL)


@pytest.mark.parametrize("schedule", [linear_levels(6), LinearLogSNR()])
def test_a_random_level_stands_for_all(schedule):
    """The mean of the estimate over times is the whole sum: by quadrature over the time, level by level."""
    with jax.enable_x64(True):
        q = Noised(jnp.array([0.4]), schedule, levels(schedule, 6))
        count = 20_000
        times = (jnp.arange(count) + 0.5) / count
        drawn = jax.vmap(lambda u: q.lazily(jax.random.key(1), u)[1])(times)
        shares = np.bincount(np.asarray(drawn.index), np.asarray(drawn.weight), minlength=6)[1:] / count
        assert shares == pytest.approx(np.full(5, 0.2), abs=1e-3)


def test_early_times_have_the_density_that_their_weight_undoes():
    moved, weight = early(jnp.linspace(0, 1, 100_001), 0.01)
    assert float(moved[0]) == 0
    assert float(moved[-1]) == pytest.approx(1, abs=1e-5)
    for power in (0, 1, 2):
        assert float(jnp.mean(weight * moved**power)) == pytest.approx(1 / (power + 1), rel=1e-3)


def ddpm_in_full(x=None):
    z4 = numpyro.sample("z4", numpyro.distributions.Normal(0, end_scale()).expand([1]).to_event(1))
    mean, variance = FULL.step(z4, FULL.times[2], FULL.times[3])
    z3 = numpyro.sample("z3", numpyro.distributions.Normal(mean, jnp.sqrt(variance)).to_event(1))
    mean, variance = FULL.step(z3, FULL.times[1], FULL.times[2])
    z2 = numpyro.sample("z2", numpyro.distributions.Normal(mean, jnp.sqrt(variance)).to_event(1))
    mean, variance = FULL.step(z2, FULL.times[0], FULL.times[1])
    z1 = numpyro.sample("z1", numpyro.distributions.Normal(mean, jnp.sqrt(variance)).to_event(1))
    numpyro.sample("x", observed(*FULL.last(z1)), obs=x)


def end_scale():
    return FULL.end_scale


FULL = normal_chain(0.25, 4, linear_levels(4))


def test_a_chain_in_full_by_numpyro_has_the_bound_in_expectation():
    """A false alarm once in 3e6 of such tests: 5 standard errors."""
    x, count = jnp.array([0.7]), 20_000
    q = Noised(x, FULL.schedule, FULL.times)
    paths = q.sample(jax.random.key(0), (count,))

    def full(path):
        sites = {f"z{i + 1}": path[i] for i in range(4)}
        trace = handlers.trace(handlers.substitute(ddpm_in_full, data=sites)).get_trace(x=x)
        return sum(site["fn"].log_prob(site["value"]) for site in trace.values()) - q.log_prob(path)

    ours = jax.vmap(lambda key: _elbo(q, FULL, key))(jax.random.split(jax.random.key(1), count))
    theirs = jax.vmap(full)(paths)
    apart = float(jnp.mean(ours) - jnp.mean(theirs))
    error = float(jnp.sqrt((jnp.var(ours) + jnp.var(theirs)) / count))
    assert abs(apart) < 5 * error
    assert error < 0.02


def _elbo(q, chain, key):
    first, at = q.lazily(key)
    return observed(*chain.last(first)).log_prob(q.x) - chain.end_gap(q) - chain.gap(q, at)


@pytest.mark.parametrize("schedule", [linear_levels(5), LinearLogSNR(6.0, -4.0), Exploding(0.1, 10.0), Elucidated()])
def test_the_law_of_a_chain_is_that_of_its_marginals_and_bridges(schedule):
    """Forward draws have the marginal mean and variance at every level, within 5 standard errors; log_prob does either way."""
    times = levels(schedule, 5) if isinstance(schedule, Levels) else jnp.linspace(0, 1, 5)
    x, count = jnp.array([0.6, -1.2]), 20_000
    q = Noised(x, schedule, times)
    paths = np.asarray(q.sample(jax.random.key(0), (count,)))
    assert paths.shape == (count, 5, 2)
    alpha, sigma = jax.vmap(schedule.scales)(times)
    mean, scale = np.asarray(alpha[:, None] * x), np.asarray(sigma)[:, None]
    assert (abs(paths.mean(0) - mean) < 5 * scale / np.sqrt(count)).all()
    assert paths.std(0) / scale == pytest.approx(np.ones((5, 2)), abs=5 / np.sqrt(2 * count))
    forward = jax.scipy.stats.norm.logpdf(paths[:50, 0], mean[0], scale[0]).sum(-1)
    for i in range(4):
        ratio = float(alpha[i + 1] / alpha[i])
        spread = np.sqrt(float(sigma[i + 1]) ** 2 - ratio**2 * float(sigma[i]) ** 2)
        forward += jax.scipy.stats.norm.logpdf(paths[:50, i + 1], ratio * paths[:50, i], spread).sum(-1)
    assert np.asarray(jax.vmap(q.log_prob)(paths[:50])) == pytest.approx(np.asarray(forward), rel=1e-3, abs=5e-3)


def test_log_prob_of_a_backward_chain_is_that_of_its_draws():
    """E[exp(log q - log p)] under p is 1, as both are laws of a chain: within 5 standard errors."""
    chain = normal_chain(0.25, 3, linear_levels(3))
    q = Noised(jnp.array([0.3]), chain.schedule, chain.times)
    paths = chain.sample(jax.random.key(0), (20_000,))
    weights = np.exp(np.asarray(jax.vmap(lambda p: q.log_prob(p) - chain.log_prob(p))(paths)))
    assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(len(weights))


@pytest.mark.parametrize("loc", [-0.8, 0.2, 3.4, 7.9])
@pytest.mark.parametrize("scale", [0.02, 0.5, 4.0])
def test_a_discretised_normal_is_the_mass_of_a_normal(loc, scale):
    from scipy.stats import norm

    k = np.arange(8)
    with jax.enable_x64(True):
        ours = np.asarray(jax.vmap(DiscretisedNormal(loc, scale, 8).log_prob)(jnp.asarray(k)))
    low, high = np.where(k == 0, -np.inf, k - 0.5), np.where(k == 7, np.inf, k + 0.5)
    mass = norm.cdf(high, loc, scale) - norm.cdf(low, loc, scale)
    assert np.exp(ours) == pytest.approx(mass, abs=1e-12)
    assert np.exp(ours).sum() == pytest.approx(1.0)
    slopes = jax.vmap(jax.grad(lambda m, k: DiscretisedNormal(m, scale, 8).log_prob(k)), (None, 0))(loc, jnp.asarray(k))
    assert np.isfinite(slopes).all()


def test_measured_points_are_whole_numbers_or_reals():
    assert np.asarray(measured(jnp.array([0.0, 16.0]), 17)).tolist() == [-1, 1]
    assert observed(jnp.zeros(2), 0.01, whole=17).log_prob(jnp.array([8, 8])) == pytest.approx(0, abs=1e-5)


def test_bad_chains_are_refused():
    with pytest.raises(ValueError, match="num_levels is 0"):
        levels(LinearLogSNR(), 0)
    with pytest.raises(ValueError, match="known: beta, bridge"):
        normal_chain(1.0, 3, linear_levels(3), "gamma")


def test_chains_are_drawn_in_any_shape_inside_compiled_code():
    chain = normal_chain(0.25, 3, linear_levels(3))
    q = Noised(jnp.array([0.3]), chain.schedule, chain.times)
    for law in (chain, q):
        assert jax.jit(lambda key, law=law: law.sample(key, (2, 5)))(jax.random.key(0)).shape == (2, 5, 3, 1)
