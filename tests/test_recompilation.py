"""A second fit on data of the same shapes traces nothing: data are arguments of compiled code, not constants in it."""

import os
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import ENGINES, python
from numpyro.contrib.control_flow import scan

import probgen as pg
from probgen import catalog, runtime
from probgen.engine.numpyro.running import compiling, loops, mappings
from probgen.engine.numpyro.running.options import options
from probgen.engine.numpyro.targets.bounded import NumpyroBounded
from probgen.engine.numpyro.targets.paired import NumpyroGuided
from probgen.run import conditioned

RUNS = []  # one entry for each time that a program's body ran
Y, X = np.linspace(-1, 1, 30), np.linspace(0, 2, 30)


def numpyro_line(x, y=None):
    import numpyro
    import numpyro.distributions as dist

    RUNS.append("numpyro")
    slope = numpyro.sample("slope", dist.Normal(0.0, 10.0))
    with numpyro.plate("point", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, 0.1), obs=y)


def pyro_line(x, y=None):
    import pyro
    import pyro.distributions as dist

    RUNS.append("pyro")
    slope = pyro.sample("slope", dist.Normal(0.0, 10.0))
    with pyro.plate("point", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 0.1), obs=y)


PROGRAMS = {"numpyro": numpyro_line, "pyro": pyro_line}


def fitted(engine, inference="nuts", data=None, **settings):
    defaults = {"num_steps": 300} if inference == "mean_field" else {"num_samples": 100, "num_chains": 2}
    return pg.fit(PROGRAMS[engine], data or {"x": X, "y": Y}, inference, **{**defaults, **settings})


@pytest.mark.parametrize("inference", ["nuts", "mean_field"])
@pytest.mark.parametrize("engine", ENGINES)
def test_same_shapes_trace_nothing_and_the_new_data_count(engine, inference):
    fitted(engine, inference).draws  # noqa: B018
    RUNS.clear()
    fits = {slope: fitted(engine, inference, {"x": X, "y": slope * X}) for slope in (3, -5)}
    assert not RUNS
    for slope, fit in fits.items():
        assert fit.draws["slope"].mean() == pytest.approx(slope, abs=0.3)
    assert engine == "pyro" or not RUNS  # Pyro runs the program to transform draws, without compiling it


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("change", [{"num_samples": 33}, {"num_chains": 3}, {"seed": 5}], ids=str)
def test_settings_that_the_step_does_not_read_trace_nothing(engine, change):
    fitted(engine, "hmc")
    RUNS.clear()
    fitted(engine, "hmc", **change)
    assert not RUNS


@pytest.mark.parametrize("engine", ENGINES)
def test_other_shapes_do_trace(engine):
    """The counter counts: without this test, a broken one would pass the others."""
    RUNS.clear()
    fitted(engine, "hmc", {"x": X[:17], "y": Y[:17]})
    assert RUNS


def child(cache, *lines):
    """The words that a process of its own prints."""
    program = "\n".join([f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})", *lines])
    result = python("-c", program, env={**os.environ, "PROBGEN_CACHE": str(cache)})
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


FIT = (
    "import numpyro, test_recompilation as t, probgen as pg",
    "traced, step = [], pg.inference.NUTS.step",
    "pg.inference.NUTS.step = lambda *arguments: traced.append(1) or step(*arguments)",
    "fit = t.fitted('numpyro', data={'x': t.X, 'y': 3.0 * t.X})",
    "print(fit.draws['slope'].sum().hex(), bool(traced))",
)


def test_a_second_process_traces_no_kernel_and_draws_the_same(tmp_path):
    """Executables are kept between processes; an edited program and a broken file make new ones."""
    drawn, traced = child(tmp_path, *FIT)
    assert traced == "True"
    assert child(tmp_path, *FIT) == [drawn, "False"]
    kept = sorted((tmp_path / "executables").iterdir())
    assert len(kept) == 2
    for file in kept:
        file.write_bytes(file.read_bytes()[:1000])
    assert child(tmp_path, *FIT) == [drawn, "True"]
    edited = "t.PROGRAMS['numpyro'] = lambda x, y: (t.numpyro_line(x, y), numpyro.factor('more', 1.0))[0]"
    assert child(tmp_path, FIT[0], edited, *FIT[1:])[1] == "True"
    assert len(list((tmp_path / "executables").iterdir())) == 4


def test_kept_code_is_of_these_sources_of_engines_nets_and_algorithms():
    import probgen.inference.adversarial.gan as gan
    import probgen.inference.mcmc.nuts as nuts
    import probgen.nets.flows as flows
    from probgen.engine.numpyro.running import loops

    files = [file.resolve() for file in compiling._sources()]
    assert len(files) == len(set(files))
    for module in (gan, nuts, flows, loops):
        assert Path(module.__file__).resolve() in files, module.__name__


def test_compiled_code_is_forgotten_before_a_process_runs_out_of_mappings(monkeypatch):
    """At Linux's limit of mapped pieces of memory LLVM ends the process; a fit maps thousands."""
    if not mappings.used():
        pytest.skip("the system does not say what is mapped")
    settings = {"num_warmup": 20, "num_samples": 20, "num_chains": 1, "progress": False}
    first = pg.fit("eight_schools", **settings)
    before, code = mappings.used(), jax.jit(lambda x: x + 1)
    code(1.0)
    monkeypatch.setattr(mappings, "SHARE", 0.0)
    assert mappings.relieve(compiling._begun.cache_clear, compiling._density.cache_clear)
    assert mappings.used() < before
    assert (code._cache_size(), compiling._begun.cache_info().currsize) == (0, 0)
    np.testing.assert_array_equal(pg.fit("eight_schools", **settings).z, first.z)
    monkeypatch.setattr(mappings, "SHARE", 1.0)
    assert not mappings.relieve(lambda: pytest.fail("nothing need be forgotten"))


def one(x=None):
    z = numpyro.sample("z", dist.Normal(numpyro.param("m", 0.0), 1.0))
    numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def whole(x):
    z = numpyro.sample("z", dist.Normal(numpyro.param("m", 0.0), 1.0))
    with numpyro.plate("row", len(x)):
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.0), numpyro.param("s", 1.0)))


@pytest.mark.parametrize(("program", "by_row", "kind", "start"), [
    (one, True, NumpyroBounded, "initial"), (whole, False, NumpyroGuided, "_initial"),
])  # fmt: skip
def test_where_parameters_begin_is_traced_once(monkeypatch, program, by_row, kind, start):
    """Their shapes are asked for by preparing, by the key of compiled code, and by every use of a flat array of them."""
    traced, begin = [], getattr(kind, start)
    monkeypatch.setattr(kind, start, lambda self, *args: traced.append(args) or begin(self, *args))
    learner = catalog.inference("amortised_svi" if by_row else "guided_svi", {})
    model = pg.Model(program, guide=guide, by_row=by_row)
    target = conditioned(model, {"x": np.linspace(-1.0, 1.0, 7)}, precision="float32")[1]
    with runtime.jax_scope("float32"):
        prepared = learner.prepare(target)
        traced.clear()
        prepared.lowered()
        prepared.lowered()
    assert len(traced) <= 1


# ---- how hard XLA works


def test_least_work_is_for_what_runs_once_on_little(monkeypatch):
    few, many = [jax.ShapeDtypeStruct((n,), np.float32) for n in (100, 40_000)]
    plain, scan, wide = "", "stablehlo.while", "tensor<200x100xf64>"
    nuts, svi = catalog.inference("nuts", {}), catalog.inference("svi", {})
    monkeypatch.setenv("XLA_FLAGS", "")
    assert options(loops.init, nuts, [few], [few], plain)[runtime.LEVEL] == 0
    assert options(loops.init, nuts, [few], [few], scan)[runtime.LEVEL] == 1, "its own loop is not run for nothing"
    assert options(loops.answer, svi, [many], [few], plain)[runtime.LEVEL] == 1
    assert options(loops.chunk, nuts, [many], [few], scan)[runtime.LEVEL] == 1, "plain loops over little are as fast"
    for kernel, arrays, density in ((nuts, [many], plain), (nuts, [few], wide), (svi, [few], plain)):
        assert options(loops.chunk, kernel, [few], arrays, density) == {}, "steps run a thousand times"
    monkeypatch.setenv("XLA_FLAGS", f"--{runtime.LEVEL}=2")
    assert options(loops.init, nuts, [few], [few], plain) == {}, "what the user asks for holds"


@pytest.mark.parametrize(("series", "loops"), [(False, False), (True, True)])
def test_loops_of_a_density_are_seen(monkeypatch, series, loops):
    seen = []
    monkeypatch.setattr(compiling, "options", lambda *given: seen.append("stablehlo.while" in given[-1]) or {})

    def walk(y):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))

        def step(x, y):
            x = 0.5 * x + y
            numpyro.sample("y", dist.Normal(x, scale), obs=y)
            return x, None

        if series:
            scan(step, 0.0, y)
        else:
            numpyro.sample("y", dist.Normal(0.0, scale), obs=y)

    y = np.linspace(-1, 1, 9 if series else 8)
    pg.fit(walk, {"y": y}, inference="random_walk", num_samples=5, num_warmup=5, num_chains=1, progress=False)
    assert set(seen) == {loops}
