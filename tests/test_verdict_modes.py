"""A mode that holds mass and that no draw came near is named: of guides, of points and of samplers, on both engines."""

import functools
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen import catalog
from probgen.diagnostics import search
from probgen.fits.fit import Fit
from probgen.run import conditioned

fit = functools.partial(pg.fit, progress=False)


def humps(centres, weights):
    """Normal humps of sd 1 with these centres and weights, beside a standard normal."""
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(centres, 1.0)))
    numpyro.sample("z", dist.Normal(0.0, 1.0))


def of(centres, weights):
    return {"centres": np.array(centres, float), "weights": np.array(weights, float)}


def bounded(at):
    t = numpyro.sample("t", dist.Uniform(0.0, 1.0))
    numpyro.factor("humps", jnp.logaddexp(*(-0.5 * ((t - at[i]) / 0.02) ** 2 for i in range(2))))


def labels(y):
    """A mixture whose components can change places."""
    m = numpyro.sample("m", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(jnp.full(2, 0.5)), dist.Normal(m, 1.0)), obs=y)


TWO, THREE, ONE = of([-20, 20], [0.3, 0.7]), of([0, 60, 200], [0.3, 0.3, 0.4]), of([5], [1.0])
Y = np.r_[np.random.default_rng(1).normal(-4, 1, 15), np.random.default_rng(2).normal(4, 1, 15)]


@pytest.mark.parametrize("guide", ["laplace", "mean_field", "low_rank"])
def test_a_guide_of_one_hump_of_two_fails(guide):
    found = fit(humps, TWO, guide, **({} if guide == "laplace" else {"num_steps": 1500}))
    finding = found.diagnose()["modes"]
    here = 0.7 if found.draws["x"].mean() > 0 else 0.3
    assert finding.status == "fail"
    assert finding.value == pytest.approx(1 - here, abs=0.02)
    assert "x = " in finding.message


def test_a_guide_of_one_hump_of_three_fails_with_the_heaviest_share():
    """From uniform starts every climb ends in the hump at 0; prior draws and wide starts know of the others."""
    finding = fit(humps, THREE, "laplace").diagnose()["modes"]
    assert finding.status == "fail"
    assert finding.value == pytest.approx(0.4 / 0.7, abs=0.03)


def test_humps_in_a_bounded_support_are_found():
    finding = fit(bounded, {"at": np.array([0.1, 0.9])}, "laplace").diagnose()["modes"]
    assert finding.status == "fail"
    assert finding.value == pytest.approx(0.5, abs=0.03)


def test_labels_that_change_places_are_a_warning():
    finding = fit(labels, {"y": Y}, "laplace").diagnose()["modes"]
    assert finding.status == "warn"
    assert "symmetric" in finding.message
    assert "ordered" in finding.remedy


def test_a_guide_of_one_hump_of_one_passes():
    finding = fit(humps, ONE, "mean_field", num_steps=1500).diagnose()["modes"]
    assert finding.status == "pass"
    assert finding.value < 0.01


def test_a_point_at_a_lower_hump_fails_and_at_the_highest_passes():
    found = fit(humps, TWO, "map")
    value = found.draws["x"].item()
    other = replace(found, answer=dict(found.answer) | {"z": found.answer["z"] * np.array([-1.0, 1.0])})
    high, low = (found, other) if value > 0 else (other, found)
    assert high.diagnose()["modes"].status == "pass"
    finding = low.diagnose()["modes"]
    assert finding.status == "fail"
    assert finding.value == pytest.approx(np.log(7 / 3), abs=0.02)


def by_hand(data, inference, centres, seed=0, **records):
    """Independent draws of the humps with these centres alone, as the fit of a sampler: four chains of 500."""
    model, target = conditioned(humps, data)
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(4, 500, 2))
    z[..., 0] += rng.choice(centres, size=(4, 500))
    algorithm = catalog.inference(inference, {"num_warmup": 0, "num_samples": 500})
    lp = search.evaluator(target)(z.reshape(-1, 2))[0].reshape(4, 500)
    return Fit(model, target, algorithm, seed, "float64", {"z": z, "lp": lp} | records)


@pytest.mark.parametrize("inference", ["nuts", "random_walk", "ula", "tempering"])
def test_samplers_without_a_search_for_starts_are_checked_too(inference):
    """Draws of one hump, without the record of any start."""
    for centres, status, share in (([-20.0], "fail", 0.7), ([20.0], "fail", 0.3), ([-20.0, 20.0], "pass", 0.0)):
        finding = by_hand(TWO, inference, centres).diagnose()["modes"]
        assert finding.status == status
        assert finding.value == pytest.approx(share, abs=0.04)


def test_minibatch_densities_are_not_taken_for_densities():
    """The records of SGLD hold estimates from minibatches: what was visited is evaluated anew."""
    noisy = {"gradient_noise": np.zeros((4, 500))}
    found = by_hand(TWO, "nuts", [-20.0], **noisy)
    broken = replace(found, records=found.records | {"lp": found.records["lp"] + 1000.0})
    assert broken.diagnose()["modes"].value == pytest.approx(0.7, abs=0.04)


def test_the_search_is_made_once(monkeypatch):
    found = by_hand(ONE, "nuts", [5.0])
    first = found.diagnose()["modes"]
    monkeypatch.setattr(search, "climb", None)
    assert found.diagnose()["modes"] == first


def test_masses_hold_in_several_dimensions():
    """Two normals of five correlated unknowns, one of them with twice the sds: masses and not heights count."""

    def program(root):
        x = numpyro.sample("x", dist.Normal(0.0, 100.0).expand([5]).to_event(1))
        wide, narrow = (dist.MultivariateNormal(c, scale_tril=s * root) for c, s in ((-30.0, 2.0), (30.0, 1.0)))
        spread = dist.Normal(0.0, 100.0).log_prob(x).sum()
        numpyro.factor("f", jnp.logaddexp(wide.log_prob(x + 0 * root[0]), narrow.log_prob(x)) - spread)

    root = np.linalg.cholesky(0.5 * np.eye(5) + 0.5)
    finding = fit(program, {"root": root}, "laplace").diagnose()["modes"]
    assert finding.status == "fail"
    assert finding.value == pytest.approx(0.5, abs=0.05)


def test_climbs_end_at_the_top():
    """Of a quartic bowl and of a badly scaled normal, from far away."""
    scales = np.array([1e-3, 1.0, 1e3])
    starts = np.random.default_rng(0).uniform(-50, 50, (20, 3))
    for evaluate in (lambda z: ((-0.5 * ((z - 1) / scales) ** 2).sum(1), -(z - 1) / scales**2), _bowl):
        z, value, _ = search.climb(evaluate, starts)
        assert abs(value).max() < 0.01  # nats: a mass is then known to 1 %
        assert np.isfinite(z).all()


def _bowl(z):
    return -(z**4).sum(1), -4 * z**3


@needs_pyro
def test_guides_on_pyro_are_checked():
    pyro = pytest.importorskip("pyro")
    torch = pytest.importorskip("torch")

    def two(gap):
        x = pyro.sample("x", pyro.distributions.Normal(0.0, 100.0))
        pyro.factor("humps", torch.logaddexp(-0.5 * (x - gap) ** 2, -0.5 * (x + gap) ** 2))

    def one(gap):
        pyro.sample("x", pyro.distributions.Normal(gap, 1.0))

    gap = {"gap": np.array(20.0)}
    finding = fit(two, gap, "laplace").diagnose()["modes"]
    assert finding.status == "fail"
    assert finding.value == pytest.approx(0.5, abs=0.02)
    assert fit(two, gap, "map").diagnose()["modes"].status == "pass"
    assert fit(one, gap, "laplace").diagnose()["modes"].status == "pass"


def test_a_mode_of_bits_that_no_chain_reached_fails_with_its_share():
    """Chains that wander, but on one side of a barrier: R-hat sees nothing, the exact sum over all states does."""

    def bits(coupling):
        x = numpyro.sample("x", dist.Bernoulli(0.5).expand([8]).to_event(1))
        s = 2.0 * x - 1.0
        numpyro.factor("energy", coupling * (s[1:] * s[:-1]).sum() - 0.2 * s.sum())

    found = fit(bits, {"coupling": 2.5}, "gibbs", conditionals="evaluation", num_chains=16, num_samples=1000)
    low = [chain for chain in range(16) if found.z[chain].mean(axis=1).max() < 0.9][:4]
    assert len(low) == 4
    one_side = replace(found, records={k: v[low] for k, v in found.records.items()})
    finding = one_side.diagnose()["modes"]
    assert finding.status == "fail"
    states = 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1) - 1
    mass = np.exp(2.5 * (states[:, 1:] * states[:, :-1]).sum(1) - 0.2 * states.sum(1))
    missed = mass[states.sum(1) > 6].sum() / mass.sum()
    assert finding.value == pytest.approx(missed, abs=0.02)
    weak = fit(bits, {"coupling": 0.3}, "gibbs", conditionals="evaluation", num_samples=1000)
    assert weak.diagnose()["modes"].status == "pass"
