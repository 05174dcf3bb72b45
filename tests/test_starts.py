"""Where chains begin: no spurious peaks, given values, draws of a fit, and a search where the usual starts are impossible."""

from __future__ import annotations

import numpy as np
import numpyro
import numpyro.distributions as nd
import pytest

import probgen as pg
from probgen import catalog, engine
from probgen.inference.mcmc import _start
from probgen.run import conditioned, starts

pyro = pytest.importorskip("pyro", reason="Pyro's side of starts")
import pyro.distributions as dist  # noqa: E402

Y = np.random.default_rng(0).normal(1.0, 1.0, 12)
SHORT = {"num_warmup": 30, "num_samples": 20, "num_chains": 3, "progress": False}
HITS = np.array([18, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7])


def numpyro_normal(y):
    m = numpyro.sample("m", nd.Normal(0, 1))
    s = numpyro.sample("s", nd.HalfNormal(1).expand([2]).to_event(1))
    numpyro.sample("y", nd.Normal(m, s[0] + s[1]), obs=y)


def pyro_normal(y):
    m = pyro.sample("m", dist.Normal(0, 1))
    s = pyro.sample("s", dist.HalfNormal(1).expand([2]).to_event(1))
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Normal(m, s[0] + s[1]), obs=y)


def pooled(at_bats, hits):
    m = numpyro.sample("m", nd.Uniform(0, 1))
    kappa = numpyro.sample("kappa", nd.Pareto(1, 1.5))
    with numpyro.plate("player", len(hits)):
        phi = numpyro.sample("phi", nd.Beta(m * kappa, (1 - m) * kappa))
        numpyro.sample("hits", nd.Binomial(at_bats, probs=phi), obs=hits)


PROGRAMS = pytest.mark.parametrize("program", [numpyro_normal, pyro_normal])


@pytest.mark.parametrize("seed", range(4))
def test_rounding_errors_of_a_density_are_no_peak(seed):
    fit = pg.fit(pooled, {"at_bats": 45, "hits": HITS}, seed=seed, num_warmup=200, num_samples=50, progress=False)
    assert fit.draws["kappa"].max() < 1e6  # at 1e15 a Beta's terms cancel to noise of hundreds of nats
    assert fit.starts["elbos"].max() < 0


def test_densities_that_change_with_the_last_bit_are_told():
    values = np.array([1.0, 2.0, 3.0, 4.0, -1e6, 1.0, 2.0 + 1e-9, 9.0, np.nan, -1e6 + 1e-4])
    assert list(_start._told(np, values)) == [True, True, False, False, True]


@PROGRAMS
def test_chains_begin_at_given_values(program):
    fit = pg.fit(program, {"y": Y}, init={"m": 10.0, "s": [0.5, 2.0]}, **SHORT)
    begun = fit.target.constrain(fit.starts["ends"])  # (chain, path, dim): where a chain is told to begin
    assert np.allclose(begun["m"], 10.0)
    assert np.allclose(begun["s"], [0.5, 2.0])
    each = pg.fit(program, {"y": Y}, init={"m": np.array([-1.0, 0.0, 1.0])}, **SHORT)
    begun = each.target.constrain(each.starts["ends"])
    assert np.allclose(begun["m"], [[-1.0] * 3, [0.0] * 3, [1.0] * 3])
    assert len(np.unique(begun["s"])) == 6  # what is not named begins elsewhere in every chain


@PROGRAMS
@pytest.mark.parametrize("inference", ["nuts", "random_walk", "mala", "hmc"])
def test_every_sampler_begins_there(program, inference):
    settings = catalog.inference(inference, {"num_chains": 2})
    _, target = conditioned(program, {"y": Y})
    begin = starts.given({"m": [3.0, -3.0]}, target, settings, 0)
    executor = engine.load(target.engine).Executor(settings, target, 0, 2)
    executor.init(starts.flat(begin))
    assert np.array_equal(executor.read("z"), begin["z"])


def test_guides_begin_at_no_value():
    with pytest.raises(TypeError, match="mean_field does not begin at values"):
        pg.fit(numpyro_normal, {"y": Y}, "mean_field", init={"m": 1.0})


def test_modes_are_climbed_from_given_values():
    def two(y):
        m = numpyro.sample("m", nd.Normal(0, 10))
        numpyro.factor("modes", -50 * (abs(m) - y) ** 2)

    left, right = (pg.fit(two, {"y": 3.0}, "map", init={"m": v}, progress=False).draws["m"] for v in (-2.5, 2.5))
    assert left.item() == pytest.approx(-3, abs=0.01)
    assert right.item() == pytest.approx(3, abs=0.01)


@PROGRAMS
def test_chains_go_on_from_a_fit_and_its_directory(program, tmp_path):
    first = pg.fit(
        program, {"y": Y}, num_samples=40, num_warmup=60, num_chains=2, progress=False, out=tmp_path / "first"
    )
    again = pg.fit(program, {"y": Y}, init=first, out=tmp_path / "again", **SHORT)
    begun = again.target.constrain(again.starts["ends"])["m"][:, 0]
    last, middle = first.draws["m"][:, -1], first.draws["m"][:, 19]
    assert np.allclose(begun, [last[0], last[1], middle[0]])
    loaded = pg.fit(program, {"y": Y}, init=tmp_path / "first", **SHORT) if program is numpyro_normal else again
    assert np.array_equal(loaded.z, again.z)


def test_killed_before_the_first_chunk_it_begins_there_again(tmp_path):
    whole = pg.fit(numpyro_normal, {"y": Y}, init={"m": 4.0}, out=tmp_path / "run", **SHORT)
    (tmp_path / "run" / "state.safetensors").unlink()
    assert np.array_equal(pg.resume(tmp_path / "run", numpyro_normal, progress=False).z, whole.z)


def test_gibbs_begins_at_given_bits():
    def chain(n):
        x = numpyro.sample("x", nd.Bernoulli(0.5).expand([n]).to_event(1))
        numpyro.factor("energy", 20.0 * (2 * x[1:] - 1) @ (2 * x[:-1] - 1))

    up = pg.fit(chain, {"n": 6}, "gibbs", init={"x": np.ones(6)}, **SHORT)
    down = pg.fit(chain, {"n": 6}, "gibbs", init={"x": np.zeros(6)}, **SHORT)
    assert up.draws["x"].min() == 1  # frozen: it stays where it begins
    assert down.draws["x"].max() == 0


def test_what_cannot_be_begun_at_is_told():
    fit = lambda init: pg.fit(numpyro_normal, {"y": Y}, init=init, **SHORT)  # noqa: E731
    with pytest.raises(TypeError, match=r"init names 'mm', which is no unknown. Did you mean 'm'\?"):
        fit({"mm": 1.0})
    with pytest.raises(ValueError, match=r"init of 's' has shape \(4,\); expected \(2,\), or \(3, 2\)"):
        fit({"s": np.ones(4)})
    with pytest.raises(ValueError, match=r"without a finite density: .*s"):
        fit({"s": [-1.0, 1.0]})
    with pytest.raises(TypeError, match="init is a int; expected values by site"):
        fit(3)


def numpyro_far(y):
    top = numpyro.sample("top", nd.Pareto(50.0, 1.0))
    numpyro.sample("y", nd.Uniform(0.0, top), obs=y)


def pyro_far(y):
    top = pyro.sample("top", dist.Pareto(50.0, 1.0))
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Uniform(0.0, top), obs=y)


@pytest.mark.parametrize("program", [numpyro_far, pyro_far])
def test_starts_are_searched_for(program):
    y = np.linspace(10.0, 900.0, 20)  # U(-2, 2) reaches a top of 370
    fit = pg.fit(program, {"y": y}, num_warmup=300, num_samples=300, num_chains=2, progress=False)
    top = fit.draws["top"]
    assert top.min() > 900
    assert np.median(top) == pytest.approx(900 * 2 ** (1 / 21), rel=0.02)  # p(top | y) is Pareto(900, 21)


def test_impossible_data_are_told_still():
    def never(y):
        numpyro.sample("y", nd.Uniform(0.0, numpyro.sample("top", nd.Uniform(0.0, 1.0))), obs=y)

    with pytest.raises(ValueError, match="No starting point with a finite log density"):
        pg.fit(never, {"y": np.array([0.5, 2.0])}, **SHORT)
