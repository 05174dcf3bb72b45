"""Pyro learners whose rows processes of torchrun share: the parameters of one process, a run that a kill leaves whole."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pytest
from conftest import needs_pyro
from test_sweep import DATA, line

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.processes.peers import PeerFailed, Team
from probgen.processes.rows import SharedRows, _check_near

pytestmark = needs_pyro

PROGRAM = """
import numpy as np
import pyro
import pyro.distributions as dist
import torch

with torch.random.fork_rng():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def curve(x, y=None):
    pyro.module("net", net)
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(net(x)[:, 0], 0.5), obs=y)


x = np.random.default_rng(0).normal(size=(101, 2)).astype("float32")
DATA = {"x": x, "y": np.sin(x[:, 0])}
"""
KILLED = """
import os, signal, sys, threading, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import probgen as pg
from curves import DATA, curve


def killed(run):
    while not os.path.exists(os.path.join(run, "state.safetensors")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


if os.environ["RANK"] == "1":
    threading.Thread(target=killed, args=(sys.argv[1],), daemon=True).start()
pg.fit(curve, DATA, "mle", num_steps=800, batch_size=25, validation=0.2, out=sys.argv[1], progress=False)
"""
SETTINGS = {"num_steps": 800, "batch_size": 25, "validation": 0.2, "progress": False}


class Added(Team):
    """A team of threads that adds numbers up, and asserts that they come in step."""

    def __init__(self, index, table, barrier):
        super().__init__(len(table), index)
        self.table, self.barrier = table, barrier

    def messages(self, own):
        self.table[self.index] = own
        self.barrier.wait(20)
        found = list(self.table)
        self.barrier.wait(20)
        return found

    def add(self, numbers):
        found = self.messages(numbers.clone() if hasattr(numbers, "clone") else numbers.copy())
        assert len({each.shape for each in found}) == 1
        return sum(found)


def each_of(num, work):
    """What work(team) returned or raised in each of some threads."""
    table, barrier = [None] * num, threading.Barrier(num)
    found: list[Any] = [None] * num

    def one(index):
        try:
            found[index] = work(Added(index, table, barrier))
        except Exception as error:
            found[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_a_mean_over_shares_is_that_over_all_rows():
    """Ten rows over three processes, whose shares differ in size; a parameter that is not used, as another that is."""
    import torch

    from probgen.engine.pyro.together import Together

    batch = {"x": torch.arange(10.0, dtype=torch.float64) ** 2}
    leaves = {"a": torch.tensor([1.5, -0.5], dtype=torch.float64).requires_grad_(), "b": torch.zeros(3)}

    def of(some):
        loss = (leaves["a"][0] * some["x"] - leaves["a"][1]).square().mean()
        return [*torch.autograd.grad(loss, [leaves["a"]]), None], loss.item(), some["x"].mean().item()

    (whole, _), loss, beside = of(batch)
    for gradients, its_loss, its_beside in each_of(3, lambda team: Together(team).mean(of, batch, leaves)):
        torch.testing.assert_close(gradients[0], whole, rtol=1e-12, atol=0)
        assert torch.equal(gradients[1], torch.zeros(3))
        assert np.allclose([its_loss, its_beside], [loss, beside], rtol=1e-12)


def test_what_fails_in_one_ends_all_in_the_same_step():
    import torch

    from probgen.engine.pyro.together import Together

    def work(team):
        def of(some):
            if team.index == 1:
                raise ZeroDivisionError("its rows")
            return [torch.zeros(1)], 0.0, None

        return Together(team).mean(of, {"x": torch.zeros(4)}, {"a": torch.zeros(1)})

    first, second = each_of(2, work)
    assert isinstance(second, ZeroDivisionError)
    assert isinstance(first, PeerFailed)


class Held:
    """An executor whose state is what it is given, and another one in each process at first."""

    def __init__(self, team):
        self.begun = float(team.index + 1)

    def init(self, begin):
        self.restore({"a": np.array([self.begun])})

    def restore(self, arrays):
        self.arrays = arrays

    def state(self):
        return self.arrays


def test_all_begin_where_the_first_does_and_those_that_come_apart_are_told():
    def work(team):
        shared = SharedRows(team, Held)
        shared.init()
        assert shared.state()["a"] == 1.0
        shared.own.arrays = {"a": np.array([1.0 + 1e-6 * team.index])}
        assert shared.state()["a"] == 1.0 + 1e-6 * team.index
        shared.own.arrays = {"a": np.array([1.0 + team.index])}
        return shared.state()

    for error in each_of(2, work):
        assert isinstance(error, RuntimeError)
        assert "Process 1 holds other parameters than process 0 (a)" in str(error)
    near = [{"sizes": np.array([1.0, 5.0])}, {"sizes": np.array([1.0, 5.0 + 1e-4])}]
    _check_near(near, ["a", "b"])
    with pytest.raises(RuntimeError, match=r"Process 1 holds other parameters .*\(b\)"):
        _check_near([near[0], {"sizes": np.array([1.0, 5.1])}], ["a", "b"])


@pytest.fixture
def by_torchrun(monkeypatch):
    """As torchrun starts the second of two; nothing here may wait for the first."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


def test_what_cannot_be_shared_is_refused_before_anybody_is_waited_for(by_torchrun, tmp_path):
    import pyro
    import pyro.distributions as dist
    import torch

    def slope(x, y=None):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(slope * torch.as_tensor(x), 1.0), obs=y)

    with pytest.raises(Incompatible, match="mean_field is neither"):
        pg.fit(slope, DATA, "mean_field", progress=False)
    with pytest.raises(Incompatible, match="one for NumPyro"):
        pg.fit(line, DATA, "mle", progress=False, by_row=True)
    for asks in (
        lambda: pg.sweep(line, {"num_samples": [10]}, data=DATA, out=tmp_path),
        lambda: pg.sbc(line, data=DATA),
        lambda: pg.extend(tmp_path, 10),
    ):
        with pytest.raises(ValueError, match="torchrun started 2 processes, and each"):
            asks()


def torchrun(*words):
    """Two processes on this machine: the exit code and what was said."""
    path = os.pathsep.join([os.path.dirname(os.path.dirname(pg.__file__)), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, words)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_two_processes_learn_what_one_does_and_a_kill_loses_nothing(tmp_path, monkeypatch):
    """The shell's run to its end; then one that a kill ends, which one process goes on with. Both up to rounding."""
    (tmp_path / "curves.py").write_text(PROGRAM)
    (tmp_path / "killed.py").write_text(textwrap.dedent(KILLED))
    monkeypatch.syspath_prepend(tmp_path)
    curves = importlib.import_module("curves")
    rows, curve = curves.DATA, curves.curve
    np.savez(tmp_path / "rows.npz", **rows)
    alone = pg.fit(curve, rows, "mle", **SETTINGS)
    flags = ["--num-steps", 800, "--batch-size", 25, "--validation", 0.2, "--data", tmp_path / "rows.npz"]
    words = ["fit", f"{tmp_path / 'curves.py'}:curve", "-i", "mle", *flags, "--out", tmp_path / "shell"]
    code, said = torchrun("-m", "probgen.cli", *words)
    assert code == 0, said
    assert said.count("Run: ") == 1
    code, said = torchrun(tmp_path / "killed.py", tmp_path / "run")
    assert code != 0
    assert signal.SIGKILL.name in said or "exitcode  : -9" in said
    left = pg.load(tmp_path / "run", curve)
    assert 0 < left.num_steps < 800
    for fit in (pg.load(tmp_path / "shell"), pg.resume(tmp_path / "run", curve, progress=False)):
        assert fit.complete
        steps = fit.records["loss"].shape[1]
        assert steps == alone.records["loss"].shape[1]
        np.testing.assert_allclose(fit.records["loss"], alone.records["loss"], rtol=1e-3)
        for name, value in alone.answer.items():
            np.testing.assert_allclose(fit.answer[name], value, rtol=1e-3, atol=1e-3)
