"""`probgen view` over folders that anybody may have written: one bad run hides no other, nothing is waited for."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from probgen.run import lock, verdicts
from probgen.run.store import Store
from probgen.view.curves import Curves
from probgen.view.listing import Listing
from probgen.view.reading import plain

RECORD = {
    "probgen": "0.1.0", "program": {"model": "gaussian_mixture"}, "inference": {"name": "em", "settings": {"num_steps": 4}},
    "engine": "numpyro", "seed": 4, "precision": "float64",
}  # fmt: skip
GOOD = {"check": "loss", "status": "warn", "message": "m", "remedy": "r", "value": None, "bar": None}


def run_in(path):
    store = Store(path)
    store.create(RECORD, {}, overwrite=False)
    store.append(0, {"loss": np.ones((1, 4))})
    store.commit({"weights": np.ones(3)}, {"step": 4, "seconds": 1.5})
    return store


@pytest.fixture
def folder(tmp_path):
    run_in(tmp_path / "good")
    run_in(tmp_path / "bad")
    return tmp_path


def told(folder):
    """The runs, by a thread that is left where it waits for ever."""
    found = []
    thread = threading.Thread(target=lambda: found.extend(Listing(folder).runs()), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    runs = {run.id: run for run in found}
    assert runs["good"].state == "finished"
    return runs


@pytest.mark.parametrize("name", ["run.json", "verdict.json", "lock", "answer.safetensors", "draws/00000004-00000008"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder, name):
    (folder / "bad" / name).unlink(missing_ok=True)
    os.mkfifo(folder / "bad" / name)
    assert told(folder)["bad"].reason == f"{name} is no file."


@pytest.mark.parametrize("content", ["[" * 100_000, '{"pid": Infinity, "host": "a", "since": "b"}', "", '{"pid": {}}'])
def test_a_lock_may_hold_anything(folder, content):
    (folder / "bad" / lock.NAME).write_text(content)
    assert told(folder)["bad"].state == "running", "for a moment: it may be being written"
    os.utime(folder / "bad" / lock.NAME, (1.5e9, 1.5e9))
    run = told(folder)["bad"]
    assert (run.state, "cannot be read" in run.reason) == ("finished", True)
    Store(folder / "bad").rewrite({**RECORD, "inference": {"name": "em", "settings": {"num_steps": 9}}})
    assert told(folder)["bad"].state == "stopped"


def test_no_more_than_its_first_bytes_are_read_of_a_lock(folder):
    os.symlink("/dev/zero", folder / "bad" / lock.NAME)
    assert "leads out" in told(folder)["bad"].reason


@pytest.mark.parametrize(
    "findings", [[], [{"status": "pass"}], [GOOD, {**GOOD, "check": 5}], [{**GOOD, "status": "good"}], 7]
)
def test_what_is_no_verdict_counts_for_none(folder, findings):
    now = verdicts.stamp(folder / "bad")
    for content, kept in ((findings, None), ([GOOD], "warn")):
        (folder / "bad" / verdicts.NAME).write_text(json.dumps({"stamp": now, "findings": content, "notes": []}))
        verdict = told(folder)["bad"].verdict
        assert verdict == kept or verdict["status"] == kept
    (folder / "bad" / verdicts.NAME).write_text("[" * 100_000)
    assert told(folder)["bad"].verdict is None


def test_links_to_themselves_and_names_that_are_no_words(folder):
    os.symlink("loop", folder / "loop")
    run_in(Path(os.fsdecode(os.fsencode(folder) + b"/b\xff")))
    found = told(folder)
    assert found.keys() == {"good", "bad", "b\\udcff"}
    listing = Listing(folder)
    assert listing.run("b\\udcff")[0].state == "finished"


def test_segments_that_do_not_belong_together_hide_one_curve(folder):
    Store(folder / "bad").append(4, {"loss": np.ones((3, 5)), "lp": np.ones((1, 5))})
    assert Curves().of(folder / "bad", 0) == {"series": []}
    assert [s["name"] for s in Curves().of(folder / "good", 0)["series"]] == ["loss"]


def test_whole_numbers_are_told_exactly():
    """A browser has no whole numbers above 2**53."""
    assert plain({"seed": 2**62 + 1, "few": 2**53, "yes": True}) == {"seed": str(2**62 + 1), "few": 2**53, "yes": True}
