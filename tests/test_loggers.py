"""Loggers: the numbers are those of the records, a series is the same however the run was cut, and none of them can end a fit."""

import importlib.util
import itertools
import json
import os
import shutil
import signal
import sys
from collections import namedtuple
from dataclasses import replace
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from conftest import python

import probgen as pg
from probgen.cli import main
from probgen.loggers import series, telling
from probgen.run import from_file

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed: its event files are not read"
)
needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed: its runs are not read"
)

PROGRAM = """
import numpyro, numpyro.distributions as dist

def normal(x=None):
    m = numpyro.param("m", 0.0)
    with numpyro.plate("row", 40 if x is None else len(x)):
        numpyro.sample("x", dist.Normal(m, 1.0), obs=x)
"""
ROWS = np.random.default_rng(0).normal(2.0, 1.0, 40)
LEARN = {"inference": "mle", "by_row": True, "num_steps": 1500, "validation": 0.2, "progress": False}


class Mine:
    """Keeps what it is told; fails where it is asked to."""

    def __init__(self, fails=""):
        self.fails, self.told, self.about, self.ending = fails, {}, None, None

    def begin(self, about):
        self.about = about
        self._may_fail("begin")

    def log(self, step, values):
        self._may_fail("log", step >= 120)
        assert step not in self.told
        self.told[step] = values

    def end(self, ending):
        self._may_fail("end")
        self.ending = ending

    def _may_fail(self, where, here=True):
        if self.fails == where and here:
            raise OSError("the disk is full")


@pytest.fixture(scope="module")
def normal(tmp_path_factory):
    file = tmp_path_factory.mktemp("program") / "rows.py"
    file.write_text(PROGRAM)
    return from_file(file, "normal")


@pytest.fixture(scope="module")
def whole(normal, tmp_path_factory):
    """A fit that is told to nobody, and one that is."""
    mine = Mine()
    silent = pg.fit(normal, {"x": ROWS}, **LEARN)
    return silent, pg.fit(normal, {"x": ROWS}, loggers=mine, **LEARN), mine


# ---- which steps, and their numbers ------------------------------------------------------------------------------------


def cut(records, at):
    return [{k: v[:, a:b] for k, v in records.items()} for a, b in itertools.pairwise([0, *at]) if a < b]


def told(records, ends, total, warmup=None):
    """What is logged of a run that checkpoints at some steps."""
    found, last = [], 0
    for i, step in enumerate(ends):
        over = step == ends[-1]
        for at, values in series.points(cut(records, ends[: i + 1]), last, step, total, over, warmup):
            found.append((at, values))
            last = at
    return found


def test_points_are_the_same_however_a_run_is_cut():
    rng, total = np.random.default_rng(1), 2500
    held = np.where(np.arange(total) < 30, np.inf, rng.normal(size=total))
    records = {"loss": rng.normal(size=(1, total)), "validation": held[None], "converged": np.zeros((1, total), bool)}
    once = told(records, [total], total)
    for _ in range(5):
        ends = sorted({*rng.integers(1, total, 40).tolist(), total})
        assert told(records, ends, total) == once
    steps = [step for step, _ in once]
    assert steps[:101] == [*range(1, 100), 100, 103], "at most a thousandth of the run apart"
    assert steps[-1] == total
    for begun, (step, values) in zip([0, *steps], once, strict=False):
        assert values["loss"] == pytest.approx(records["loss"][0, begun:step].mean())
        assert values.get("held_out_loss", np.inf) == held[step - 1]
        assert ("held_out_loss" in values) == (step > 30)
    assert [s for s, _ in told(records, [150], 2500)][-2:] == [148, 150]


@pytest.mark.parametrize("total", [1, 99, 1000, 10**4, 10**6, 10**7])
def test_a_series_has_about_a_thousand_points(total):
    steps = list(itertools.takewhile(lambda s: s < total, iterate(total)))
    assert len(steps) < 1400
    assert total > 1000 or steps == list(range(1, total))


def iterate(total):
    step = 0
    while True:
        yield (step := series.after(step, total))


def test_draws_and_divergences_are_counted():
    rng, total, warmup = np.random.default_rng(2), 700, 123
    records = {
        "lp": rng.normal(size=(3, total)),
        "z": rng.normal(size=(3, total, 2)),
        "diverging": rng.uniform(size=(3, total)) < 0.1,
    }
    for ends in ([total], [50, 123, 124, 500, total]):
        for step, values in told(records, ends, total, warmup):
            assert values["draws"] == 3 * max(0, step - warmup)
            assert values["divergences"] == records["diverging"][:, warmup : max(step, warmup)].sum()
    assert set(values) == {"draws", "divergences", "log_density"}


# ---- a fit and its loggers ----------------------------------------------------------------------------------------------


def test_a_fit_tells_its_records_settings_and_verdict(whole):
    silent, fit, mine = whole
    np.testing.assert_array_equal(fit.records["loss"], silent.records["loss"])
    assert {k: v.tolist() for k, v in fit.answer.items()} == {k: v.tolist() for k, v in silent.answer.items()}
    assert (mine.about.step, mine.about.folder, mine.about.settings["num_steps"]) == (0, None, 1500)
    assert (mine.about.facts["algorithm"], mine.about.facts["seed"]) == ("mle", 0)
    loss, steps = fit.records["loss"][0].astype(float), list(mine.told)
    for begun, step in itertools.pairwise([0, *steps]):
        assert mine.told[step]["loss"] == pytest.approx(loss[begun:step].mean())
    assert steps[-1] == 1500
    assert all(values["seconds_per_step"] > 0 for values in mine.told.values())
    verdict = fit.diagnose()
    assert (mine.ending.state, mine.ending.step, mine.ending.status) == ("finished", 1500, verdict.status)
    assert mine.ending.text == str(verdict)
    assert mine.ending.findings == {f.check: f.status for f in verdict.findings}


@pytest.mark.parametrize("where", ["begin", "log", "end"])
def test_one_that_fails_is_said_once_and_ends_no_fit(normal, whole, where, caplog):
    bad, good = Mine(where), Mine()
    fit = pg.fit(normal, {"x": ROWS}, loggers=[bad, good], **LEARN)
    assert fit.complete
    (note,) = [note for note in fit.notes if "logger" in note]
    assert "Mine failed" in note
    assert "OSError: the disk is full" in note
    assert [r.getMessage() for r in caplog.records if r.name == "probgen"] == [note]
    assert note in fit.diagnose().notes
    assert {k: v["loss"] for k, v in good.told.items()} == {k: v["loss"] for k, v in whole[2].told.items()}
    assert good.ending.status
    assert (max(bad.told) == 118) if where == "log" else (len(bad.told) == 0) == (where == "begin")
    assert not pg.fit(normal, {"x": ROWS}, **{**LEARN, "num_steps": 5}).notes, "the note is that fit's alone"


def test_chains_are_told_too():
    mine = Mine()
    fit = pg.fit("eight_schools", num_samples=60, num_warmup=50, num_chains=2, loggers=(mine,), progress=False)
    assert [v["draws"] for v in mine.told.values()][-1] == 120
    assert mine.told[110]["divergences"] == fit.records["diverging"][:, 50:].sum()
    assert mine.ending.status == fit.diagnose().status


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(("error", "said"), [(SystemExit(3), "SystemExit: 3"), (Mute(), "Mute")], ids=["exit", "mute"])
def test_one_that_leaves_python_or_has_no_words_ends_no_fit(normal, error, said):
    def log(step, values):
        raise error

    bad = Mine()
    bad.begin = lambda about: -5  # as if steps had been told
    bad.log = log
    fit = pg.fit(normal, {"x": ROWS}, loggers=bad, **{**LEARN, "num_steps": 5})
    assert fit.complete
    assert said in next(note for note in fit.notes if "logger" in note)


@pytest.mark.parametrize(
    ("loggers", "error", "said"),
    [
        ("tensorbord", ValueError, "Did you mean 'tensorboard'"),
        (["mlflow", 7], TypeError, "begin"),
        (Mine, TypeError, "no logger"),
        ([Mine(), print], TypeError, "pg.loggers.Logger"),
        (telling.Logger(), TypeError, "no logger"),  # nothing is logged by it
        ({"tensorboard": 1}, TypeError, "no logger"),
    ],
)
def test_wrong_words_are_said_before_anything_compiles(normal, monkeypatch, tmp_path, loggers, error, said):
    monkeypatch.setattr(telling.MLflow, "check", lambda *a: None)
    monkeypatch.setattr("probgen.run.fitting.asked", lambda *a, **k: pytest.fail("it went on"))
    with pytest.raises(error, match=said):
        pg.fit(normal, {"x": ROWS}, out=tmp_path / "run", loggers=loggers, **LEARN)
    assert not (tmp_path / "run").exists()


def test_the_same_one_twice_is_refused(normal):
    mine = Mine()
    with pytest.raises(ValueError, match="twice"):
        pg.fit(normal, {"x": ROWS}, loggers=[mine, mine], **LEARN)


@pytest.mark.parametrize("word", list(telling.WORDS))
def test_a_missing_package_is_said_before_anything_compiles(normal, monkeypatch, tmp_path, word, capsys):
    monkeypatch.setattr(f"probgen.loggers.{word}.util.find_spec", lambda name: None)
    monkeypatch.setattr("probgen.run.fitting.asked", lambda *a, **k: pytest.fail("it went on"))
    with pytest.raises(ImportError, match=rf"pip install 'probgen\[{word}\]'"):
        pg.fit(normal, {"x": ROWS}, out=tmp_path / "run", loggers=word, **LEARN)
    assert main(["fit", "gaussian_mixture", "-i", "em", "--out", str(tmp_path / "run"), "--logger", word]) == 2
    assert "pip install" in capsys.readouterr().err


def test_a_run_goes_on_with_its_loggers(normal, whole, killed, tmp_path):
    mine, again = Mine(), Mine()
    killed(pg.fit, normal, {"x": ROWS}, out=tmp_path / "run", loggers=mine, **LEARN)
    assert (mine.told, mine.ending.state, mine.ending.status) == ({}, "failed", "")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["loggers"] == [{"word": "", "kind": "Mine", "settings": {}}]
    for name in ("copy", "ahead"):
        shutil.copytree(tmp_path / "run", tmp_path / name)
    fit = pg.resume(tmp_path / "run", progress=False, loggers=again)
    assert (fit.complete, fit.notes) == (True, ())
    begun, series = again.about.step, {k: v["loss"] for k, v in whole[2].told.items()}
    assert 0 < begun < 1500
    assert {k: v["loss"] for k, v in again.told.items()} == {k: v for k, v in series.items() if k > begun}, (
        "no doubled ones"
    )
    again = Mine()
    again.begin = lambda about: 0
    pg.resume(tmp_path / "copy", progress=False, loggers=again)
    assert {k: v["loss"] for k, v in again.told.items()} == series, "who says what it has gets the rest"
    assert ["seconds_per_step" in v for v in again.told.values()].index(True) == begun
    again = Mine()
    again.begin = lambda about: (
        about.step + 50
    )  # told after the last checkpoint, and the process killed before the next
    pg.resume(tmp_path / "ahead", progress=False, loggers=again)
    assert {k: v["loss"] for k, v in again.told.items()} == {k: v for k, v in series.items() if k > begun + 50}


def test_objects_are_not_known_to_a_later_session(normal, tmp_path):
    first = pg.fit(normal, {"x": ROWS}, out=tmp_path / "run", loggers=Mine(), **LEARN)
    assert first.complete
    assert ["was an object" in note for note in pg.resume(tmp_path / "run", progress=False).notes] == [True]
    assert pg.resume(tmp_path / "run", progress=False, loggers="none").notes == ()


# ---- TensorBoard --------------------------------------------------------------------------------------------------------


def events(folder):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        e
        for file in sorted(folder.glob("events*"), key=lambda f: f.stat().st_mtime_ns)  # names tell seconds alone
        for e in EventFileLoader(str(file)).Load()
        if e.HasField("summary")
    ]


def scalars(folder, tag):
    """(step, value) as they stand in the files, doubled ones and all."""
    return [(e.step, v.tensor.float_val[0]) for e in events(folder) for v in e.summary.value if v.tag == tag]


def texts(folder, tag):
    return [v.tensor.string_val[0].decode() for e in events(folder) for v in e.summary.value if v.tag == tag]


@needs_tensorboard
def test_event_files_hold_what_a_logger_is_told(normal, whole, tmp_path):
    _, silent, mine = whole
    fit = pg.fit(normal, {"x": ROWS}, out=tmp_path / "run", loggers="tensorboard", **LEARN)
    assert not fit.notes
    folder = tmp_path / "run" / "tensorboard"
    for tag in ("loss", "held_out_loss", "learning_rate"):
        expected = [(step, v[tag]) for step, v in mine.told.items() if tag in v]
        assert scalars(folder, tag) == [(step, pytest.approx(v, rel=1e-6)) for step, v in expected]
    assert len(scalars(folder, "seconds_per_step")) == len(mine.told)
    assert str(fit.diagnose()) in texts(folder, "verdict")[0]
    assert "| num_steps | 1500 |" in texts(folder, "settings")[0]
    assert (tmp_path / "run" / "verdict.json").exists()
    assert pg.load(tmp_path / "run").diagnose().status == silent.diagnose().status
    with pytest.raises(FileExistsError, match="holds the events"):
        pg.fit(normal, {"x": ROWS}, loggers=pg.loggers.TensorBoard(folder=folder), **LEARN)
    with pytest.raises(ValueError, match="this run has none"):
        pg.fit(normal, {"x": ROWS}, loggers="tensorboard", **LEARN)
    with pytest.raises(ValueError, match="twice"):
        pg.fit(normal, {"x": ROWS}, out=tmp_path / "b", loggers=["tensorboard", pg.loggers.TensorBoard()], **LEARN)


KILLED = """
import os, signal, sys, numpy as np, probgen as pg
from probgen.run import from_file

class Kill:
    def begin(self, about): pass
    def log(self, step, values): step < 150 or os.kill(os.getpid(), signal.SIGKILL)
    def end(self, ending): pass

file, out, order, word = sys.argv[1:]
loggers = [word, Kill()] if order == "told" else [Kill(), word]
rows = np.random.default_rng(0).normal(2.0, 1.0, 40)
how = {"by_row": True, "num_steps": 1500, "validation": 0.2, "progress": False}
pg.fit(from_file(file, "normal"), {"x": rows}, "mle", out=out, loggers=loggers, **how)
"""


def killed_run(normal, out, order, word, **more):
    done = python("-c", KILLED, normal.__code__.co_filename, str(out), order, word, **more)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return pg.resume(out, progress=False)


@needs_tensorboard
@pytest.mark.parametrize("order", ["told", "not told"])
def test_after_a_kill_the_series_goes_on_without_a_doubled_or_a_missing_step(normal, whole, tmp_path, order):
    fit = killed_run(normal, tmp_path / "run", order, "tensorboard")
    assert ["was an object" in note for note in fit.notes] == [True]
    folder = tmp_path / "run" / "tensorboard"
    assert len(list(folder.iterdir())) == 2
    expected = [(step, pytest.approx(v["loss"], rel=1e-6)) for step, v in whole[2].told.items()]
    assert scalars(folder, "loss") == expected
    assert (len(texts(folder, "settings")), len(texts(folder, "verdict"))) == (1, 1)
    for file in folder.iterdir():  # as a kill in the middle of a write leaves it
        os.truncate(file, file.stat().st_size - 3)
    assert scalars(folder, "loss")


# ---- MLflow -------------------------------------------------------------------------------------------------------------


class StandIn:
    """What the logger asks of a client of MLflow, in memory: runs outlive clients as they do in a data base."""

    runs: ClassVar[dict[str, dict]] = {}
    experiments: ClassVar[list[str]] = []

    def __init__(self, tracking_uri):
        assert tracking_uri

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=name) if name in self.experiments else None

    def create_experiment(self, name):
        self.experiments.append(name)
        return name

    def create_run(self, experiment, run_name):
        assert experiment in self.experiments
        self.runs[run_name] = {"metrics": [], "params": {}, "tags": {}, "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_batch(self, run, metrics=(), params=(), tags=()):
        self.runs[run]["metrics"] += metrics
        self.runs[run]["params"] |= {p.key: p.value for p in params}
        self.runs[run]["tags"] |= {t.key: t.value for t in tags}

    def update_run(self, run, status):
        self.runs[run]["status"] = status

    set_terminated = update_run

    def get_run(self, run):
        found = self.runs[run]
        data = {"metrics": {m.key: m.value for m in found["metrics"]}, "params": found["params"], "tags": found["tags"]}
        return SimpleNamespace(data=SimpleNamespace(**data), info=SimpleNamespace(status=found["status"], run_id=run))

    def get_metric_history(self, run, key):
        return [m for m in self.runs[run]["metrics"] if m.key == key]

    def search_runs(self, experiments):
        assert set(experiments) <= set(self.experiments)
        return [self.get_run(run) for run in self.runs]


@pytest.fixture(params=["stand-in", pytest.param("mlflow", marks=needs_mlflow)])
def client(request, tmp_path, monkeypatch):
    """A client of MLflow, and of what stands for it where the package is not installed."""
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    if request.param == "mlflow":
        return import_module("mlflow").MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(StandIn, "runs", {})
    monkeypatch.setattr(StandIn, "experiments", [])
    pair, metric = namedtuple("pair", "key value"), namedtuple("metric", "key value timestamp step")
    names = {"mlflow": {"MlflowClient": StandIn}, "mlflow.entities": {"Param": pair, "RunTag": pair, "Metric": metric}}
    for name, what in names.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**what))
    return StandIn("memory")


@pytest.mark.filterwarnings("default")
def test_a_run_of_mlflow_goes_on_where_what_was_flushed_ends(client, tmp_path):
    """As after a kill: a second logger is told again of a step that is there, and of one that was never written."""
    about = pg.loggers.About(
        {"num_steps": 150, "rate": "9" * 6000}, {"model": "normal", "algorithm": "mle"}, 0, tmp_path
    )
    logger = partial(pg.loggers.MLflow, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    killed = logger()
    assert killed.begin(about) == 0
    for step in (50, 100):
        killed.log(step, {"loss": 1.0 / step, "held out, loss": 2.0})
    killed.flush()
    killed.log(150, {"loss": 7.0})
    again = logger()
    assert again.begin(replace(about, step=100)) == 100
    for step in (100, 150):
        again.log(step, {"loss": 1.0 / step})
    again.end(pg.loggers.Ending("finished", 150, "warn", "the words", {"k hat?": "warn"}))
    (run,) = client.search_runs([client.get_experiment_by_name("probgen").experiment_id])
    history = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss"))
    assert history == [(step, pytest.approx(1.0 / step)) for step in (50, 100, 150)]
    assert len(client.get_metric_history(run.info.run_id, "held out_ loss")) == 2
    assert (run.data.params["num_steps"], len(run.data.params["rate"]), run.info.status) == ("150", 5000, "FINISHED")
    tags = {k: v for k, v in run.data.tags.items() if "probgen" in k or "note" in k}
    assert tags == {
        "probgen.verdict": "warn", "probgen.state": "finished", "probgen.check.k hat_": "warn",
        "mlflow.note.content": "```\nthe words\n```",
    }  # fmt: skip


@needs_mlflow
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_mlflow_has_the_series_the_settings_and_the_verdict(normal, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = f"sqlite:///{tmp_path}/mlflow.db"
    for key, value in {"MLFLOW_TRACKING_URI": address, "DO_NOT_TRACK": "true"}.items():
        monkeypatch.setenv(key, value)
    fit = killed_run(normal, tmp_path / "run", "not told", "mlflow", env=os.environ | {"MLFLOW_TRACKING_URI": address})
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address)
    (run,) = client.search_runs([client.get_experiment_by_name("probgen").experiment_id])
    history = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss"))
    assert history == [(step, pytest.approx(v["loss"])) for step, v in whole[2].told.items()]
    assert (run.data.params["num_steps"], run.info.status) == ("1500", "FINISHED")
    assert run.data.tags["probgen.verdict"] == fit.diagnose().status
    assert str(fit.diagnose())[:200] in run.data.tags["mlflow.note.content"]
