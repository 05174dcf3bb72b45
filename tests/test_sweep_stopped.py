"""Sweeps that are stopped: workers that die, Ctrl-C, the end of the process that asked."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from test_sweep import DATA, QUICK, line

import probgen as pg


def killer(folder, killed, of=lambda pid: pid):
    """Kills the worker that writes a run, or another process by its number, once there is a checkpoint."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not killed:
        for lock in folder.glob("*/lock"):
            if (lock.parent / "state.safetensors").exists():
                killed.append(of(json.loads(lock.read_text())["pid"]))
                os.kill(killed[0], signal.SIGKILL)
                return
        time.sleep(0.01)


def killed_and_gone_on_with(folder, of=lambda pid: pid, **where):
    """A sweep whose worker is killed in the midst of its fit: the draws are those of one that nobody killed."""
    killed = []
    thread = threading.Thread(target=killer, args=(folder, killed, of))
    thread.start()
    words = {"inference": "random_walk", "num_chains": 2, "num_samples": 10_000, "progress": False}
    found = pg.sweep(line, data=DATA, seeds=1, out=folder, **where, **words)
    thread.join()
    assert killed
    assert found.error.item() == ""
    there, here = pg.load(found.run.item()), pg.fit(line, DATA, seed=0, **words)
    assert np.array_equal(there.records["z"], here.records["z"])


def test_a_killed_worker_loses_nothing(tmp_path):
    killed_and_gone_on_with(tmp_path, num_workers=1)


def test_what_kills_two_workers_is_an_error_and_the_others_go_on(tmp_path):
    data = {"killing": {**DATA, "deadly": True}, "raising": {**DATA, "deadly": "raises"}, "fine": DATA}
    found = pg.sweep(line, data=data, seeds=[0], out=tmp_path, num_workers=1, num_warmup=100, **QUICK)
    assert found.data.values.tolist() == ["killing", "raising", "fine"]
    assert found.status.sel(data="killing").item() == "error"
    assert "killed by SIGKILL" in found.error.sel(data="killing").item()
    assert np.isnan(found.r_hat.sel(data="killing"))
    assert found.status.sel(data="raising").item() == "error"
    assert "told by the program" in found.error.sel(data="raising").item()
    assert found.error.sel(data="fine").item() == ""
    assert found.status.sel(data="fine").item() != "error"


def runs(pid):
    """Whether a process is there, and no zombie that nobody waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def normal(x):
    numpyro.sample("x", dist.Normal(numpyro.sample("m", dist.Normal(0.0, 1.0)), 1.0), obs=x)


SCRIPT = """
import probgen as pg
import numpyro, numpyro.distributions as dist

def normal(x):
    numpyro.sample("x", dist.Normal(numpyro.sample("m", dist.Normal(0.0, 1.0)), 1.0), obs=x)

pg.sweep(normal, data={"x": 1.0}, inference="random_walk", num_samples=10**9, num_chains=1, seeds=2, out="runs", num_workers=2)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_sweep_that_is_stopped_stops_all_workers_and_leaves_runs(number, tmp_path):
    """The script has no guard of __main__: workers do not run it again."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("runs/*/state.safetensors"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pids = [json.loads(lock.read_text())["pid"] for lock in tmp_path.glob("runs/*/lock")]
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)
    assert len(pids) == 2
    deadline = time.monotonic() + 60 * (number == signal.SIGKILL)
    while any(map(runs, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for run in tmp_path.glob("runs/*/run.json"):
        there = pg.load(run.parent, normal)  # not by its file, which would run the script again
        assert not there.complete
        assert there.num_steps > 0
        assert np.isfinite(there.records["z"]).all()
