"""Chains of one fit over processes: the draws of one process, bit for bit; errors in place of waiting; a killed one loses nothing.

Most of it is held by threads in place of processes, which tell each other the same messages.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro
from test_sweep import DATA, line

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.processes import chains, joining, meeting, peers, torchrun


class Threads:
    """Teams of threads: each message is put on a table, and read when all are there.

    One works at a time, until it waits for the others: NumPyro's handlers are of the process, and traces of two would mix.
    """

    def __init__(self, num):
        self.works = threading.Lock()
        self.num, self.table, self.barrier = num, [b""] * num, threading.Barrier(num, timeout=100)
        self.mine = threading.local()

    def message(self, said):
        self.table[self.mine.index] = said
        self.works.release()
        try:
            self.barrier.wait()
            found = list(self.table)
            self.barrier.wait()
        finally:
            self.works.acquire()
        return found

    @contextlib.contextmanager
    def joined(self, coordinator, num, index):
        if coordinator is None:
            yield None
            return
        team = peers.Team(num, index)
        try:
            yield team
        except BaseException as error:
            team.leave(error)
            raise
        team.leave(None)

    def __call__(self, work):
        """What work(words) returned or raised in each of them; words: those of `pg.fit` that say which one it is."""
        found = [None] * self.num

        def one(index):
            self.mine.index = index
            words = {"coordinator": "here:1", "num_processes": self.num, "process_id": index}
            with self.works:
                try:
                    found[index] = work(words)
                except Exception as error:
                    found[index] = error

        threads = [threading.Thread(target=one, args=(index,)) for index in range(self.num)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


@pytest.fixture
def together(monkeypatch):
    def made(num, work):
        threads = Threads(num)
        monkeypatch.setattr(joining, "joined", threads.joined)
        monkeypatch.setattr(peers.Team, "messages", lambda team, said: threads.message(said))
        found = threads(work)
        assert not threads.barrier.broken, "one waited for a message that nobody sent"
        return found

    return made


def coins(y):
    """Two unknowns that are finite, for a sampler of all chains at once."""
    a = numpyro.sample("a", dist.Bernoulli(0.3))
    b = numpyro.sample("b", dist.Bernoulli(0.6))
    numpyro.sample("y", dist.Normal(a + 2.0 * b, 1.0), obs=y)


def steep(x, y=None, width=1.0, deadly=False):
    """`line` but where no point that is compared comes."""
    slope = numpyro.sample("slope", dist.Normal(0.0, width))
    with numpyro.plate("point", len(x)):
        numpyro.sample("y", dist.Normal(jnp.where(slope > 50, slope + 20, slope) * x, 1.0), obs=y)


def pyro_line(x, y=None):
    import pyro
    import pyro.distributions as pyro_dist
    import torch

    slope = pyro.sample("slope", pyro_dist.Normal(0.0, 1.0))
    with pyro.plate("point", len(x)):
        pyro.sample("y", pyro_dist.Normal(slope * torch.as_tensor(x), 1.0), obs=y)


SHORT = {"num_samples": 60, "num_warmup": 40, "progress": False, "seed": 3}
CASES = {
    "random_walk": (line, DATA, "random_walk", {"num_chains": 5}),
    "gibbs": (coins, {"y": np.array(1.3)}, "gibbs", {"num_chains": 5}),
    "many": (line, DATA, "random_walk", {"num_chains": 70}),
    "nuts": (line, DATA, "nuts", {"num_chains": 3}),
    "pyro": (pyro_line, DATA, "random_walk", {"num_chains": 3, "engine": "pyro"}),
}


MARKS = {case: [] if case == "gibbs" else [pytest.mark.slow] for case in CASES} | {
    "pyro": [needs_pyro, pytest.mark.slow]
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=MARKS[case]) for case in CASES])
def test_draws_and_what_is_on_disk_are_those_of_one_process(case, together, tmp_path):
    program, data, inference, words = CASES[case]
    alone = pg.fit(program, data, inference, out=tmp_path / "alone", **SHORT, **words)
    each = together(2, lambda who: pg.fit(program, data, inference, out=tmp_path / "both", **SHORT, **words, **who))
    for index, fit in enumerate(each):
        assert fit.complete
        assert fit.directory == (None if index else tmp_path / "both")
        for name, value in alone.records.items():
            assert np.array_equal(fit.records[name], value, equal_nan=True), name
        assert fit.state.keys() == alone.state.keys()
        assert all(np.array_equal(fit.state[k], v, equal_nan=True) for k, v in alone.state.items())
    there = pg.load(tmp_path / "both", program)
    assert np.array_equal(there.records["z"], alone.records["z"])


def test_each_share_begins_at_its_own_values():
    points = np.arange(10.0).reshape(5, 2)
    for begin, of in ((points, lambda part: part), ({"a": points}, lambda part: part["a"])):
        assert np.array_equal(of(chains._part(begin, range(1, 3))), points[1:3])
    assert chains._part(None, range(1, 3)) is None


def test_a_run_goes_on_with_any_number_of_processes(together, tmp_path, monkeypatch):
    """Stopped by Ctrl-C in one of three, gone on with by two, then by one."""
    begin = {"slope": np.array([-1.0, 0.5, 2.0])}
    whole = pg.fit(line, DATA, "random_walk", num_chains=3, init=begin, **SHORT)
    agreed = peers.Team.agreed
    asked = {}

    def stopping(team, size, stops):
        asked[team] = asked.get(team, 0) + 1
        return agreed(team, min(size, 16), asked[team] == 3 and team.index == team.num - 1)

    monkeypatch.setattr(peers.Team, "agreed", stopping)
    words = {**SHORT, "num_chains": 3, "init": begin}
    each = together(3, lambda who: pg.fit(line, DATA, "random_walk", out=tmp_path, **words, **who))
    assert len({fit.num_steps for fit in each}) == 1
    assert 0 < (steps := each[0].num_steps) < 40
    each = together(2, lambda who: pg.resume(tmp_path, line, progress=False, **who))
    assert len({fit.num_steps for fit in each}) == 1
    assert steps < each[0].num_steps < 80
    monkeypatch.undo()
    done = pg.resume(tmp_path, line, progress=False)
    assert done.complete
    assert all(np.array_equal(done.records[k], v) for k, v in whole.records.items())


def test_what_one_raises_ends_all(together, tmp_path):
    def work(who):
        data = {**DATA, "y": DATA["y"] * (np.nan if who["process_id"] else 1)}
        return pg.fit(line, data, "random_walk", out=tmp_path / "run", num_chains=2, **SHORT, **who)

    first, second = together(2, work)
    assert isinstance(second, ValueError)
    assert "y" in str(second)
    assert isinstance(first, peers.PeerFailed)
    assert str(first).startswith("Process 1 of the fit ended: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seed": 4}, "the setting seed"),
        ({"num_samples": 61}, "num_samples"),
        ({"data": {**DATA, "y": DATA["y"] + 1}}, "the data y"),
        ({"init": {"slope": 1.0}}, "its begin"),
        ({"program": steep}, "the code, or what it reads, was changed"),
    ],
)
def test_all_are_asked_for_the_same(changed, told, together, tmp_path):
    def work(who):
        words = {"program": line, "data": DATA, **SHORT, "num_chains": 2, **(changed if who["process_id"] else {})}
        return pg.fit(inference="random_walk", out=tmp_path / "run", **words, **who)

    for error in together(2, work):
        assert isinstance(error, ValueError)
        assert told in str(error)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_shared_is_refused(together):
    work = lambda **words: together(3, lambda who: pg.fit(line, DATA, progress=False, **words, **who))  # noqa: E731
    for error in work(inference="svi"):
        assert isinstance(error, Incompatible)
        assert "svi is neither" in str(error)
    for error in work(inference="nuts", num_chains=2):
        assert isinstance(error, ValueError)
        assert "2 chains over 3 processes" in str(error)


def test_rows_of_a_pyro_learner_are_shared_by_torchrun_alone():
    assert "where torchrun starts them" in peers.Team(2, 0).refuses("pyro", chains=False)
    assert not peers.Team(2, 0).refuses("pyro", chains=True)


def test_a_process_of_several_still_ends_at_sigterm(monkeypatch):
    """JAX's preemption service takes the signal and goes on; see findings/jax_distributed_takes_no_sigterm.sh."""
    import jax

    config, seen = jax.config, []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(peers.runtime, "started", lambda: False)
    monkeypatch.setattr(meeting, "meet", lambda *who: None)
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *a, **k: seen.append(config.jax_enable_preemption_service)
    )
    peers.connected("127.0.0.1:1234", 2, 0)
    assert seen == [False]
    assert config.jax_enable_preemption_service


BAD = {
    "no numbers": ({"coordinator": "127.0.0.1:1234"}, TypeError, "needs num_processes and process_id"),
    "no coordinator": ({"num_processes": 2, "process_id": 0}, TypeError, "need coordinator"),
    "beyond": ({"coordinator": "127.0.0.1:1234", "num_processes": 2, "process_id": 2}, ValueError, "it is 0 to 1"),
    "below": ({"coordinator": "127.0.0.1:1234", "num_processes": 2, "process_id": -1}, ValueError, "it is 0 to 1"),
    "none": ({"coordinator": "127.0.0.1:1234", "num_processes": 0, "process_id": 0}, ValueError, "must be above 0"),
    "no port": ({"coordinator": "127.0.0.1", "num_processes": 2, "process_id": 0}, ValueError, "expected HOST:PORT"),
    "too late": ({"coordinator": "127.0.0.1:1234", "num_processes": 2, "process_id": 0}, RuntimeError, "JAX has run"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_at_once(what):
    import jax

    jax.devices()
    words, kind, told = BAD[what]
    with pytest.raises(kind, match=told):
        pg.fit(line, DATA, "random_walk", **words)


def test_what_torchrun_starts_is_refused(monkeypatch, tmp_path):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Incompatible, match="torchrun started 2 processes"):
        pg.fit(line, DATA, "random_walk", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert torchrun.started() == 0


# ---- where they meet ---------------------------------------------------------------------------------------------------


def free_port(ports=(0,)):
    """A port that nobody has, of some; 0: any."""
    for port in ports:
        with contextlib.suppress(OSError), socket.socket() as found:
            found.bind(("127.0.0.1", port))
            return found.getsockname()[1]
    raise AssertionError("all ports are taken")


def meet(*who, patience=20.0, port=None):
    """What became of processes (index, num) that meet: None, or the error."""
    port, found = port or free_port(), [None] * len(who)

    def one(i, index, num):
        try:
            meeting.meet("127.0.0.1", port, num, index, patience)
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=one, args=(i, *each)) for i, each in enumerate(who)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_all_go_on_when_all_are_there():
    assert meet((2, 3), (1, 3), (0, 3)) == [None, None, None]


@pytest.mark.parametrize(
    ("guests", "told"),
    [([(1, 3)], "counts 3 processes"), ([(1, 3), (1, 3)], "have process_id 1")],
    ids=["count", "twice"],
)
def test_those_that_do_not_go_together_are_told(guests, told):
    num = 2 if len(guests) == 1 else 3
    for error in meet((0, num), *guests):
        assert told in str(error)


def test_nobody_is_waited_for_for_ever():
    assert "Process 1, 2 of 3 did not come" in str(meet((0, 3), patience=0.3)[0])
    assert "No coordinator at 127.0.0.1" in str(meet((1, 2), patience=0.3)[0])


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        (error,) = meet((0, 2), port=other.getsockname()[1])
    assert "is taken by another program" in str(error)


def test_strangers_and_those_that_leave_are_no_processes():
    port, found = free_port(), []
    thread = threading.Thread(target=lambda: found.extend(meet((0, 2), port=port)))
    thread.start()
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"", b'{"process_id": 1, "num_processes": 2}'):
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as door:
                door.sendall(said)
                break
    assert meet((1, 2), port=port) == [None]
    thread.join()
    assert found == [None]


# ---- processes ---------------------------------------------------------------------------------------------------------

CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_sweep import DATA, line
import probgen as pg
words = json.loads(sys.argv[2])
pg.fit(line, DATA, "random_walk", progress=False, **words)
"""


def started(port, child=CHILD, **words):
    """Two processes of one fit."""
    command = [sys.executable, "-c", child, str(Path(__file__).parent)]
    who = {"coordinator": f"127.0.0.1:{port}", "num_processes": 2}
    given = {
        **os.environ,
        "PROBGEN_HEARTBEAT_TIMEOUT": "5",
        "PROBGEN_COORDINATOR_TIMEOUT": "200",
        "JAX_PLATFORMS": "cpu",
    }
    return [
        subprocess.Popen(
            [*command, json.dumps({**words, **who, "process_id": i})], stderr=subprocess.PIPE, text=True, env=given
        )
        for i in range(2)
    ]


def kill_one(both, run):
    """Kill the second of two processes in the midst of a run on disk; the first says so, and ends."""
    try:
        deadline = time.monotonic() + 300
        while not (run / "state.safetensors").exists():
            assert time.monotonic() < deadline
            assert both[0].poll() is None, both[0].communicate()[1]
            time.sleep(0.02)
        both[1].send_signal(signal.SIGKILL)
        said = both[0].communicate(timeout=100)[1]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    assert both[0].returncode != 0
    assert "Another process of the fit is gone" in said


def test_a_killed_process_leaves_a_run_that_goes_on(tmp_path):
    """Killed in the midst; the other one ends by itself, and one process goes on, to the draws of one process."""
    words = {"num_chains": 3, "num_samples": 8_000, "num_warmup": 100, "seed": 5}
    both = started(free_port(), out=str(tmp_path / "run"), **words)
    kill_one(both, tmp_path / "run")
    assert not pg.load(tmp_path / "run", line).complete
    done, whole = (
        pg.resume(tmp_path / "run", line, progress=False),
        pg.fit(line, DATA, "random_walk", progress=False, **words),
    )
    assert done.complete
    assert all(np.array_equal(done.records[k], v) for k, v in whole.records.items())


@pytest.mark.slow
def test_two_processes_make_what_one_makes(tmp_path):
    words = {"num_chains": 3, "num_samples": 500, "num_warmup": 100, "seed": 5}
    for process in (both := started(free_port(), out=str(tmp_path / "run"), **words)):
        assert process.communicate(timeout=300)[1].count("Error") == 0
    assert [process.returncode for process in both] == [0, 0]
    there, here = pg.load(tmp_path / "run", line), pg.fit(line, DATA, "random_walk", progress=False, **words)
    assert there.complete
    assert all(np.array_equal(there.records[k], v) for k, v in here.records.items())


# ---- as a job of SLURM -------------------------------------------------------------------------------------------------

SRUN = """#!/bin/bash
for i in $(seq 0 $((SLURM_NTASKS - 1))); do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & done
wait
"""
SAYS = '#!/bin/bash\necho "$SLURM_PROCID $*" >> said\n'
RUNS = f"""#!/bin/bash
PYTHONPATH={Path(pg.__file__).parent.parent} exec {sys.executable} -c 'from probgen.cli import main; raise SystemExit(main())' "$@"
"""


def job(folder, probgen, **given):
    """Run the page's script of a fit as SLURM would, on this machine: what it said."""
    page = (Path(pg.__file__).parent.parent / "docs/pages/howto/cluster.md").read_text()
    (script,) = [block for block in page.split("```")[1::2] if "srun" in block]
    for name, text in {
        "srun": SRUN,
        "scontrol": "#!/bin/bash\necho 127.0.0.1\necho other\n",
        "probgen": probgen,
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    slurm = {"JOB_ID": "4711", "JOB_NODELIST": "node[1-2]", "NTASKS": "2", "CPUS_PER_TASK": "1", **given}
    named = {f"SLURM_{k}": v for k, v in slurm.items()}
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script.removeprefix("sh\n")], cwd=folder, env={**os.environ, **path, **named, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_job_of_slurm_says_who_is_who(tmp_path):
    from probgen.cli.flags import _parse

    job(tmp_path, SAYS)
    (tmp_path / "runs" / "schools").mkdir(parents=True)
    (tmp_path / "runs" / "schools" / "run.json").touch()
    job(tmp_path, SAYS)
    said = [line.split() for line in (tmp_path / "said").read_text().splitlines()]
    asked = [(words[0], _parse(words[1:])) for words in said]
    assert [type(each).__name__ for _, each in asked[2:]] == ["Resume", "Resume"]
    for each in (asked[:2], asked[2:]):
        assert sorted(number for number, _ in each) == ["0", "1"]
        for number, found in each:
            assert (found.process_id, found.num_processes) == (int(number), 2)
            assert meeting.address(found.coordinator) == ("127.0.0.1", 24711)
            assert str(found.out) == "runs/schools"


@pytest.mark.slow
def test_a_job_of_slurm_runs(tmp_path):
    told = job(tmp_path, RUNS, JOB_ID=str(free_port(range(24_000, 25_000))))
    assert "Run: runs/schools" in told, told
    assert pg.load(tmp_path / "runs" / "schools").complete
    assert pg.load(tmp_path / "runs" / "schools").z.shape[0] == 8
