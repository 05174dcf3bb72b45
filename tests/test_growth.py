"""What a run holds in memory and on disk as it grows: records of their own size, checkpoints, draws read lazily."""

import mmap
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from conftest import python

import probgen as pg
from probgen import engine
from probgen.algorithm import Sampler
from probgen.data.large import stored
from probgen.data.large.stored import Gone, Stored
from probgen.fits import tables
from probgen.run.store import SHARE, Checkpoints, Store
from probgen.target import Continuous


class State(NamedTuple):
    z: Any
    log_density: Any


class Info(NamedTuple):
    z: Any
    lp: Any


@dataclass(frozen=True, kw_only=True)
class Draws(Sampler[Continuous]):
    """Independent draws from a standard normal, whatever the target: the least that a kernel can compute."""

    def init(self, key, target):
        return State(target.ops.normal(key, (target.dim,)), target.ops.xp.zeros(()))

    def step(self, key, state, target):
        z = target.ops.normal(key, (target.dim,))
        return State(z, z @ z), Info(z, z @ z)


class Many(Draws):
    """The same, all chains in one step."""

    steady: ClassVar[bool] = True


def program():
    a: Any = numpyro.sample("a", dist.Normal().expand([3]).to_event(1))
    numpyro.sample("b", dist.LogNormal())
    numpyro.deterministic("c", a @ a)


@pytest.mark.parametrize(("algorithm", "chains"), [(Draws, 2), (Many, 64)])
def test_records_of_a_chunk_hold_no_more_than_its_steps(algorithm, chains):
    """A chunk is computed into buffers of one size: a view of them kept for each would fill the memory with nothing."""
    target = engine.load("numpyro").prepare(program, {})
    found = engine.load("numpyro").Executor(algorithm(num_chains=chains, num_warmup=0), target, 0, chains)
    found.init()
    assert found.capacity > 100
    records = found.advance(0, 5)
    assert records["z"].shape == (chains, 5, 4)
    for value in records.values():
        held = value if value.base is None else value.base
        assert held.nbytes == value.nbytes


# ---- draws on disk ---------------------------------------------------------------------------------------------------------

SETTINGS = {"num_warmup": 30, "num_samples": 150, "num_chains": 2}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose draws stay on disk, and the same in memory; blocks are of a few draws."""
    monkeypatch.setattr(stored, "AT_ONCE", 400)
    fit = pg.fit(program, {}, Draws(**SETTINGS), progress=False)
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    kept = pg.fit(program, {}, Draws(**SETTINGS), out=tmp_path / "run", progress=False)
    assert isinstance(kept.records["z"], Stored)
    assert isinstance(fit.records["z"], np.ndarray)
    return fit, kept


def mapped(values):
    """Whether an array's memory is that of a file."""
    while isinstance(values, np.ndarray):
        values = values.base
    return isinstance(values, mmap.mmap)


def test_a_tree_on_disk_has_the_bits_of_one_in_memory(run):
    fit, kept = run
    assert kept.draws.keys() == fit.draws.keys() == {"a", "b", "c"}
    for key, value in fit.draws.items():
        assert mapped(kept.draws[key])
        np.testing.assert_array_equal(kept.draws[key], value)
    assert mapped(kept.tree["posterior"]["a"].variable._data)
    xr.testing.assert_identical(kept.posterior.drop_attrs(), fit.posterior.drop_attrs())
    for group in ("sample_stats", "warmup_sample_stats"):
        xr.testing.assert_identical(kept.tree[group].to_dataset(), fit.tree[group].to_dataset())


def test_verdict_and_table_on_disk_are_those_in_memory(run, monkeypatch):
    fit, kept = run
    whole = fit.summary()
    monkeypatch.setattr(tables, "MANY", 0)
    pd.testing.assert_frame_equal(kept.summary(), whole)
    released: list[np.ndarray] = []
    with monkeypatch.context() as patch:
        patch.setattr(tables, "numbers_at_once", lambda width: 1)
        patch.setattr(tables, "scratch", SimpleNamespace(release=released.append))
        pd.testing.assert_frame_equal(kept.summary(), whole)
    assert len(released) == len(whole), "memory is let go of after each row, not after all rows of a site"
    pd.testing.assert_frame_equal(
        fit.summary(var_names=["a"], kind="stats"), whole.loc[["a[0]", "a[1]", "a[2]"], :].iloc[:, :4]
    )
    for one, other in zip(kept.diagnose().findings, fit.diagnose().findings, strict=True):
        assert replace(one, remedy="") == replace(other, remedy="")
    np.testing.assert_array_equal(kept.sample(7)["a"], fit.sample(7)["a"])


KEYS = [
    np.s_[:], np.s_[0], np.s_[:, 3], np.s_[:, -1], np.s_[:, 5:90], np.s_[..., 2], np.s_[1, 10:20, 1:3], np.s_[:, ::7],
    np.s_[0, 3::50], np.s_[:, 20:10], np.s_[:, ::-1], np.s_[:, [1, 5, 2]], np.s_[..., [0, 2]], np.s_[-1, -1, -1], np.s_[:, 1:],
]  # fmt: skip


def test_an_array_on_disk_is_read_as_one_in_memory(run):
    fit, kept = run
    held, stays = fit.records["z"], kept.records["z"]
    assert (stays.shape, stays.dtype, stays.size, stays.nbytes) == (held.shape, held.dtype, held.size, held.nbytes)
    for key in KEYS:
        np.testing.assert_array_equal(np.asarray(stays[key]), held[key])
    assert isinstance(stays[:, 5:90], Stored)
    np.testing.assert_array_equal(stays[:, 5:90][:, 3:][0], held[0, 8:90])
    np.testing.assert_array_equal(stays.mean(axis=1), held.mean(axis=1))
    np.testing.assert_array_equal(stays[:, 1:] == stays[:, :-1], held[:, 1:] == held[:, :-1])
    np.testing.assert_array_equal(np.array([*stays]), held)
    with pytest.raises(IndexError):
        _ = stays[:, 180]
    with pytest.raises(AttributeError):
        _ = stays.nothing


def test_a_run_on_disk_that_was_killed_goes_on_and_is_made_longer(tmp_path, monkeypatch):
    """Killed between a segment and the state that counts it: the bits are those of a run in memory."""
    fit = pg.fit(program, {}, pg.inference.MALA(**SETTINGS), progress=False)
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    with monkeypatch.context() as broken:
        commit = Store.commit

        def dies(self, state, note):
            if note["step"] > 20:
                raise SystemError("killed")
            commit(self, state, note)

        broken.setattr(Store, "commit", dies)
        with pytest.raises(SystemError):
            pg.fit(
                program, {}, pg.inference.MALA(**{**SETTINGS, "num_samples": 100}), out=tmp_path / "run", progress=False
            )
    shorter = pg.resume(tmp_path / "run", progress=False)
    np.testing.assert_array_equal(shorter.z, fit.z[:, :100])
    longer = pg.extend(shorter, num_samples=50, progress=False)
    loaded = pg.load(tmp_path / "run")
    for found in (longer, loaded):
        assert isinstance(found.z, Stored)
        assert found.records.keys() == fit.records.keys()
        for key, value in fit.records.items():
            np.testing.assert_array_equal(found.records[key], value)
    loaded.save(tmp_path / "copy")
    np.testing.assert_array_equal(pg.load(tmp_path / "copy").z, fit.z)
    np.testing.assert_array_equal(shorter.draws["b"], fit.draws["b"][:, :100])


def test_draws_of_another_run_in_the_same_place_are_never_given(run):
    """What a fit did not read before its directory was written anew is gone; it says so."""
    _, kept = run
    other = pg.fit(program, {}, Draws(**SETTINGS), seed=1, out=kept.directory, overwrite=True, progress=False)
    assert np.isfinite(other.draws["a"]).all()
    with pytest.raises(Gone, match=r"not as it was(?s:.*)pg\.load"):
        _ = kept.draws
    shutil.rmtree(kept.directory)
    with pytest.raises(Gone):
        _ = other.z[0]


def test_a_fit_is_never_written_over_the_draws_that_it_reads(run, tmp_path, monkeypatch):
    held, kept = run
    with pytest.raises(FileExistsError, match="reads its draws from there"):
        kept.save(kept.directory, overwrite=True)
    np.testing.assert_array_equal(kept.z, held.z)
    monkeypatch.chdir(tmp_path)
    moving = pg.fit(program, {}, Draws(**SETTINGS), out="named from here", progress=False)
    monkeypatch.chdir(kept.directory)  # where it goes on to read them
    np.testing.assert_array_equal(moving.z, held.z)
    there = tmp_path / "there"
    held.save(there)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(kept.directory)
    with pytest.raises(Gone):
        kept.save(there, overwrite=True)
    np.testing.assert_array_equal(
        Store(there).draws()[0]["z"], held.records["z"]
    )  # what could not be replaced is whole


# ---- checkpoints -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [0.001, 0.2, 1.0, 7.0])
def test_states_are_written_so_seldom_that_it_takes_three_percent(cost):
    """By a clock of its own: chunks of half a second, and a state that takes so long to write."""
    now, spent, written = [0.0], [0.0], []

    class Slow:
        def commit(self, state, note):
            now[0] += cost
            spent[0] += cost
            written.append(note["step"])

    store: Any = Slow()
    checkpoints = Checkpoints(store, clock=lambda: now[0])
    for step in range(1, 5001):
        now[0] += 0.5
        checkpoints.offer({}, {"step": step})
    assert written[0] == 1
    assert spent[0] - 2 * cost <= SHARE * now[0]
    assert (
        spent[0] >= min(0.9 * SHARE, cost / (0.5 + cost)) * (now[0] - 35 * cost) * 0.9
    )  # and no more seldom than that
    checkpoints.write()
    assert written[-1] == 5000
    checkpoints.write()
    assert written.count(5000) == 1


# ---- a process with little memory ------------------------------------------------------------------------------------------


def wide():
    numpyro.sample("a", dist.Normal().expand([200]).to_event(1))


LITTLE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import probgen as pg
from test_growth import Draws, wide

settings = {"num_chains": 4, "num_warmup": 0}
few = pg.fit(wide, {}, Draws(num_samples=500, **settings), progress=False)
few.diagnose(), few.summary()
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (held * 1024 + 2**29, resource.RLIM_INFINITY))
fit = pg.fit(wide, {}, Draws(num_samples=int(sys.argv[3]), **settings), out=sys.argv[2], progress=False)
verdict = fit.diagnose()
table = fit.summary()
mean = fit.tree["posterior"]["a"].mean(("chain", "draw"), skipna=False)  # else xarray copies the whole
assert abs(mean).max() < 0.02, mean
assert len(table) == 200
print(fit.z.nbytes, verdict.status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory as Linux has them")
def test_a_run_of_more_draws_than_memory_is_judged(tmp_path):
    """640 MB of draws, where a process may have 512 MB beside what it had before: fitted, judged, in a table, in a tree.

    The means of 200 unknowns of 400,000 independent draws are within 12 of their standard errors.
    """
    found = python("-c", LITTLE, str(Path(__file__).parent), str(tmp_path / "run"), "100000")
    assert found.returncode == 0, found.stderr[-2000:]
    size, status, _ = found.stdout.split()
    assert int(size) == 4 * 100_000 * 200 * 8
    assert status == "pass"
