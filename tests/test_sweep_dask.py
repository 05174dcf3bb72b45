"""Sweeps on dask's workers: the same fits, and a worker of dask that is killed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from test_sweep import DATA, QUICK, line
from test_sweep_stopped import killed_and_gone_on_with

import probgen as pg

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="distributed is not installed: sweeps on dask are not tested",
)


@pytest.fixture(scope="module")
def client():
    import distributed

    with (
        distributed.LocalCluster(processes=True, n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


def parent(pid):
    """The process that started one: dask's worker."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _crews():
    from probgen.processes import clusters

    return len(clusters._crews)


@needs_dask
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of dask's own
def test_on_dask_it_is_the_same(client, tmp_path):
    words = {"settings": {"num_warmup": [100, 200]}, "data": DATA, "seeds": 1, **QUICK}
    found = pg.sweep(line, out=tmp_path / "dask", client=client, **words)
    assert (found.error == "").all()
    for n in (100, 200):
        here = pg.fit(line, DATA, seed=0, num_warmup=n, **QUICK)
        there = pg.load(found.run.sel(num_warmup=n, seed=0).item())
        assert np.array_equal(here.records["z"], there.records["z"])
    assert set(client.run(_crews).values()) == {0}
    assert not list((tmp_path / "dask").glob("task-*"))


@needs_dask
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_killed_worker_of_dask_loses_nothing(client, tmp_path):
    killed_and_gone_on_with(tmp_path, of=parent, client=client)


def test_what_is_no_client_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"expected a dask\.distributed\.Client"):
        pg.sweep(line, data=DATA, out=tmp_path / "runs", client="tcp://localhost:8786")
