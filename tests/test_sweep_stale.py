"""Sweeps used again: a guide is part of what was asked for, findings count for one state of a run, each point has its own run."""

import pickle

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.autoguide import AutoDelta, AutoNormal

import probgen as pg
from probgen.fits.seal import ChangedRun
from probgen.processes import crews
from probgen.run import verdicts
from probgen.run.store import Store
from probgen.sweeps import asking, fitting, sweeping
from probgen.sweeps.fitting import Job, Outcome
from probgen.sweeps.grid import grid

DATA = {"x": np.array([-0.5, 0.3, 1.8])}


def normal(x=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("point", 3):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def wide(x=None):
    numpyro.sample("mean", dist.Normal(numpyro.param("loc", 0.0), 1.0))


def narrow(x=None):
    numpyro.sample("mean", dist.Normal(numpyro.param("loc", 0.0), 0.1))


def edited(x=None):
    numpyro.sample("mean", dist.Normal(numpyro.param("loc", 0.0), 2.0))


edited.__name__ = edited.__qualname__ = "wide"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with the run of the one point of a sweep by a guide of one's own."""
    out = tmp_path_factory.mktemp("sweep")
    (point,) = grid(normal, {}, DATA, "svi", 1, {}).points
    pg.fit(normal, DATA, "svi", guide=wide, num_steps=20, progress=False, out=out / point.folder)
    return out


@pytest.mark.parametrize(
    ("guide", "told"), [(narrow, "there wide, now narrow"), (edited, "the guide's mean"), (AutoDelta, "now AutoDelta")]
)
def test_another_guide_is_another_sweep(begun, guide, told, monkeypatch):
    monkeypatch.setattr(crews, "Worker", None)  # none is started
    with pytest.raises(ChangedRun, match=told):
        pg.sweep(normal, None, DATA, "svi", guide=guide, num_steps=20, seeds=1, out=begun, progress=False)


def test_the_same_guide_is_the_same_sweep(begun):
    plan = grid(normal, {}, DATA, "svi", 1, {})
    asked = asking.checked(normal, plan, plan.points, {"guide": wide, "num_steps": 20})
    assert not asking.others(begun, asked)
    (run,) = begun.iterdir()
    with pytest.raises(ChangedRun, match="the guide's mean"):
        pg.resume(run, pg.Model(normal, guide=edited))
    assert pg.resume(run, pg.Model(normal, guide=wide)).complete


def test_guides_of_a_grid_are_each_written_down_with_their_own_run():
    plan = grid(normal, {"guide": [wide, narrow, AutoNormal]}, DATA, "svi", 1, {})
    assert plan.axes[0].labels == ("wide", "narrow", "AutoNormal")
    asked = asking.checked(normal, plan, plan.points, {"num_steps": 20})
    guides = [one.record["program"]["guide"] for one in asked.values()]
    assert [guide.get("name") or guide.get("auto") for guide in guides] == ["wide", "narrow", "AutoNormal"]


def test_every_point_has_a_name_and_a_run_of_its_own():
    values = [None, "None", 1, "1", lambda: 1, lambda: 2, (1,), "(1,)"]
    plan = grid(normal, {"a": values}, DATA, "svi", 1, {})
    assert len({*plan.axes[0].labels}) == len({point.folder for point in plan.points}) == len(values)
    assert [point.settings["a"] for point in plan.points] == values
    long = grid(normal, {"a": ["\U00020000" * 80]}, DATA, "svi", 1, {})
    assert len(long.points[0].folder.encode()) < 100


BAD = {
    "a figure": ({"settings": {"r_hat": [1, 2]}}, TypeError, "'r_hat' is what a sweep tells"),
    "a column": ({"settings": {"status": [1, 2]}}, TypeError, "'status' is what a sweep tells"),
    "a seed": ({"seeds": 20_260_101}, ValueError, r"such as \[20260101\]"),
    "names": ({"inference": {1: "nuts", "1": "hmc"}}, ValueError, "a name twice"),
    "no name": ({"inference": {True: "nuts", "a": "hmc"}}, TypeError, "has the name True"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_would_be_mixed_up_is_refused(what, tmp_path):
    words, kind, told = BAD[what]
    with pytest.raises(kind, match=told):
        pg.sweep(normal, **{"data": DATA, "inference": "nuts", "out": tmp_path / "runs", **words})


# ---- what was found of a run, and the run itself ---------------------------------------------------------------------


@pytest.fixture
def found(tmp_path):
    """A run's files with what a sweep found of it."""
    store = Store(tmp_path / "run")
    store.create({"program": {}, "inference": {}}, {}, overwrite=False)
    store.append(0, {"lp": np.ones((1, 4))})
    store.commit({"z": np.ones(2)}, {"step": 4, "seconds": 1.0})
    fitting.write(store.path, Outcome("pass", "", 1.0, {"r_hat": 1.0}), verdicts.stamp(store.path))
    assert fitting.read(store.path) == Outcome("pass", "", 1.0, {"r_hat": 1.0})
    return store


CHANGES = {
    "it went on": lambda store: store.commit({"z": np.ones(2)}, {"step": 5, "seconds": 2.0}),
    "it was made anew": lambda store: store.commit({"z": np.ones(2)}, {"step": 4, "seconds": 1.5}),
    "its record changed": lambda store: store.rewrite({"program": {}, "inference": {}, "seed": 1}),
    "its record is gone": lambda store: (store.path / "run.json").unlink(),
    "its state is gone": lambda store: (store.path / "state.safetensors").unlink(),
    "its state is no state": lambda store: (store.path / "state.safetensors").write_bytes(b"no"),
    "a word that is none": lambda store: fitting.write(store.path, Outcome("fine"), verdicts.stamp(store.path)),
    "no JSON": lambda store: (store.path / fitting.NOTE).write_text("[" * 100_000),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_found_counts_for_one_state_of_the_run(found, what):
    CHANGES[what](found)
    assert fitting.read(found.path) is None


def test_what_another_version_found_counts_no_more(found, monkeypatch):
    monkeypatch.setattr(verdicts, "own", lambda: "99.0")
    assert fitting.read(found.path) is None


def test_a_verdict_is_not_kept_beside_a_run_made_in_its_place(tmp_path):
    """Though its steps and its state are the same: it took other time."""
    fit = pg.fit(
        normal, DATA, "random_walk", num_samples=50, num_warmup=0, num_chains=2, progress=False, out=tmp_path / "run"
    )
    state, note = Store(tmp_path / "run").arrays("state.safetensors")
    Store(tmp_path / "run").commit(state, {**note, "seconds": note["seconds"] + 1})
    fit.diagnose()
    assert not (tmp_path / "run" / verdicts.NAME).exists()


@pytest.mark.parametrize("begins", [False, True])
def test_a_worker_that_dies_before_it_begins_anew_is_followed_by_one_that_begins_anew(found, begins, monkeypatch):
    jobs = []

    class Dying:
        alive = True

        def __init__(self, *given):
            pass

        def run(self, job):
            jobs.append(job)
            if begins:
                found.rewrite({"program": {}, "inference": {}, "seed": 1})
            raise crews.Died("it was killed")

    monkeypatch.setattr(crews, "Worker", Dying)
    job = Job(str(found.path), "", "", {}, {}, 0, {}, anew=True)
    assert crews.Crew(b"", 1, found.path / "log").run(job).status == "died"
    assert [job.anew for job in jobs] == [True, not begins]


def weighed(x=None):
    numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), 1.0), obs=x)


BEGUN = {
    "chains": (
        normal,
        "random_walk",
        {"num_chains": [1, 3]},
        {"num_samples": 5, "num_warmup": 0},
        "where its chains begin",
    ),
    "learned": (weighed, "mle", {"learning_rate": [0.01, 0.02]}, {"num_steps": 5}, "loc start"),
}


@pytest.mark.parametrize("case", BEGUN)
def test_all_fits_begin_where_init_says_and_another_start_is_another_sweep(case, tmp_path, monkeypatch):
    """Each is that of pg.fit with the same init; what is there of another, or of none, is refused."""
    program, inference, settings, fixed, told = BEGUN[case]
    (name, values), words = next(iter(settings.items())), {**fixed, "progress": False}
    one, other = (pg.fit(program, DATA, inference, seed=seed, **words) for seed in (7, 8))
    if inference == "mle":
        other = pg.fit(program, DATA, inference, learning_rate=0.5, **words)
    plan = grid(program, settings, DATA, inference, 1, fixed)
    asked = asking.checked(program, plan, plan.points, fixed, one)
    jobs, _ = sweeping._jobs(tmp_path, asked, {})
    for job, value in zip(jobs.values(), values, strict=True):
        job = pickle.loads(pickle.dumps(job))
        fitting.outcome(asking.task(program, plan, asked, fixed), job)
        there, here = pg.load(job.path, program), pg.fit(program, DATA, inference, init=one, **{name: value}, **words)
        assert all(np.array_equal(there.records[k], v) for k, v in here.records.items())
    assert not asking.others(tmp_path, asked)
    monkeypatch.setattr(crews, "Worker", None)
    for init in (other, None):
        with pytest.raises(ChangedRun, match=told):
            pg.sweep(program, settings, DATA, inference, seeds=1, out=tmp_path, init=init, **words)
