"""Longer and thinner chains, and whole numbers in other types: bit for bit the run of the whole length, on disk too."""

from __future__ import annotations

import json

import numpy as np
import numpyro
import numpyro.distributions as nd
import pytest

import probgen as pg
from probgen import catalog
from probgen.cli.flags import _parse
from probgen.data import whole_numbers
from probgen.fits.seal import ChangedRun

pyro = pytest.importorskip("pyro", reason="Pyro's side of longer chains")
import pyro.distributions as dist  # noqa: E402

Y = np.random.default_rng(0).normal(1.0, 1.0, 12)
SHORT = {"num_warmup": 50, "num_chains": 2, "progress": False, "seed": 4}


def numpyro_normal(y):
    m = numpyro.sample("m", nd.Normal(0, 1))
    s = numpyro.sample("s", nd.HalfNormal(1))
    with numpyro.plate("obs", len(y)):
        numpyro.sample("y", nd.Normal(m, s), obs=y)


def pyro_normal(y):
    m = pyro.sample("m", dist.Normal(0, 1))
    s = pyro.sample("s", dist.HalfNormal(1))
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Normal(m, s), obs=y)


def numpyro_ising(n):
    x = numpyro.sample("x", nd.Bernoulli(0.5).expand([n]).to_event(1))
    numpyro.factor("energy", 0.4 * (x[1:] * x[:-1]).sum())


PROGRAMS = pytest.mark.parametrize("program", [numpyro_normal, pyro_normal])


@PROGRAMS
def test_a_fit_never_goes_on_in_the_run_of_another(program, tmp_path):
    words = {"inference": "random_walk", "num_samples": 30, "out": tmp_path / "run", "overwrite": True}
    one = pg.fit(program, {"y": Y}, **{**SHORT, **words})
    other = pg.fit(program, {"y": Y}, **{**SHORT, **words, "seed": 5})
    with pytest.raises(ValueError, match=r"holds another run than this fit(?s:.*)fit\.save keeps"):
        pg.extend(one, num_samples=20, progress=False)
    assert np.array_equal(pg.load(tmp_path / "run", program).z, other.z)
    assert pg.load(tmp_path / "run", program).complete


@PROGRAMS
@pytest.mark.parametrize("inference", ["nuts", "random_walk"])
def test_extended_as_the_whole_run(program, inference, tmp_path):
    whole = pg.fit(program, {"y": Y}, inference, num_samples=50, **SHORT)
    part = pg.fit(program, {"y": Y}, inference, num_samples=30, out=tmp_path / "run", **SHORT)
    longer = pg.extend(part, num_samples=20, progress=False)
    assert part.z.shape[1] == 30  # the old one stays
    for found in (longer, pg.load(tmp_path / "run", program)):
        assert found.complete
        assert found.inference.num_samples == 50
        assert all(np.array_equal(found.records[k], whole.records[k]) for k in whole.records)
    in_memory = pg.extend(pg.fit(program, {"y": Y}, inference, num_samples=30, **SHORT), num_samples=20)
    assert np.array_equal(in_memory.z, whole.z)


def test_extended_from_a_directory_and_killed_on_the_way(tmp_path):
    whole = pg.fit(numpyro_normal, {"y": Y}, num_samples=60, **SHORT)
    part = pg.fit(numpyro_normal, {"y": Y}, num_samples=20, out=tmp_path / "run", **SHORT)
    again = pg.extend(str(tmp_path / "run"), num_samples=20, program=numpyro_normal, progress=False)
    with pytest.raises(ValueError, match="at step 90, this fit at step 70"):
        pg.extend(part, num_samples=20)
    from probgen.run.longer import _longer, _rewrite
    from probgen.run.store import Store

    _rewrite(Store(tmp_path / "run"), again, _longer(again, 20, None))  # what is there when it is killed at once
    assert not pg.load(tmp_path / "run", numpyro_normal).complete
    assert np.array_equal(pg.resume(tmp_path / "run", numpyro_normal, progress=False).z, whole.z)


def test_a_changed_program_is_not_extended(tmp_path):
    def program(y):
        numpyro.sample("y", nd.Normal(numpyro.sample("m", nd.Normal(0, 1)), 1), obs=y)

    def other(y):
        numpyro.sample("y", nd.Normal(numpyro.sample("m", nd.Normal(0, 3)), 1), obs=y)

    pg.fit(program, {"y": Y}, num_samples=20, out=tmp_path / "run", **SHORT)
    with pytest.warns(UserWarning, match="changed since the run was begun"), pytest.raises(ChangedRun):
        pg.extend(tmp_path / "run", num_samples=20, program=other)


def test_learners_go_on_by_steps():
    whole = pg.fit(numpyro_normal, {"y": Y}, "mean_field", num_steps=300, progress=False)
    part = pg.fit(numpyro_normal, {"y": Y}, "mean_field", num_steps=200, progress=False)
    with pytest.raises(TypeError, match=r"pg.extend\(fit, num_steps=...\)"):
        pg.extend(part, num_samples=100)
    if part.complete and part.num_steps == 200:
        assert np.array_equal(pg.extend(part, num_steps=100).z, whole.z)
    done = pg.fit(numpyro_normal, {"y": Y}, "map", progress=False)
    with pytest.raises(ValueError, match="converged"):
        pg.extend(done, num_steps=5)


@PROGRAMS
@pytest.mark.parametrize("inference", ["nuts", "hmc"])
def test_thinned_draws_are_those_of_the_whole_chain(program, inference):
    whole = pg.fit(program, {"y": Y}, inference, num_samples=60, **SHORT)
    thin = pg.fit(program, {"y": Y}, inference, num_samples=20, thin=3, **SHORT)
    assert np.allclose(thin.z, whole.z[:, 2::3], rtol=1e-6)  # compiled apart, XLA rounds in another way
    steps, kept = (f.records["n_steps"][:, 50:].astype(int) for f in (whole, thin))
    assert np.array_equal(kept, steps.reshape(2, 20, 3).sum(2))
    assert np.array_equal(pg.extend(thin, num_samples=4).z[:, :20], thin.z)


@pytest.mark.parametrize(
    ("program", "data", "inference"), [(numpyro_normal, {"y": Y}, "mala"), (numpyro_ising, {"n": 6}, "gibbs")]
)
def test_the_former_word_for_thin_still_means_it(tmp_path, program, data, inference):
    """Of samplers whose step is so many transitions: as a keyword, and in run.json, where a run then goes on bit for bit."""
    fit = pg.fit(program, data, inference, num_samples=20, thin=3, out=tmp_path / "a", **SHORT)
    assert pg.fit(program, data, inference, num_samples=20, thinning=3, **SHORT).inference == fit.inference
    if inference == "mala":
        assert (fit.records["n_steps"] == 3).all()
    file = tmp_path / "a" / "run.json"
    record = json.loads(file.read_text())
    for settings, said in ((record["inference"]["settings"], int), (record["seal"]["settings"], str)):
        settings |= {"thin": said(1), "thinning": said(3)}
    file.write_text(json.dumps(record))
    old = pg.load(tmp_path / "a", program=program)
    assert old.inference == fit.inference
    whole = pg.fit(program, data, inference, num_samples=30, thin=3, **SHORT)
    assert np.array_equal(pg.extend(old, num_samples=10).z, whole.z)


def test_both_words_of_an_old_run_multiply_and_others_take_the_former_one_alone():
    assert catalog.inference("mala", {"thin": 2, "thinning": 20}).thin == 40
    assert catalog.inference("nuts", {"thinning": 4}).thin == 4
    with pytest.raises(TypeError, match="'thinning' of mean_field"):
        catalog.inference("mean_field", {"thinning": 4})


def test_whole_numbers_of_other_types():
    import jax

    base = pg.fit(numpyro_normal, {"y": Y}, num_samples=20, **SHORT)
    again = pg.fit(
        numpyro_normal, {"y": Y}, num_samples=20.0, **SHORT | {"seed": np.int32(4), "num_chains": np.int64(2)}
    )
    assert np.array_equal(base.z, again.z)
    assert again.inference == base.inference
    assert type(again.inference.num_chains) is int
    assert type(again.seed) is int
    for word, value, kind in (
        ("num_samples", 20.5, ValueError),
        ("num_samples", "20", TypeError),
        ("thin", 0, ValueError),
    ):
        with pytest.raises(kind, match=word):
            pg.fit(numpyro_normal, {"y": Y}, **{word: value})
    for seed in (jax.random.key(0), jax.random.PRNGKey(0), np.random.default_rng(0), None, True, "1", [1, 2]):
        with pytest.raises(TypeError, match=r"seed is .*whole number"):
            pg.fit(numpyro_normal, {"y": Y}, seed=seed)
    assert whole_numbers.seed(jax.numpy.int32(3)) == whole_numbers.seed(np.array(3)) == 3


@pytest.mark.parametrize("words", [["--thinning", "3"], ["--thinning=3"], ["--thin", "3"]])
def test_the_shell_knows_the_former_word(words):
    assert _parse(["fit", "two_normals", "--inference", "mala", *words]).thin == 3
