"""Crash safety: a run that was killed, at any moment, goes on to the result of an uninterrupted one, bit for bit.

A kill leaves what is on disk at that moment. So besides killing real processes, a thread photographs the directory of a
run while it is written, and each photograph is resumed.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen.run import from_file
from probgen.run.store import CorruptRun, Store

NUMPYRO = """
import numpyro, numpyro.distributions as dist

def program(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)
"""
PYRO = """
import pyro, pyro.distributions as dist, torch

def program(x, y=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1], dtype=x.dtype), 1.0).to_event(1))
    with pyro.plate("point", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)
"""
NUTS = {"inference": "nuts", "num_warmup": 150, "num_samples": 250, "num_chains": 2}
SVI = {"inference": "mean_field", "num_steps": 1500}
RUNS = {
    "numpyro-nuts": (NUMPYRO, NUTS),
    "numpyro-svi": (NUMPYRO, SVI),
    "pyro-nuts": (PYRO, NUTS),
    "pyro-svi": (PYRO, {**SVI, "num_steps": 300}),
}
KINDS = [pytest.param(k, marks=[needs_pyro] * k.startswith("pyro")) for k in RUNS]
COMMAND = [sys.executable, "-c", "import sys; from probgen.cli import main; sys.exit(main())"]


RNG = np.random.default_rng(0)
X = RNG.normal(size=(2000, 8))
DATA = {"x": X, "y": (RNG.uniform(size=2000) < 1 / (1 + np.exp(-X.sum(1)))).astype(float)}


def same(one, other):
    """Whether two fits hold the same bits, in what they tell and in what they would go on from."""
    return all(
        getattr(one, part).keys() == getattr(other, part).keys()
        and all(np.array_equal(v, getattr(other, part)[k], equal_nan=True) for k, v in getattr(one, part).items())
        for part in ("records", "answer", "state")
    )


def photograph(run, folder, enough):
    """Copy a run's directory again and again; the state first, so that later segments are those of a crash between."""
    taken = 0
    while not enough.is_set():
        copy = folder / f"{taken:04d}"
        with contextlib.suppress(FileNotFoundError):
            (copy / "draws").mkdir(parents=True, exist_ok=True)
            for name in ("run.json", "data.safetensors", "state.safetensors"):
                shutil.copy(run / name, copy / name)
            for segment in (run / "draws").iterdir():
                shutil.copy(segment, copy / "draws" / segment.name)
            taken += 1
        time.sleep(0.005)
    return taken


@pytest.fixture(scope="module", params=KINDS)
def album(request, tmp_path_factory):
    """A finished run, and photographs of its directory from its beginning to its end."""
    source, settings = RUNS[request.param]
    folder = tmp_path_factory.mktemp("album")
    (folder / "program.py").write_text(source)
    program, enough = from_file(folder / "program.py", "program"), threading.Event()
    watcher = threading.Thread(target=photograph, args=(folder / "run", folder / "photos", enough))
    watcher.start()
    try:
        fit = pg.fit(program, DATA, out=folder / "run", **settings)
    finally:
        enough.set()
        watcher.join()
    photos = {Store(p).arrays("state.safetensors")[1]["step"]: p for p in sorted((folder / "photos").iterdir())[:-1]}
    return fit, photos, folder


def unfinished(album):
    """The first photograph after the middle of the run's steps, else the last before the end."""
    fit, photos, _ = album
    late = [step for step in photos if step < fit.num_steps]
    return photos[next((step for step in late if step > fit.num_steps / 2), late[-1])]


def test_every_photograph_resumes_to_the_same_bits(album, tmp_path):
    fit, photos, _ = album
    steps = sorted(step for step in photos if step < fit.num_steps)
    assert steps, "the run was over before it was photographed"
    for step in {steps[0], steps[len(steps) // 2], steps[-1]}:
        shutil.copytree(photos[step], tmp_path / str(step))
        assert same(pg.resume(tmp_path / str(step)), fit)


def test_half_written_files_are_written_again(album, tmp_path):
    """Killed amid the next segment, amid the state, and between the two."""
    fit, _, folder = album
    run = shutil.copytree(unfinished(album), tmp_path / "run")
    step = Store(run).arrays("state.safetensors")[1]["step"]
    end = min(step + 7, fit.num_steps)
    Store(run).append(step, {k: v[:, step:end] for k, v in fit.records.items()})
    whole = (run / "draws" / f"{step:08d}-{end:08d}").read_bytes()
    (run / "draws" / f"{end:08d}-{end + 9:08d}.part").write_bytes(whole[: len(whole) // 2])
    (run / "state.safetensors.part").write_bytes((folder / "run" / "state.safetensors").read_bytes()[:100])
    assert pg.load(run).num_steps == step
    assert same(pg.resume(run), fit)
    assert same(pg.load(run), fit)


def test_a_kill_before_the_first_state(album, tmp_path):
    fit, photos, _ = album
    run = shutil.copytree(photos[min(photos)], tmp_path / "run")
    (run / "state.safetensors").unlink()
    assert same(pg.resume(run), fit)


def test_a_corrupt_state_is_named_and_the_draws_are_kept(album, tmp_path):
    fit, _, _ = album
    run = shutil.copytree(unfinished(album), tmp_path / "run")
    before = pg.load(run)
    (run / "state.safetensors").write_bytes(b"not what was written")
    with pytest.raises(CorruptRun, match=r"state.safetensors cannot be read(?s:.*)draws.*are kept"):
        pg.resume(run)
    with pytest.warns(UserWarning, match=r"state.safetensors cannot be read.*All draws on disk are read"):
        found = pg.load(run).records
    assert found.keys() == before.records.keys()
    for key, value in found.items():
        assert np.array_equal(value, fit.records[key][:, : value.shape[1]], equal_nan=True)


@pytest.mark.parametrize("name", ["run.json", "data.safetensors"])
def test_other_corrupt_files_are_named(album, tmp_path, name):
    run = shutil.copytree(unfinished(album), tmp_path / "run")
    (run / name).write_bytes(b"{")
    with pytest.raises(CorruptRun, match=name):
        pg.load(run)


def flipped(file):
    """One bit of what a file holds at its end, where its form does not show it."""
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x40
    file.write_bytes(content)


def test_damage_that_leaves_the_form_of_a_file_is_told(album, tmp_path):
    _, _, folder = album
    files = [*(folder / "run").glob("*.safetensors"), *(folder / "run" / "draws").iterdir()]
    for file in files:
        if file.name == "data.safetensors":
            continue  # its content is known by the seal
        run = shutil.copytree(folder / "run", tmp_path / "run", dirs_exist_ok=True)
        flipped(run / file.relative_to(folder / "run"))
        if file.name != "answer.safetensors":  # which is made again
            with pytest.raises(CorruptRun, match=rf"{file.name} cannot be read \(its checksum"):
                pg.resume(run)
        if file.name != "state.safetensors":
            with pytest.raises(CorruptRun, match=rf"{file.name} cannot be read \(its checksum"):
                pg.load(run)


def test_segments_that_are_gone_are_told(album, tmp_path):
    fit, _, folder = album
    run = shutil.copytree(folder / "run", tmp_path / "run")
    max((run / "draws").iterdir()).unlink()
    (run / "draws" / "._notes-of-a-file-manager").write_bytes(b"")
    with pytest.warns(UserWarning, match=rf"segments end at step \d+, the state is at step {fit.num_steps}"):
        there = pg.load(run)
    assert not there.complete
    with pytest.raises(CorruptRun, match="segments end at step"):
        pg.resume(run)


def test_a_record_that_misses_something_is_named(album, tmp_path):
    run = shutil.copytree(album[2] / "run", tmp_path / "run")
    (run / "run.json").write_text((run / "run.json").read_text().replace('"static"', '"stati3"'))
    with pytest.raises(CorruptRun, match=r"run.json does not say static"):
        pg.load(run)


def test_a_finished_run_resumes_to_itself(album, tmp_path):
    fit, _, folder = album
    assert same(pg.resume(shutil.copytree(folder / "run", tmp_path / "run")), fit)


# ---- real processes ----------------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path):
    """A function that starts `probgen` in a folder with data; what still runs at the end is killed."""
    started = []

    def start(*words):
        command = [*COMMAND, *words, "--no-progress"]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=tmp_path, text=True, **streams))
        return started[-1]

    np.savez(tmp_path / "data.npz", **DATA)
    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_news(path, process, seconds=100):
    """Until the file is written (again), or the process is over."""
    before, deadline = path.stat().st_mtime_ns if path.exists() else 0, time.monotonic() + seconds
    while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > before):
        assert time.monotonic() < deadline, f"nothing new in {path} in {seconds} s"
        time.sleep(0.005)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_processes(kind, shell, tmp_path):
    """Killed at a random moment, resumed, killed again (Pyro, slow to import, once), resumed: the same bits."""
    source, settings = RUNS[kind]
    if "num_samples" in settings:
        settings = {**settings, "num_samples": 250 if source == PYRO else 3000}
    (tmp_path / "program.py").write_text(source)
    words = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items()]
    moment, out, hits = random.Random(kind), tmp_path / "run", 0
    process = shell("fit", "program.py:program", "--data", "data.npz", "--out", "run", *words)
    for news in ("state.safetensors",) if source == PYRO else ("run.json", "state.safetensors"):
        wait_for_news(out / news, process)
        time.sleep(moment.uniform(0, 0.5))
        process.kill()
        hits += process.wait(60) == -signal.SIGKILL
        process = shell("resume", "run")
    assert process.wait(100) == 0, process.stderr.read()
    assert hits, "the run was over before it was killed"
    assert same(pg.load(out), pg.fit(from_file(tmp_path / "program.py", "program"), DATA, **settings))


def test_ctrl_c_returns_what_is_there_and_it_resumes(tmp_path):
    """SIGINT to this very process: the Fit of the chunks so far, whose state and draws belong together."""
    (tmp_path / "program.py").write_text(NUMPYRO)
    program = from_file(tmp_path / "program.py", "program")

    def press():
        while not (tmp_path / "run" / "state.safetensors").exists():
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    fit = pg.fit(program, DATA, out=tmp_path / "run", **NUTS)
    presser.join()
    assert not fit.complete
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert 0 < fit.num_steps < fit.inference.total_steps
    fit.save(tmp_path / "saved")
    whole = pg.resume(tmp_path / "run")
    assert whole.complete
    assert same(pg.resume(tmp_path / "saved", program), whole)


def test_ctrl_c_in_the_shell_says_how_to_go_on(shell, tmp_path):
    (tmp_path / "program.py").write_text(NUMPYRO)
    words = ["--num-warmup=150", "--num-samples=100000", "--num-chains=2"]
    process = shell("fit", "program.py:program", "--data", "data.npz", "--out", "run", *words)
    wait_for_news(tmp_path / "run" / "state.safetensors", process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "probgen resume run" in told
    assert "Traceback" not in told
