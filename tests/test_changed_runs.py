"""A run's directory read with another program, other data or other settings; two writers in one directory."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from conftest import ENGINES, needs_pyro

import probgen as pg
from probgen.cli import main
from probgen.fits import seal
from probgen.fits.seal import ChangedRun
from probgen.run import from_file
from probgen.run.lock import RunInUse
from probgen.run.store import Store

NUMPYRO = """
import numpyro as E, numpyro.distributions as dist
SD = 1.0
def program(x, y=None):
    w = E.sample("w", dist.Normal(0.0, 1.0))
    E.deterministic("twice", 2 * w)
    with E.plate("point", len(x)):
        E.sample("y", dist.Normal(+w * x, SD), obs=y)
"""
PYRO = NUMPYRO.replace("numpyro", "pyro")
SOURCES = {"numpyro": NUMPYRO, "pyro": PYRO}
X = np.linspace(-1, 2, 50)
DATA = {"x": X, "y": 2 * X}
EDITS = {
    "a sign": ("+w * x", "-w * x", "'y'"),
    "a constant": ("SD = 1.0", "SD = 1.1", "'y'"),
    "a prior": ("Normal(0.0, 1.0)", "Normal(0.0, 1.01)", "'w'"),
    "a deterministic": ("2 * w", "3 * w", "'twice'"),
    "another site": ("    E.deter", '    E.factor("more", w)\n    E.deter', "'more'"),
}


@pytest.fixture(scope="module", params=ENGINES)
def runs(request, tmp_path_factory):
    """A folder with a program and a finished run of it."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "program.py").write_text(SOURCES[request.param])
    program = from_file(folder / "program.py", "program")
    pg.fit(program, DATA, num_samples=40, num_warmup=40, num_chains=1, out=folder / "run", progress=False)
    return folder, SOURCES[request.param]


@pytest.fixture
def run(runs):
    """The folder with everything as it was."""
    folder, source = runs
    record = (folder / "run" / "run.json").read_text()
    yield folder, source
    (folder / "program.py").write_text(source)
    (folder / "run" / "run.json").write_text(record)


def test_as_it_was_no_word(run):
    folder, source = run
    (folder / "program.py").write_text(f"# a comment more\n{source}\n\ndef unrelated():\n    return 3\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pg.load(folder / "run").target.notes == ()
    assert pg.resume(folder / "run").complete


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_program(run, edit):
    folder, source = run
    old, new, site = EDITS[edit]
    assert old in source
    (folder / "program.py").write_text(source.replace(old, new))
    with pytest.raises(ChangedRun, match=f"changed since it was begun: the program .*{site}"):
        pg.resume(folder / "run")
    with pytest.warns(UserWarning, match=f"the program .*{site}.*mixes two programs"):
        fit = pg.load(folder / "run")
    assert site in fit.target.notes[0]


def test_a_branch_that_no_point_visits_is_told(run):
    """The density is the same wherever it was compared: what is resumed says so, and two records are of two programs."""
    folder, source = run
    was = Store(folder / "run").record()
    (folder / "program.py").write_text(source.replace("+w * x", "(w if SD < 5 else -w) * x"))
    for read in (pg.load, pg.resume):
        fit = read(folder / "run")
        assert "the code, or what it reads, was changed" in fit.notes[0]
        assert fit.notes[0] in str(fit.diagnose())
    program = from_file(folder / "program.py", "program")
    other = pg.fit(program, DATA, num_samples=40, num_warmup=40, num_chains=1, out=folder / "other", progress=False)
    now = Store(other.directory).record()
    assert seal.between(was, was) == []
    assert [told for told in seal.between(was, now) if "the code, or what it reads" in told]
    versions = {**now["versions"], "python": "3.0"}  # bytecode of another Python is not comparable
    assert seal.between(was, {**now, "versions": versions}) == []


def test_other_unknowns_cannot_be_read_at_all(run):
    folder, source = run
    (folder / "program.py").write_text(source.replace('E.sample("w"', 'E.sample("v"'))
    for read in (pg.load, pg.resume):
        with pytest.raises(ChangedRun, match=r"has the unknowns v .* of w "):
            read(folder / "run")


def test_a_program_passed_in_place_of_the_run_s(run):
    folder, source = run
    (folder / "other.py").write_text(source.replace("SD = 1.0", "SD = 2.0"))
    other = from_file(folder / "other.py", "program")
    with pytest.raises(ChangedRun, match="the program"):
        pg.resume(folder / "run", other)


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (lambda r: r["inference"]["settings"].update(num_samples=80), "num_samples .it was 40, run.json now says 80"),
        (lambda r: r.update(seed=7), "seed .it was 0, run.json now says 7"),
        (lambda r: r.update(precision="float32"), "precision"),
    ],
    ids=["num_samples", "seed", "precision"],
)
def test_edited_settings(run, edit, name):
    folder, _ = run
    record = json.loads((folder / "run" / "run.json").read_text())
    edit(record)
    (folder / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(ChangedRun, match=f"the setting {name}"):
        pg.resume(folder / "run")
    with pytest.warns(UserWarning, match="the setting"):
        pg.load(folder / "run")


def test_edited_data(run):
    folder, _ = run
    store = Store(folder / "run")
    arrays, whole = store.arrays("data.safetensors")[0], (folder / "run" / "data.safetensors").read_bytes()
    store.put("data", {**arrays, "y": -arrays["y"]})
    try:
        with pytest.raises(ChangedRun, match=r"the data y .*; the program"):
            pg.resume(folder / "run")
    finally:
        (folder / "run" / "data.safetensors").write_bytes(whole)


def test_a_run_of_old_loads_and_resumes(run):
    folder, _ = run
    record = json.loads((folder / "run" / "run.json").read_text())
    del record["seal"]
    (folder / "run" / "run.json").write_text(json.dumps(record))
    assert "kept no trace" in pg.load(folder / "run").target.notes[0]
    assert pg.resume(folder / "run").complete


def test_the_command_line_says_what_changed(run, capsys):
    folder, source = run
    (folder / "program.py").write_text(source.replace("SD = 1.0", "SD = 2.0"))
    assert main(["resume", str(folder / "run"), "--no-progress"]) == 2
    assert "the program (its density differs at 'y'" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="the program"):
        assert main(["sample", str(folder / "run")]) == 0


LEARNED = {
    "numpyro": """
import numpyro as E, numpyro.distributions as dist
SCALE = 1.0
def program(x=None):
    loc = E.param("loc", 0.5)
    E.sample("x", dist.Normal(SCALE * loc, 1.0), obs=x)
""",
    "pyro": """
import pyro as E, pyro.distributions as dist, torch
SCALE = 1.0
def program(x):
    loc = E.param("loc", torch.tensor(0.5))
    with E.plate("row", len(x)):
        E.sample("x", dist.Normal(SCALE * loc, 1.0), obs=x)
""",
}


@pytest.mark.parametrize("engine", ENGINES)
def test_learned_parameters_of_an_edited_program(engine, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(LEARNED[engine])
    pg.fit(from_file(file, "program"), {"x": 3 + X}, "mle", num_steps=30, out=tmp_path / "run", progress=False)
    assert pg.load(tmp_path / "run").target.notes == ()
    file.write_text(LEARNED[engine].replace("SCALE = 1.0", "SCALE = 2.0"))
    with pytest.raises(ChangedRun, match=r"the program .*'x'"):
        pg.resume(tmp_path / "run")
    with pytest.warns(UserWarning, match="the program"):
        pg.load(tmp_path / "run")


def test_a_file_edited_within_a_second_is_another_program(tmp_path):
    """Bytecode caches know files by size and second."""
    file = tmp_path / "program.py"
    for sign in "+-+":
        file.write_text(f"def program(x):\n    return {sign}x\n")
        assert from_file(file, "program")(2) == float(f"{sign}2")


# ---- two writers -------------------------------------------------------------------------------------------------

SLOW = {"num_samples": 400_000, "num_warmup": 50, "num_chains": 1, "progress": False}
HOLDER = """
import sys, probgen as pg
from probgen.run import from_file
import numpy as np
x = np.linspace(-1, 2, 50)
program = from_file(sys.argv[1], "program")
pg.fit(program, {"x": x, "y": 2 * x}, out=sys.argv[2], num_samples=4_000_000, num_warmup=50, num_chains=1)
"""


@pytest.fixture(params=["numpyro", pytest.param("pyro", marks=needs_pyro)])
def held(request, tmp_path):
    """A directory that another process writes to, and that process."""
    (tmp_path / "program.py").write_text(SOURCES[request.param])
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "program.py"), str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not (tmp_path / "run" / "state.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield tmp_path, process
    process.kill()
    process.wait()


def test_a_second_writer_is_told_who_is_there(held):
    folder, process = held
    program = from_file(folder / "program.py", "program")
    told = rf"process {process.pid} on .* since 20\d\d-"
    with pytest.raises(RunInUse, match=told):
        pg.resume(folder / "run")
    with pytest.raises(RunInUse, match=told):
        pg.fit(program, DATA, out=folder / "run", overwrite=True, **SLOW)
    with pytest.raises(FileExistsError, match="holds a run already"):
        pg.fit(program, DATA, out=folder / "run", **SLOW)
    before = pg.load(folder / "run").num_steps  # reading needs no lock
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pg.load(folder / "run").num_steps >= before
    with Store(folder / "run").writing():  # kill -9 gave the lock back
        pass


def test_two_fits_of_one_process(tmp_path):
    (tmp_path / "program.py").write_text(NUMPYRO)
    program, told = from_file(tmp_path / "program.py", "program"), []

    def second():
        while not (tmp_path / "run" / "state.safetensors").exists():
            time.sleep(0.005)
        try:
            pg.resume(tmp_path / "run", program)
        except RunInUse as error:
            told.append(str(error))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=second)
    thread.start()
    fit = pg.fit(program, DATA, out=tmp_path / "run", **SLOW)
    thread.join()
    assert not fit.complete
    assert f"another fit of this process (pid {os.getpid()})" in told[0]
    assert "lock" not in {entry.name for entry in (tmp_path / "run").iterdir()}


def test_a_lock_left_by_the_dead_is_no_lock(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 1, "host": "nowhere", "since": "2020-01-01 00:00:00"}')
    with Store(tmp_path).writing():
        assert f'"pid": {os.getpid()}' in (tmp_path / "lock").read_text()
        with pytest.raises(RunInUse), Store(tmp_path).writing():
            pass
    assert not tmp_path.exists()


def test_a_forked_child_does_not_hold_its_parent_s_lock(tmp_path):
    code = f"""if True:
        import os, sys, time
        from probgen.run.store import Store
        from pathlib import Path
        with Store({str(tmp_path / "run")!r}).writing():
            if os.fork() == 0:
                time.sleep(30)
            print("held", flush=True)
            os.kill(os.getpid(), 9)
    """
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    process.wait()
    end = time.monotonic() + 10  # the child closes its copy as it starts, which on busy cores is a while
    while True:
        try:
            with Store(tmp_path / "run").writing():
                break
        except RunInUse:
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.parametrize("engine", ENGINES)
def test_other_parameters_cannot_be_read_at_all(engine, tmp_path):
    tensor = "(__import__('torch').tensor(0.0))" if engine == "pyro" else "(0.0)"
    source = f"""
import {engine} as E, {engine}.distributions as dist
def program(x):
    loc = E.param("loc", {tensor})
    with E.plate("row", len(x)):
        E.sample("x", dist.Normal(loc, 1.0), obs=x)
"""
    file = tmp_path / "program.py"
    file.write_text(source)
    program, x = from_file(file, "program"), np.zeros(5, "float32")
    pg.fit(program, {"x": x}, "mle", num_steps=2, out=tmp_path / "run", progress=False)
    file.write_text(source.replace('"loc"', '"middle"'))
    for read in (pg.load, pg.resume):
        with pytest.raises(ChangedRun, match=r"middle .*loc|'parameter middle' is new, 'parameter loc' is gone"):
            read(tmp_path / "run")
