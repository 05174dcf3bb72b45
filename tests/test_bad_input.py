"""Bad input: one clear message that names the user's own words, before anything is compiled or written."""

import re

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen import catalog

X, Y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
GOOD = {"x": X, "y": Y}
COMPILED = []


@jax.monitoring.register_event_duration_secs_listener
def _count(event, duration, **_):
    if "backend_compile" in event:
        COMPILED.append(event)


def line(x, y=None, noise=1.0):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ slope, noise), obs=y)


def walled(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.factor("wall", jnp.where((y > mean**2).all(), 0.0, -jnp.inf))


def no_unknowns(y=None):
    numpyro.sample("y", dist.Normal(0.0, 1.0).expand([6]), obs=y)


def switch(y=None):
    on = numpyro.sample("on", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    numpyro.sample("y", dist.Normal(on, 1.0).expand([6]), obs=y)


def counting(y=None):
    count = numpyro.sample("count", dist.Poisson(3.0))
    numpyro.sample("y", dist.Normal(count, 1.0).expand([6]), obs=y)


def by_hand(x, y=None):
    return x


def with_value(index, value):
    changed = Y.copy()
    changed[index] = value
    return {"x": X, "y": changed}


def yes_or_no(y=None):
    logit = numpyro.sample("logit", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Bernoulli(logits=logit).expand([6]), obs=y)


CASES = {
    "labels out of range": (yes_or_no, {"y": np.array([0, 1, 2, 1, 0, 1])}, {}, ValueError, r"integers from 0 to 1; y\[2\] is 2"),
    "a NaN": (line, with_value(3, np.nan), {}, ValueError, r"Data 'y' has 1 value.*NaN or infinite.*y\[3\]"),
    "an infinity": (line, with_value(0, -np.inf), {}, ValueError, r"Data 'y' has 1 value.*y\[0\]"),
    "an empty array": (line, {"x": X, "y": []}, {}, ValueError, r"Data 'y' is empty"),
    "words": (line, {"x": X, "y": ["a"] * 6}, {}, ValueError, r"Data 'y' has dtype <U1; expected numbers"),
    "a ragged list": (line, {"x": [[1.0], [1.0, 2.0]], "y": Y}, {}, ValueError, r"'x' cannot be read as one array"),
    "a wrong shape": (line, {"x": X, "y": Y[:5]}, {}, ValueError, r"not run on this data \(x: \(6, 2\), y: \(5,\)\)"),
    "data too small": (line, {"x": X, "y": Y[:1]}, {}, ValueError, r"site 'y' has data of shape \(1,\).*shape \(6,\)"),
    "an unknown name": (line, {**GOOD, "yy": Y}, {}, TypeError, r"'yy' for line. Did you mean 'y'\?\nIt takes"),
    "missing data": (line, {"y": Y}, {}, TypeError, r"Missing data for line: x"),
    "a list for a mapping": (line, [X, Y], {}, TypeError, r"data is a list; expected a mapping"),
    "an unknown inference": (line, GOOD, {"inference": "nutz"}, ValueError, r"inference 'nutz'. Did you mean 'nuts'"),
    "an algorithm of others": (line, GOOD, {"inference": "Stein-VI"}, ValueError, r"'Stein-VI'. Nearest: 'neural_spline', a guide"),
    "a sampler of others": (line, GOOD, {"inference": numpyro.infer.DiscreteHMCGibbs}, TypeError, r"name.*Nearest: 'gibbs'"),
    "no inference": (line, GOOD, {"inference": 3}, TypeError, r"inference is a int; expected a name or a settings"),
    "an unknown setting": (line, GOOD, {"num_sample": 9}, TypeError, r"'num_sample' of nuts. Did you mean 'num_s"),
    "a setting of others": (line, GOOD, {"draws": 9}, TypeError, r"'draws' of nuts. Did you mean 'num_samples'"),
    "a setting of fit": (line, GOOD, {"random_seed": 9}, TypeError, r"'random_seed' of nuts. Did you mean 'seed'"),
    "an optimiser": (line, GOOD, {"inference": "svi", "optim": 9}, TypeError, r"'optim' of svi. It learns by Adam"),
    "negative draws": (line, GOOD, {"num_samples": -5}, ValueError, r"num_samples is -5; it must be above 0"),
    "no chains": (line, GOOD, {"num_chains": 0}, ValueError, r"num_chains is 0; it must be above 0"),
    "negative warm-up": (line, GOOD, {"num_warmup": -1}, ValueError, r"num_warmup is -1; it must be 0 or more"),
    "an unknown precision": (line, GOOD, {"precision": "half"}, ValueError, r"precision is 'half'; known: float32"),
    "an unknown engine": (line, GOOD, {"engine": "stan"}, ValueError, r"Unknown engine 'stan'. Known: numpyro, pyro"),
    "no engine": (by_hand, GOOD, {}, ValueError, r"'by_hand' uses neither numpyro nor pyro; say which"),
    "no program": (3, GOOD, {}, TypeError, r"Got a int; expected a program, a Model or a name"),
    "an unknown model": ("eight_scools", None, {}, ValueError, r"model 'eight_scools'. Did you mean 'eight_schools'"),
    "no unknowns": (no_unknowns, {"y": Y}, {}, pg.Incompatible, r"offers Simulable. It has no unknowns"),
    "endless unknowns": (counting, {"y": Y}, {}, ValueError, r"'count' \(Poisson\) is discrete and cannot be enum"),
}  # fmt: skip


def test_the_nearest_algorithms_are_there():
    known = {*catalog.modules("probgen.inference"), "renyi"}
    words = {word for hint in catalog.NEAREST.values() for word in re.findall(r"'(\w+)'", hint)}
    assert words - known == set()
    assert not known & set(catalog.NEAREST)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_before_anything_compiles(case, tmp_path):
    program, data, keywords, kind, message = CASES[case]
    with jax.enable_x64(True):
        jax.random.key(0)  # JAX compiles the making of a key, once a process
    COMPILED.clear()
    with pytest.raises(kind, match=f"(?s){message}"):
        pg.fit(program, data, out=tmp_path / "run", **keywords)
    assert not COMPILED
    assert not (tmp_path / "run").exists()


def test_an_algorithm_that_cannot_take_a_program_is_refused_with_one_that_can():
    with pytest.raises(
        pg.Incompatible, match=r"(?s)nuts needs a Continuous target.*offers Discrete.*inference='gibbs'"
    ):
        pg.fit(switch, {"y": Y}, "nuts")


def test_an_impossible_start_names_the_site_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)No starting point with a finite log density.*wall \(-inf\).*support"):
        pg.fit(walled, {"y": Y - 3}, "hmc", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_kept(tmp_path):
    settings = {"inference": "hmc", "num_samples": 10, "num_chains": 1, "out": tmp_path / "run"}
    fit = pg.fit(line, GOOD, **settings)
    with pytest.raises(FileExistsError, match=r"holds a run already. Go on with pg.resume\(.*overwrite=True"):
        pg.fit(line, GOOD, seed=1, **settings)
    assert np.array_equal(pg.load(tmp_path / "run").z, fit.z)
    other = pg.fit(line, GOOD, seed=1, overwrite=True, **settings)
    assert np.array_equal(pg.load(tmp_path / "run").z, other.z)
    assert not np.array_equal(other.z, fit.z)


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_holds_no_run_is_never_removed(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds no run; choose another directory"):
        pg.fit(line, GOOD, out=tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_there_is_nothing_to_resume(tmp_path):
    for word in (pg.resume, pg.load):
        with pytest.raises(FileNotFoundError, match="holds no run"):
            word(tmp_path / "nowhere")


@needs_pyro
def test_pyro_data_are_checked_as_well(tmp_path):
    with pytest.raises(ValueError, match=r"Data 'y' has 1 value.*y\[0\]"):
        pg.fit("eight_schools_pyro", {"sigma": np.ones(8), "y": [np.inf] + 7 * [1.0]}, out=tmp_path / "run")
    with pytest.raises(TypeError, match="Missing data for eight_schools_pyro: sigma"):
        pg.fit("eight_schools_pyro", {"y": np.ones(8)}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
