"""Sweeps of other kinds: in the shell, of a program's own settings, in Pyro, in parts."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from conftest import needs_pyro
from scipy import stats

import probgen as pg
from probgen.cli import main
from probgen.cli.flags import _parse
from probgen.cli.sweeps import values

X, Y = np.array([-1.0, 0.0, 2.0]), np.array([-0.5, 0.3, 1.8])
LINE = """
import numpyro, numpyro.distributions as dist

def line(x, y=None, width=1.0):
    slope = numpyro.sample("slope", dist.Normal(0.0, width))
    with numpyro.plate("point", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)
"""


def evidence(width):
    """log p(y) of a line whose slope is N(0, width^2)."""
    return stats.multivariate_normal(np.zeros(3), np.eye(3) + width**2 * np.outer(X, X)).logpdf(Y)


def test_the_shell_sweeps_a_program_of_a_file_over_its_own_settings(tmp_path, monkeypatch, capsys):
    """The posterior is normal: Laplace's bound is the evidence."""
    import xarray as xr

    monkeypatch.chdir(tmp_path)
    (tmp_path / "line.py").write_text(LINE)
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    words = [
        "sweep",
        "line.py:line",
        "--set",
        "width=.5,2",
        "--set",
        "num_draws=100",
        "-i",
        "laplace",
        "--data",
        "data.npz",
    ]
    words += ["--seeds", "1", "-o", "out", "--netcdf"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "out/sweep.csv" in said.out
    assert "2/2" in said.err
    with open(tmp_path / "out" / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["width"]) for row in rows] == [0.5, 2.0]
    for row in rows:
        assert row["status"] in ("pass", "warn")
        assert abs(float(row["evidence_bound"]) - evidence(float(row["width"]))) < 1e-4
    with xr.open_dataset(tmp_path / "out" / "sweep.nc") as found:
        assert found.sizes == {"width": 2, "num_draws": 1, "seed": 1}
    fit = pg.load(rows[1]["run"])
    assert fit.target.data["width"] == 2.0
    assert main([*words, "--no-progress"]) == 0  # nothing is fitted again
    assert capsys.readouterr().err == ""


@needs_pyro
def test_a_pyro_program_is_fitted_as_by_pg_fit(tmp_path):
    sys.path.insert(0, str(tmp_path))
    (tmp_path / "pyro_line_of_a_sweep.py").write_text(LINE.replace("numpyro", "pyro"))
    try:
        import pyro_line_of_a_sweep as module

        words = {"data": {"x": np.float32(X), "y": np.float32(Y)}, "inference": "laplace", "progress": False}
        found = pg.sweep(module.line, seeds=[5], out=tmp_path / "runs", num_workers=1, **words)
        assert found.error.item() == ""
        here, there = pg.fit(module.line, seed=5, **words), pg.load(found.run.item())
    finally:
        sys.path.remove(str(tmp_path))
    assert np.array_equal(here.draws["slope"], there.draws["slope"])
    assert abs(found.evidence_bound.item() - evidence(1.0)) < 1e-3


def test_flags_that_are_said_again_add_up():
    command = _parse(["sweep", "m", "--set", "a=1,2", "--set=b=.8,.95", "c=3", "--seeds", "3"])
    assert command.set == ("a=1,2", "b=.8,.95", "c=3")
    assert (
        _parse(["fit", "vae", "--set", "num_latents=4", "--set", "width=8", "--inference", "svi"]).set[0]
        == "num_latents=4"
    )
    with pytest.raises(ValueError, match="said twice"):
        _parse(["sweep", "eight_schools", "--set", "a=1", "--set", "a=2"]).run()


def test_values_are_as_they_are_written():
    assert values(".8,1e-3,2") == (0.8, 1e-3, 2)
    assert values("[64,64],[32]") == ((64, 64), (32,))
    assert values("True,None,planar") == (True, None, "planar")
    with pytest.raises(ValueError, match="empty value"):
        values("100,")


def test_parts_are_the_grid():
    from probgen.sweeps.grid import grid
    from probgen.sweeps.sweeping import _chosen

    points = grid("eight_schools", {"num_warmup": [1, 2, 3]}, None, "nuts", 3, {}).points
    parts = [_chosen(points, (i, 4)) for i in range(1, 5)]
    assert sorted(p.index for part in parts for p in part) == [p.index for p in points]
    assert len({p.folder for p in points}) == 9


def test_a_sweep_that_is_imported_is_light():
    code = "import probgen as pg, sys; pg.sweep; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"jax", "torch", "distributed", "cloudpickle"} & set(said)
