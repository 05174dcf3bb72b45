"""Sweeps: the grid as a dataset, each fit the one of pg.fit, runs used again, bad input. See also test_sweep_stopped."""

import json
import os
import pickle
import runpy
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen.fits.seal import ChangedRun
from probgen.processes import crews
from probgen.sweeps.figures import MEANINGS
from probgen.sweeps.grid import _hashed, grid
from probgen.sweeps.table import MEANT

X = np.array([-1.0, 0.0, 2.0])
DATA = {"x": X, "y": np.array([-0.5, 0.3, 1.8])}
QUICK = {"inference": "random_walk", "num_samples": 300, "num_chains": 2, "progress": False}
IN_A_WORKER = "PROBGEN_CORES"  # in the environment of workers alone


def line(x, y=None, width=1.0, deadly=False):
    if deadly and IN_A_WORKER in os.environ:
        if deadly == "raises":
            raise RuntimeError("told by the program")
        os.kill(os.getpid(), signal.SIGKILL)
    slope = numpyro.sample("slope", dist.Normal(0.0, width))
    with numpyro.plate("point", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of four fits: its folder, what it returned, what it said."""
    out, said = tmp_path_factory.mktemp("sweep") / "runs", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stderr, "write", lambda text: said.append(text))
        found = pg.sweep(line, {"num_warmup": [100, 200]}, DATA, seeds=[3, 0], out=out, **{**QUICK, "progress": True})
    return out, found, "".join(said).splitlines()


def test_the_grid_is_a_dataset(swept):
    out, found, _ = swept
    assert found.sizes == {"num_warmup": 2, "seed": 2}
    assert found.num_warmup.values.tolist() == [100, 200]
    assert found.seed.values.tolist() == [3, 0]
    assert set(np.unique(found.status)) <= {"pass", "warn", "fail"}
    assert (found.error == "").all()
    assert (found.seconds > 0).all()
    assert found.r_hat.shape == (2, 2)
    assert "training_loss" not in found
    assert len({*found.run.values.ravel()}) == 4 == len(list(out.glob("*/run.json")))


def test_a_fit_is_that_of_pg_fit(swept):
    _, found, _ = swept
    here = pg.fit(line, DATA, num_warmup=200, seed=3, **QUICK)
    one = found.sel(num_warmup=200, seed=3)
    there = pg.load(one.run.item())
    for name, value in here.records.items():
        assert np.array_equal(value, there.records[name])
    assert np.array_equal(here.draws["slope"], there.draws["slope"])
    assert one.status.item() == here.diagnose().status
    assert json.loads((there.directory / "run.json").read_text())["program"]["name"] == "line"


def test_its_fits_are_compared(swept):
    _, found, _ = swept
    compared = pg.compare(found.sel(seed=[3]))
    assert list(compared.table.index) == ["num_warmup=100", "num_warmup=200"]
    ours = pg.compare({f"num_warmup={n}": pg.load(found.run.sel(num_warmup=n, seed=3).item()) for n in (100, 200)})
    assert compared.table.equals(ours.table)
    assert compared.reference == ours.reference
    assert next(iter(pg.compare(found).table.index)) == "num_warmup=100 seed=3"
    failed = found.sel(seed=3).assign(
        status=found.status.sel(seed=3).astype(object), error=found.error.sel(seed=3).astype(object)
    )
    failed["status"][1], failed["error"][1] = "error", "ValueError: no start"
    with pytest.raises(ValueError, match="has no fit num_warmup=200: ValueError: no start"):
        pg.compare(failed)
    with pytest.raises(TypeError, match=r"or what pg\.sweep returns"):
        pg.compare(found.run)


def test_a_line_is_said_of_every_fit(swept):
    _, found, said = swept
    assert [text.split()[0] for text in said] == ["1/4", "2/4", "3/4", "4/4"]
    assert sorted(text.split()[1] for text in said) == sorted(found.status.values.ravel())
    assert sum("num_warmup=200 seed=3" in text for text in said) == 1


def test_it_is_written_as_netcdf(swept, tmp_path):
    import xarray as xr

    _, found, _ = swept
    found.to_netcdf(tmp_path / "sweep.nc")
    with xr.open_dataset(tmp_path / "sweep.nc") as again:
        assert again.load().equals(found)


def test_what_is_done_is_used_again(swept, monkeypatch):
    out, found, _ = swept
    monkeypatch.setattr(crews, "Worker", None)  # none is started
    again = pg.sweep(line, {"num_warmup": [100, 200]}, DATA, seeds=[3, 0], out=out, **QUICK)
    assert again.identical(found)
    part = pg.sweep(line, {"num_warmup": [100, 200]}, DATA, seeds=[3, 0], out=out, part=(2, 3), **QUICK)
    assert part.identical(found)  # what other parts have made is told as well


def edited(x, y=None, width=1.0, deadly=False):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.5 * width))
    with numpyro.plate("point", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


CHANGES = {
    "program": ({"program": edited}, r"the program \(its density differs at 'slope'"),
    "data": ({"data": {**DATA, "y": DATA["y"] + 1e-3}}, "the data y"),
    "setting": ({"num_samples": 301}, r"the setting num_samples \(there 300, now 301\)"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_since_is_said(swept, what):
    changed, told = CHANGES[what]
    words = {"program": line, "data": DATA, "settings": {"num_warmup": [100, 200]}, **QUICK, **changed}
    with pytest.raises(ChangedRun, match=rf"4\)(?s:.*){told}"):
        pg.sweep(seeds=[3, 0], out=swept[0], **words)


def test_what_is_half_written_is_gone_on_with_and_what_changed_is_fitted_anew(swept, tmp_path):
    import shutil

    out, found, _ = swept
    copy = Path(shutil.copytree(out, tmp_path / "runs"))
    half, other = (copy / Path(found.run.sel(num_warmup=n, seed=0).item()).name for n in (100, 200))
    (half / "sweep.json").unlink()
    (half / "state.safetensors").unlink()
    (half / "answer.safetensors").unlink(missing_ok=True)
    record = json.loads((other / "run.json").read_text())
    record["seal"]["data"]["y"] = "0"
    (other / "run.json").write_text(json.dumps(record))
    words = {"settings": {"num_warmup": [100, 200]}, "data": DATA, "seeds": [3, 0], "num_workers": 1}
    again = pg.sweep(line, out=copy, overwrite=True, **words, **QUICK)
    assert (again.status == found.status).all()
    assert again.r_hat.equals(found.r_hat)


# ---- grids -----------------------------------------------------------------------------------------------------------


def of_both(x, y=None, num_draws=1):
    line(x, y)


BAD = {
    "no list": ({"settings": {"num_samples": 100}}, TypeError, "num_samples=100 by itself"),
    "a word": ({"settings": {"guide": "planar"}}, TypeError, "expected a list of values"),
    "empty": ({"settings": {"num_warmup": []}}, ValueError, "is empty"),
    "twice": ({"settings": {"num_warmup": [100, 200, 100.0]}}, ValueError, "has 100.0 twice"),
    "no mapping": ({"settings": [100, 200]}, TypeError, "expected lists by name"),
    "a seed in it": ({"settings": {"seed": [0, 1]}}, TypeError, "pass seeds"),
    "both": ({"settings": {"num_warmup": [1, 2]}, "num_warmup": 3}, TypeError, "which is meant"),
    "unknown": ({"inference": "nuts", "settings": {"num_warmups": [1, 2]}}, TypeError, "Did you mean 'num_warmup'"),
    "unknown, fixed": ({"inference": "nuts", "target_acept": 0.9}, TypeError, "Unknown setting 'target_acept'"),
    "of both": ({"program": of_both, "settings": {"num_draws": [1, 2]}}, TypeError, "a parameter of the program: which"),
    "out of range": ({"inference": "nuts", "settings": {"num_samples": [100, 0]}}, ValueError, "num_samples is 0"),
    "seeds twice": ({"seeds": [1, 1]}, ValueError, "seeds has 1 twice"),
    "no seeds": ({"seeds": []}, ValueError, "seeds is empty"),
    "a seed that is none": ({"seeds": [0.5]}, ValueError, "expected a whole number"),
    "unknown inference": ({"inference": ["nuts", "nut"]}, ValueError, "Unknown inference 'nut'"),
    "inferences twice": ({"inference": ["nuts", "nuts"]}, ValueError, "a name of its own"),
    "data that do not fit": ({"data": [DATA, {"x": X, "z": X}]}, TypeError, "z"),
    "part": ({"part": (0, 3)}, ValueError, r"the first of 3 parts is \(1, 3\)"),
    "no workers": ({"num_workers": 0}, ValueError, "num_workers is 0"),
    "init": ({"init": {"slop": 0.0}, "inference": "random_walk"}, TypeError, "Did you mean 'slope'"),
    "no end of seeds": ({"seeds": range(10**9)}, ValueError, "at most 100,000 fits"),
    "a huge grid": ({"settings": {"num_warmup": range(1, 1000)}, "seeds": 1000}, ValueError, "has 999,000 fits"),
    "no folder": ({"out": None}, TypeError, "out is None; expected a folder"),
    "init in the grid": ({"settings": {"init": [1, 2]}}, TypeError, "the same for all fits"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_at_once(what, tmp_path, monkeypatch):
    words, kind, told = BAD[what]
    monkeypatch.setattr(crews, "Worker", None)
    with pytest.raises(kind, match=told):
        pg.sweep(
            **{"program": line, "data": DATA, "seeds": 1, "out": tmp_path / "runs", "inference": "laplace", **words}
        )
    assert not (tmp_path / "runs").exists()


def test_a_program_that_cannot_be_sent_is_told(tmp_path):
    lock = threading.Lock()

    def program(x):
        with lock:
            numpyro.sample("x", dist.Normal(numpyro.sample("m", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    with pytest.raises(TypeError, match="cannot be sent to worker processes"):
        pg.sweep(program, data={"x": 1.0}, inference="random_walk", out=tmp_path, seeds=1)


def test_data_of_the_program_are_one_data_set():
    assert "data" not in [axis.name for axis in grid(line, None, DATA, "nuts", 1, {}).axes]
    for several in ({"a": DATA, "b": DATA}, [DATA, DATA]):
        axes = grid(line, {"num_warmup": range(2)}, several, ["nuts", "hmc"], 2, {}).axes
        assert [axis.name for axis in axes] == ["inference", "data", "num_warmup", "seed"]


def test_large_arrays_that_print_alike_are_told_apart_by_their_content():
    a, b = np.zeros(5000), np.zeros(5000)
    b[2500] = 1.0
    assert repr(a) == repr(b)
    assert _hashed(a) != _hashed(b)
    assert _hashed({"x": [a]}) == _hashed({"x": [a.copy()]})


def test_coordinates_are_as_given():
    axes = grid(
        line, {"a": np.logspace(-2, 0, 3), "b": [True, False], "c": [None, 2], "d": [(1, 2), (3,)]}, DATA, "nuts", 1, {}
    ).axes
    labels = {axis.name: axis.labels for axis in axes}
    assert labels == {
        "a": (0.01, 0.1, 1.0),
        "b": (True, False),
        "c": ("None", "2"),
        "d": ("(1, 2)", "(3,)"),
        "seed": (0,),
    }
    assert dict(zip("abcd", (axis.values[-1] for axis in axes), strict=False)) == {
        "a": 1.0,
        "b": False,
        "c": 2,
        "d": (3,),
    }


def test_no_figure_has_the_name_of_a_setting():
    """They would be a dimension and a variable of one name."""
    from dataclasses import fields

    from probgen import catalog

    settings = {f.name for word in catalog.modules("probgen.inference") for f in fields(catalog.algorithm(word))}
    assert not settings & {*MEANINGS, *MEANT}


def test_workers_share_the_cores():
    from probgen.processes.pool import _shares

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("probgen.machine.cores", lambda: 16)
        patch.setattr("probgen.processes.sending.on_accelerator", lambda: False)
        assert _shares(None, None, 100) == (16, 1)
        assert _shares(None, None, 4) == (4, 4)
        assert _shares(None, 4, 100) == (4, 4)
        assert _shares(3, None, 100) == (3, 5)
        assert _shares(32, None, 100) == (32, 1)
    found = crews.environment(2, {"OMP_NUM_THREADS": "8"})
    assert {found[k] for k in ("OMP_NUM_THREADS", "NPROC", "PROBGEN_CORES")} == {"2"}


def test_what_a_script_run_by_another_defines_is_sent_whole(tmp_path):
    (tmp_path / "page.py").write_text(
        "from probgen.processes import sending\nONE = 1\ndef f(x):\n    return x + ONE\nsent = sending.pickled(f)\n"
    )
    sent = runpy.run_path(str(tmp_path / "page.py"))["sent"]
    assert pickle.loads(pickle.loads(sent)[1])(1) == 2
