"""Wheel and sdist: what is in them, that they run away from the checkout, and (slow) in fresh environments."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = "import sys; from setuptools import build_meta as b; to = sys.argv[1]; b.build_sdist(to); b.build_wheel(to)"
TRIAL = """if True:
    import sys, probgen as pg
    from probgen.cli import main
    assert sys.argv[1] in pg.__file__, pg.__file__
    pg.fit("gaussian", data="two_moons", inference="em", progress=False, out="run").plot().savefig("fit.png")
    assert main(["list", "--lecture", "energies"]) == main(["list", "--data"]) == main(["report", "run"]) == 0
    assert abs(pg.load("run").parameters["loc"] - pg.data.load("two_moons").mean(0)).max() < 1e-5
"""


def run(*words, **keywords):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=1800, **keywords)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist of what git tracks."""
    pytest.importorskip("setuptools", reason="no wheel is built: pip install setuptools")
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: what belongs to the package is not known")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    run(sys.executable, "-c", BUILD, out, cwd=tree)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_both_hold_every_file_of_the_package(built):
    code = [p for folder in ("probgen", "models", "inference") for p in (ROOT / folder).rglob("*")]
    code = [
        p.relative_to(ROOT).as_posix() for p in code if p.suffix in (".py", ".html", ".css", ".js", ".toml", ".typed")
    ]
    with zipfile.ZipFile(built[0]) as wheel, tarfile.open(built[1]) as sdist:
        packed, source = set(wheel.namelist()), {name.partition("/")[2] for name in sdist.getnames()}
    assert {p if p.startswith("probgen") else f"probgen/{p}" for p in code} <= packed
    assert {*code, "pyproject.toml", "README.md", "LICENSE"} <= source
    assert not [name for name in packed if name.startswith(("models/", "inference/", "tests/"))]


def test_the_wheel_of_the_sdist_runs_away_from_the_checkout(built, tmp_path):
    with tarfile.open(built[1]) as sdist:
        sdist.extractall(
            tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )  # since Python 3.11.4
    (unpacked,) = [p for p in tmp_path.iterdir() if p.is_dir()]
    run(sys.executable, "-c", BUILD, tmp_path, cwd=unpacked)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel, zipfile.ZipFile(built[0]) as own:
        assert set(wheel.namelist()) == set(own.namelist())
        wheel.extractall(tmp_path / "site")
    away = tmp_path / "away"
    away.mkdir()
    run(
        sys.executable,
        "-c",
        TRIAL,
        tmp_path / "site",
        cwd=away,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
    )


def interpreters():
    """Those of this machine that start, those of pyenv too."""
    own = [str(p) for p in sorted((Path.home() / ".pyenv" / "versions").glob("3.1[123]*/bin"), reverse=True)]
    path = os.pathsep.join([*own, os.environ.get("PATH", "")])
    found = {v: shutil.which(f"python3.{v}", path=path) for v in (11, 12, 13)}
    works = {
        v: p
        for v, p in found.items()
        if p and subprocess.run([p, "-V"], capture_output=True, check=False).returncode == 0
    }
    return [pytest.param(path, id=f"3.{v}") for v, path in works.items()]


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["", "[pyro]"])
@pytest.mark.parametrize("interpreter", interpreters())
def test_a_fresh_environment(built, interpreter, extra, tmp_path):
    """Newest releases on newer Pythons; on 3.11 those that constraints.txt pins."""
    run(interpreter, "-m", "venv", tmp_path / "fresh")
    pins = ["-c", ROOT / "constraints.txt"] if interpreter.endswith("3.11") else []
    run(tmp_path / "fresh/bin/pip", "install", "-q", *pins, f"{built[0]}{extra}")
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")
    }  # flags of another jaxlib
    run(tmp_path / "fresh/bin/python", "-c", TRIAL, tmp_path / "fresh", cwd=tmp_path, env=environment)
