"""Compiled code is read back only where no other user could have put it."""

import os
import pickle
import shutil
import stat

import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen import runtime

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes of POSIX")


def normal():
    numpyro.sample("x", dist.Normal(0.0, 1.0))


class Planted:
    """What runs when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def fit(seed=0):
    from probgen.engine.numpyro.running import compiling

    compiling._begun.cache_clear()
    return pg.fit(normal, num_warmup=20, num_samples=20, num_chains=1, progress=False, seed=seed)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("PROBGEN_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with the code of a first fit, and the draws of it."""
    folder = tmp_path_factory.mktemp("kept") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBGEN_CACHE", str(folder))
        return folder, fit().draws["x"]


def test_a_folder_is_made_for_its_user_alone(kept):
    folder = kept[0]
    assert stat.S_IMODE(folder.stat().st_mode) & runtime.OTHERS == 0
    files = list((folder / "executables").iterdir())
    assert files
    assert all(runtime.is_own(file) for file in files)


@pytest.mark.parametrize(("mode", "runs"), [(0o600, True), (0o602, False)])
def test_a_planted_file_is_not_read(kept, cache, tmp_path, mode, runs):
    """With this user's own mode the plant runs, which shows that it would."""
    shutil.copytree(kept[0], cache)
    for i, file in enumerate((cache / "executables").iterdir()):
        file.write_bytes(pickle.dumps(Planted(tmp_path / f"run{i}")))
        file.chmod(mode)
    assert (fit().draws["x"] == kept[1]).all()
    assert bool(list(tmp_path.glob("run*"))) == runs


def test_an_open_folder_is_closed(cache):
    cache.mkdir()
    cache.chmod(0o777)
    assert runtime.keeps_code()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o755


def test_a_folder_of_another_user_is_left_alone(cache, monkeypatch, caplog):
    cache.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not runtime.keeps_code()
    assert "is another user's" in caplog.text
    monkeypatch.setenv("PROBGEN_CACHE", "")
    assert not runtime.keeps_code()
