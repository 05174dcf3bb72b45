"""The Python of the pages and every example run, as scripts, with warnings as errors."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
from conftest import needs_pyro, python

import probgen as pg
from probgen import catalog

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = {
    p: re.findall(r"```python\n(.*?)```", (ROOT / p).read_text(), re.DOTALL) for p in ("README.md", "CONTRIBUTING.md")
}
BLOCKS = PAGES["README.md"]


LONG = (
    "codes_against_a_critic",
    "colours_of_grey_pictures",
    "completed_digits",
    "experts_on_the_plane",
    "flows_in_the_plane",
    "one_mixture_four_ways",
    "outliers_of_a_density",
)  # a minute or two each


def marks(path):
    engine = [needs_pyro] if "import pyro\n" in path.read_text() else []
    return [*engine, pytest.mark.slow] if path.stem in LONG else engine


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem, marks=marks(p)) for p in EXAMPLES])
def test_example_runs(path, tmp_path):
    done = python("-W", "error", str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_in_percent_format(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 60
    assert lines[0] == "# %% [markdown]"
    assert lines[1].startswith("# # ")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_asks_for_what_there_is(path):
    """Most of them run in the slow tests alone: here every word of the package, every model and every algorithm is looked up."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("probgen"):
            found = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(found, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}"), alias.name
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pg":
            assert hasattr(pg, node.attr), node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pg.fit":
            words = dict(enumerate(node.args)) | {k.arg: k.value for k in node.keywords}
            for key, group in ((0, "models"), (2, "inference"), ("inference", "inference")):
                word = words.get(key)
                if isinstance(word, ast.Constant):
                    assert word.value in catalog.modules(f"probgen.{group}"), word.value


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page, tmp_path):
    (tmp_path / "page.py").write_text("\n".join(PAGES[page]))
    done = python("-W", "error", "page.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_readme_is_short_and_names_what_exists():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    assert BLOCKS
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^ {4}|`)make (\w+)", text, re.MULTILINE)) <= targets
    for path in re.findall(r"`((?:examples|benchmarks|models|inference)/[\w/.]*)`", text):
        assert (ROOT / path).exists(), path
