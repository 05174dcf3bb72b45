"""The rules of the house: who may import what, who may print, what is packaged, what `import probgen` loads."""

import ast
import graphlib
import itertools
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import needs_pyro, python

import probgen

ROOT = Path(__file__).parent.parent
CODE = [path for folder in ("probgen", "models", "inference") for path in sorted((ROOT / folder).rglob("*.py"))]
HEAVY = {"jax", "jaxlib", "torch", "numpyro", "pyro", "equinox", "optax", "flowjax", "diffrax", "funsor", "blackjax"}
MAY_BE_HEAVY = (
    "probgen/engine/", "probgen/nets/", "probgen/distributions/", "probgen/evaluate/",
    "probgen/runtime.py", "probgen/machine.py", "probgen/pools.py", "probgen/measures.py", "probgen/processes/peers.py",
    "probgen/processes/torchrun.py", "models/",
    "inference/",
)  # fmt: skip
TOP = {
    "probgen", "models", "inference", "tests", "docs", "examples", "benchmarks", ".ci", "README.md", "pyproject.toml",
    "findings", "Makefile", "constraints.txt", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "CITATION.cff", "SECURITY.md",
    ".gitignore",
    ".pre-commit-config.yaml",
}  # fmt: skip


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(tree: ast.AST, at_top: bool = False) -> set[str]:
    """Dotted names imported in a module; those for type checkers alone are left out."""
    found, nodes = set(), [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not is_type_checking(node) and not (at_top and inside):
            nodes += ast.iter_child_nodes(node)
    return found


def module(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "probgen" else ("probgen", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def arrows() -> dict[str, set[str]]:
    """The files that each file imports, anywhere in it, for type checkers as well."""
    known = {module(path) for path in CODE}

    def nearest(word: str) -> str:
        while word and word not in known:
            word = word.rpartition(".")[0]
        return word

    found = {}
    for path in CODE:
        own, used = module(path), set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {nearest(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                used |= {nearest(f"{node.module}.{alias.name}") for alias in node.names}
        found[own] = used - {own, ""}
    return found


# From the ground up: who stands on a line imports from that line and those above it.
ORDER = (
    "runtime machine pools watch versions measures target algorithm model catalog datasets data programs distributions processes",
    "nets", "fitted", "engine", "evaluate", "models inference", "diagnostics", "pictures", "report", "fits", "loggers run",
    "comparison calibration view", "sweeps", "cli", "probgen",
)  # fmt: skip
IGNORED = r"# *(type|pyright): *(ignore|basic|standard|strict|report)|no_type_check"
FLOORS = {word: floor for floor, line in enumerate(ORDER) for word in line.split()}
MOST_LINES, MOST_FILES, MOST_IGNORES = 400, 16, 12


def floor(word: str) -> int:
    return FLOORS[word.split(".")[1] if "." in word else word]


def test_no_file_imports_in_a_circle():
    try:
        graphlib.TopologicalSorter(arrows()).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]
    else:
        circle = []
    assert not circle


def test_arrows_run_down():
    up = [(own, other) for own, used in arrows().items() for other in used if floor(other) > floor(own)]
    assert not up, "a file imports from a floor above it"


def test_shelves_and_files_are_small():
    lines = {name(path): len(path.read_text().splitlines()) for path in CODE}
    assert not {where: count for where, count in lines.items() if count > MOST_LINES}
    shelves = [path.parent for path in CODE if not name(path).startswith("models/")]
    full = {name(shelf): shelves.count(shelf) for shelf in shelves if shelves.count(shelf) > MOST_FILES}
    assert not full


def test_few_lines_are_kept_from_the_type_checker():
    kept = [(name(path), line) for path in CODE for line in path.read_text().splitlines() if re.search(IGNORED, line)]
    assert len(kept) <= MOST_IGNORES
    assert not [line for _, line in kept if not re.search(r"# pyright: ignore\[report\w+\]$", line)], "name the rule"


def roots(names: set[str]) -> set[str]:
    return {word.partition(".")[0] for word in names}


@pytest.mark.parametrize("path", CODE, ids=name)
def test_imports_keep_the_rules(path):
    tree, where = ast.parse(path.read_text()), name(path)
    used = imports(tree)
    if where.startswith("models/"):
        assert not {word for word in used if word.startswith("probgen.inference")}, "models/ imports inference/"
    if where.startswith("inference/"):
        assert not {word for word in used if word.startswith("probgen.models")}, "inference/ imports models/"
        if not path.name.startswith("_"):
            assert not roots(imports(tree, at_top=True)) & HEAVY, "import it in the body of the algorithm"
    if not where.startswith(MAY_BE_HEAVY):
        assert not roots(used) & HEAVY, f"only {', '.join(MAY_BE_HEAVY)} know an engine"


@pytest.mark.parametrize("path", [path for path in CODE if not name(path).startswith("probgen/cli/")], ids=name)
def test_nothing_below_the_command_line_prints(path):
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id in ("print", "breakpoint")]


def test_packages_are_the_folders():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    files = [name(path.parent) for path in CODE]
    folders = {(f if f.startswith("probgen") else f"probgen/{f}").replace("/", ".") for f in files}
    assert listed == folders
    assert all((ROOT / name(path.parent) / "__init__.py").exists() for path in CODE)


def test_words_of_the_package_are_listed():
    assert set(probgen.__all__) == set(probgen._WORDS)


def test_top_level_is_as_designed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: what is tracked at the top level is not compared")
    assert {line.partition("/")[0] for line in listed.stdout.splitlines()} <= TOP


def test_import_is_light_and_quick():
    code = "import time, sys; t = time.perf_counter(); import probgen; print(time.perf_counter() - t, *sys.modules)"
    runs = [python("-c", code).stdout.split() for _ in range(3)]
    assert not set(runs[0]) & {"torch", "jax", "numpyro", "pyro", "numpy"}
    assert min(float(run[0]) for run in runs) < 0.2


def test_help_is_light():
    code = """if True:
        import sys
        from probgen.cli import main
        try:
            main(["--help"])
        finally:
            print(*sys.modules, file=sys.stderr)
    """
    told = python("-c", code)
    assert "diagnose" in told.stdout
    assert not set(told.stderr.split()) & {"torch", "jax", "numpyro", "pyro"}


@pytest.mark.parametrize(
    ("model", "others"),
    [("eight_schools", ("torch", "diffrax", "ott")), pytest.param("eight_schools_pyro", ("jax",), marks=needs_pyro)],
)
def test_an_engine_never_imports_the_other_nor_what_another_branch_needs(model, others):
    code = f"""if True:
        import sys, probgen as pg
        fit = pg.fit({model!r}, num_samples=50, num_chains=2)
        fit.diagnose(), fit.summary(), fit.sample(2)
        assert not sys.modules.keys() & {others!r}
    """
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_the_list_of_slow_tests_names_tests_that_are_there():
    names = [line for line in (ROOT / "tests" / "slow.txt").read_text().splitlines() if not line.startswith("#")]
    assert len({*names}) == len(names) > 0
    for file, found in itertools.groupby(sorted(names), key=lambda name: name.partition("::")[0]):
        written = {
            node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
        }
        assert {name.partition("::")[2].partition("[")[0] for name in found} <= written
