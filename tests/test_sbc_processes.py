"""Simulation-based calibration in processes of its own: the same ranks, kept on disk; a process that dies takes nothing with it."""

import json
import os
import signal
from dataclasses import dataclass

import numpy as np
import pytest
from test_sbc import DATA, Exact, line
from test_sweep_dask import client, needs_dask  # noqa: F401  a fixture

import probgen as pg
from probgen.calibration import calibrating
from probgen.calibration.calibrating import _in_processes
from probgen.calibration.ranking import Asked
from probgen.fits.seal import ChangedRun
from probgen.processes import crews
from probgen.run.lock import RunInUse

IN_A_WORKER = "PROBGEN_CORES"  # in the environment of workers alone
WORDS = {"data": DATA, "num_simulations": 20, "num_samples": 60, "num_warmup": 0, "seed": 3}


@dataclass(frozen=True, kw_only=True)
class Deadly(Exact):
    """Takes its process with it, or raises, where the first observation is the largest of all simulations."""

    above: float = np.inf
    raises: bool = False

    def prepare(self, target):
        if IN_A_WORKER in os.environ and np.asarray(target.data["y"])[0] >= self.above:
            if self.raises:
                raise RuntimeError("told by the algorithm")
            os.kill(os.getpid(), signal.SIGKILL)
        return target


@pytest.fixture(scope="module")
def here():
    return pg.sbc(line, Exact(num_chains=1), **WORDS)


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    out = tmp_path_factory.mktemp("sbc") / "study"
    return out, pg.sbc(line, Exact(num_chains=1), out=out, num_workers=1, **WORDS)


def same(found, other):
    return np.array_equal(found.ranks, other.ranks) and np.array_equal(found.ess, other.ess)


def test_ranks_are_those_of_one_process(here, there):
    assert same(there[1], here)
    assert there[1].failures == ()
    assert str(there[1]) == str(here)


def test_what_is_there_is_used_again_and_what_is_not_is_made(here, there, monkeypatch):
    out, _ = there
    monkeypatch.setattr(crews, "Worker", None)  # none is started
    assert same(pg.sbc(line, Exact(num_chains=1), out=out, num_workers=1, **WORDS), here)
    (out / "00007.json").unlink()
    (out / "00008.json").write_text("{")  # cut short
    wrong = json.loads((out / "00009.json").read_text()) | {"of": "another", "ranks": [0, 0]}
    (out / "00009.json").write_text(json.dumps(wrong))
    assert same(pg.sbc(line, Exact(num_chains=1), out=out, **WORDS), here)  # in this process
    assert len(list(out.glob("[0-9]*.json"))) == 20


def test_another_study_is_refused(there):
    out, _ = there
    for words, told in (
        ({"seed": 4}, "seed"),
        ({"data": {**DATA, "x": DATA["x"] + 1}}, "the data x"),
        ({"scale": 2.0}, "scale"),
    ):
        with pytest.raises(ChangedRun, match=told):
            pg.sbc(line, Exact(num_chains=1), out=out, **{**WORDS, **words})
    assert len(list(out.glob("[0-9]*.json"))) == 20
    changed = {**WORDS, "scale": 2.0}
    again = pg.sbc(line, Exact(num_chains=1), out=out, overwrite=True, **changed)
    assert same(again, pg.sbc(line, Exact(num_chains=1), **changed))


def test_a_folder_has_one_writer(there, monkeypatch):
    out, _ = there
    held = []

    def refused(*given, **words):
        with pytest.raises(RunInUse, match="is being written by"):
            pg.sbc(line, Exact(num_chains=1), out=out, overwrite=True, **WORDS)
        held.append((out / "lock").exists())
        return given[0]

    monkeypatch.setattr(calibrating, "_summarised", lambda study, found: refused(found))
    pg.sbc(line, Exact(num_chains=1), out=out, overwrite=True, **WORDS)
    assert held == [True]
    assert not (out / "lock").exists()


def test_a_process_that_dies_leaves_out_its_simulation_and_says_which(tmp_path):
    plain = Deadly(num_chains=1, num_samples=60, num_warmup=0)
    study = {k: WORDS[k] for k in ("data", "seed")}
    firsts = [truth["y"][0] for truth in _truths(plain)]
    deadly = {"above": float(np.sort(firsts)[-1])}
    found = pg.sbc(line, plain, out=tmp_path, num_workers=1, num_simulations=24, **study, **deadly)
    assert len(found.ranks) == 23
    (told,) = found.failures
    assert told.startswith(f"simulation {int(np.argmax(firsts))}: its worker process was killed by SIGKILL")
    assert found.verdict["failed"].status == "warn"
    whole = pg.sbc(line, plain, num_simulations=24, **study, **deadly)  # which kills nothing here
    assert np.array_equal(found.ranks, np.delete(whole.ranks, int(np.argmax(firsts)), axis=0))
    assert same(pg.sbc(line, plain, out=tmp_path, num_simulations=24, **study, **deadly), whole)  # made up for


def test_what_a_simulation_raises_is_raised_with_its_number(monkeypatch):
    asked = Asked(line, Deadly(num_chains=1, above=-np.inf, raises=True), DATA, "float64", None)
    simulations = asked.study.simulations(0, 1)
    monkeypatch.setenv(IN_A_WORKER, "1")
    outcome = asked.outcome(simulations[0])
    with pytest.raises(RuntimeError, match="Simulation 0: RuntimeError: told by the algorithm"):
        list(_in_processes([(0, outcome)], simulations, lambda *said: None))


def _truths(algorithm):
    study = Asked(line, algorithm, DATA, "float64", None).study
    return [simulation.truth for simulation in study.simulations(WORDS["seed"], 24).values()]


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(TypeError, match="client needs out"):
        pg.sbc(line, Exact(), client=_Client(), **WORDS)
    with pytest.raises(TypeError, match="a client has its own workers"):
        pg.sbc(line, Exact(), client=_Client(), num_workers=2, out=tmp_path, **WORDS)
    with pytest.raises(ValueError, match="num_workers is 0"):
        pg.sbc(line, Exact(), num_workers=0, **WORDS)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FileExistsError, match="is a run"):
        pg.sbc(line, Exact(), out=tmp_path, **WORDS)


class _Client:
    submit = run = cancel = print


@needs_dask
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of dask's own
def test_on_dask_it_is_the_same(here, client, tmp_path):  # noqa: F811
    assert same(pg.sbc(line, Exact(num_chains=1), out=tmp_path, client=client, **WORDS), here)
