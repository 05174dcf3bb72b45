"""The site: its code runs, its commands are understood, what is made of the code is whole, links lead somewhere, it is light."""

import html
import html.parser
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_pyro, python

import probgen as pg
from probgen import catalog, datasets
from probgen.cli import lectures, main
from probgen.cli.flags import _parse
from probgen.data.values.named import sets

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted((ROOT / "docs" / "pages").rglob("*.md")),
    ROOT / "docs" / "diffusion.md",
    ROOT / "docs" / "measures.md",
    ROOT / "docs" / "libraries.md",
]
MOST = 1_000_000  # bytes of a page, with all that it loads

sys.path.insert(0, str(ROOT / "docs"))


def blocks(page, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def runs(page):
    return "\n".join(blocks(page, "python"))


def marks(page):
    return [needs_pyro] if "import pyro\n" in runs(page) else []


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, id=p.stem, marks=marks(p)) for p in PAGES if runs(p) and p.parent.name in ("pages", "howto")],
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    (tmp_path / "page.py").write_text(runs(page))
    monkeypatch.chdir(tmp_path)
    runpy.run_path("page.py")


@pytest.mark.parametrize("page", [pytest.param(p, id=p.stem, marks=marks(p)) for p in PAGES if blocks(p, "py")])
def test_the_code_that_asks_for_other_machines_or_for_long_runs(page, tmp_path):
    """On this machine: a cluster of dask's within the process, one process for a coordinator."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {
        '"/shared/runs"': '"shared"',
        'Client("tcp://scheduler:8786")': "Client(processes=False, n_workers=1)",
        "node1:1234": f"127.0.0.1:{port}",
    }
    for number, block in enumerate(blocks(page, "py")):
        for there, own in here.items():
            block = block.replace(there, own)
        block = re.sub(r"num_processes=\d", "num_processes=1", block)
        own = tmp_path / str(number)
        own.mkdir()
        begun = "import probgen as pg\n" if page.stem == "cluster" else runs(page)
        (own / "page.py").write_text(f"{begun}\n{block}")
        done = python("page.py", cwd=own)
        assert not done.returncode, done.stderr[-2000:]


# ---- the map of the lectures -------------------------------------------------------------------------------------


def commands():
    told = [(name, topic.command) for name, topic in lectures.topics().items() if topic.command]
    for page in PAGES:
        lines = [line.partition("  #")[0] for block in blocks(page, "sh") for line in block.splitlines()]
        told += [(page.stem, line) for line in lines if line.startswith("probgen ")]
    return told


def test_commands_are_understood(monkeypatch):
    """Every flag is one of its command's; which settings suit a model is not asked, so that nothing is loaded."""
    monkeypatch.setattr("probgen.run.meant", lambda word, program, data: (word, {}))
    assert len(commands()) > 50
    for where, command in commands():
        words = command.split()[1:]
        try:
            _parse(words)
        except (TypeError, ValueError, SystemExit) as error:
            pytest.fail(f"{where}: {command}\n{error}")


def test_topics_name_what_there_is():
    models, algorithms = catalog.modules("probgen.models"), catalog.modules("probgen.inference")
    names = {name for lecture in lectures.lectures().values() for name in lecture.topics}
    assert names == set(lectures.topics())
    for name, topic in lectures.topics().items():
        assert topic.part in lectures.parts(), name
        assert set(topic.models) <= set(models), name
        assert set(topic.algorithms) <= set(algorithms), name
        assert bool(topic.models) == bool(topic.command) == bool(topic.oracle), name
        assert (" --out " in topic.command) == (len(topic.seen) > 20), f"{name}: what is seen in the picture"
        if topic.models:
            assert any(f" {word} " in topic.command for word in topic.models), name
            for path in re.findall(r"`(examples/[\w.]+)`", topic.trouble + topic.oracle):
                assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", [name for name, topic in lectures.topics().items() if " --data " in topic.command])
def test_the_model_of_a_topic_takes_its_data(name):
    words = lectures.topics()[name].command.split()
    data = catalog.model(words[2]).named_data(*words[words.index("--data") + 1].split(","))
    assert any(isinstance(array, np.ndarray) and len(array) > 10 for array in data.values())


def test_list_shows_a_lecture(capsys):
    assert main(["list", "--lecture", "energies"]) == 0
    told = capsys.readouterr().out
    assert "probgen fit rbm --data digits --inference cd" in told
    assert told.index("Exponential families") < told.index("Ising model")
    assert main(["list", "--lecture", "energy"]) == 2
    assert "Did you mean 'energies'?" in capsys.readouterr().err


# ---- data sets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [s for s in sets() if "mnist" not in s.name], ids=lambda s: s.name)
def test_the_table_of_data_tells_shapes_right(told):
    found = datasets.load(told.name)
    arrays = found if isinstance(found, tuple) else (found,)
    assert {len(a) for a in arrays} == {told.rows}
    assert " and ".join(str(a.shape[1:]) for a in arrays) == told.shape
    assert told.held_out == (datasets.held_out(told.name) is not None)
    if told.classes:
        assert datasets.labels(told.name).shape == (told.rows,)


def test_the_table_of_data_is_a_word(capsys):
    table = pg.data.table()
    assert list(table.index) == list(datasets.SETS)
    assert table.loc["digits", "rows"] == 1797
    assert (table.licence.str.len() > 5).all()
    assert np.array_equal(pg.data.load("digits"), datasets.digits())
    assert main(["list", "--data"]) == 0
    assert "CC BY 4.0" in capsys.readouterr().out


# ---- what is made of the code ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made():
    from build import pages

    return pages()


def test_every_model_and_algorithm_has_its_place(made):
    whole = "\n".join(text for name, text in made.items() if name.startswith("models/"))
    for word, module in catalog.modules("probgen.models").items():
        assert f"{{#{word}}}" in whole, module
    for word in catalog.modules("probgen.inference"):
        assert f"{{#{word}}}" in made["algorithms.md"], word


def test_every_check_is_told_with_its_remedy(made):
    rows = [line.split(" | ") for line in made["checks.md"].splitlines() if line.startswith("| `")]
    told = {word for row in rows for word in re.findall(r"`([\w ]+)`", row[0])}
    assert all(len(row) == 3 and row[1] and row[2].strip("| ") for row in rows)
    found = set()
    for path in (p for shelf in ("diagnostics", "calibration") for p in (ROOT / "probgen" / shelf).rglob("*.py")):
        found |= set(re.findall(r'Finding\(\s*"([\w ]+)"', path.read_text()))
    assert found - {"draws"} <= told
    assert {"ess_bulk", "ess_tail", "r_hat", "k_hat"} <= told


def test_docstrings_become_markdown():
    from docstrings import as_markdown

    doc = "Does x*y.\n\n    p(x) = x_1 * 2\n\nx, rows: sites, (row, *event);\n    the data.\nlast: more\n\nAfter <it>."
    assert as_markdown(doc).splitlines() == [
        "Does x\\*y.", "", "    p(x) = x_1 * 2", "", "", "- `x, rows`: sites, (row, \\*event);", "  the data.",
        "- `last`: more", "", "", "After &lt;it>.",
    ]  # fmt: skip


def test_checks_that_are_pictured_are_told_whole(made):
    import draw

    build = import_module("build")
    named = made["checks.md"] + "".join(path.read_text() for path in (ROOT / "probgen" / "calibration").glob("*.py"))
    page = build.good_and_bad()
    for name, check in draw.CHECKS.items():
        assert f"`{check.finding}`" in named or f'Finding("{check.finding}"' in named, name
        assert min(map(len, (check.title, check.means, check.do, check.seen))) > 15
        assert f"{{#{name}}}" in page
        assert check.means in page


# ---- the site as it is built -------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Links, what is loaded, identifiers and pictures of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids, self.without_words = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.ids.add(told.get("id"))
        if tag == "a" and told.get("href"):
            self.links.append(told["href"])
        if tag in ("script", "img", "iframe") and told.get("src"):
            self.loads.append(told["src"])
        if tag == "link" and told.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loads.append(told["href"])
        if tag == "img" and not told.get("alt"):
            self.without_words.append(told.get("src"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the site's links are not looked at: pip install 'probgen[docs]'")
    out = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    for words in (["docs/build.py"], ["-m", "mkdocs", "build", "-q", "-f", "docs/mkdocs.yml", "-d", str(out)]):
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr  # warnings are errors there: strict
    return out, {path.relative_to(out).as_posix(): Page(path) for path in out.rglob("*.html")}


def test_links_lead_somewhere(site):
    out, found = site
    assert {"index.html", "checks.html", "lectures/energies.html", "api/fit.html"} <= set(found)
    for name, page in found.items():
        for link in page.links + page.loads:
            path, _, anchor = link.partition("#")
            if re.match(r"https?:", path):
                assert link in page.links, f"{name} loads {link}"
                continue
            if name == "404.html":
                continue  # its links are from the root of where the site will stand
            at = os.path.normpath(os.path.join(os.path.dirname(name), path.partition("?")[0])) if path else name
            assert (out / at).exists(), f"{name}: {link}"
            if anchor and at in found:
                assert anchor in found[at].ids, f"{name}: {link}"


def test_pages_are_light_and_pictures_have_words(site):
    out, found = site
    for name, page in found.items():
        sizes = [(out / os.path.normpath(os.path.join(os.path.dirname(name), load))).stat() for load in set(page.loads)
                 if name != "404.html"]  # fmt: skip
        assert (out / name).stat().st_size + sum(s.st_size for s in sizes) <= MOST, name
        assert not page.without_words, name
        assert "fonts.g" not in (out / name).read_text(encoding="utf-8")


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *told):
        pass


LOOKED_AT = [
    "index", "verdict", "examples", "checks", "algorithms", "data", "numbers", "libraries", "howto/loggers", "howto/compare",
    "lectures/energies", "api/words", "benchmarks",
]  # fmt: skip


@pytest.mark.slow
def test_texts_of_the_site_stand_out(site):
    """In a browser, in light and in dark: the theme's colours come from more style sheets than a test could read."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no Chromium: contrasts of the site are not looked at")
    out, _ = site
    pages = json.dumps([f"/{name}.html" for name in LOOKED_AT])
    script = f"<script>const PAGES = {pages};\n{(ROOT / 'tests' / 'contrast.js').read_text()}</script>"
    (out / "contrast.html").write_text(f'<!doctype html><meta charset="utf-8"><pre id="found"></pre>{script}')
    handler = partial(Quiet, directory=str(out))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={out / 'profile'}"]
        words += ["--virtual-time-budget=120000", "--dump-dom", f"http://127.0.0.1:{server.server_port}/contrast.html"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
        server.shutdown()
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL).group(1)))
    assert {(page["path"], page["scheme"]) for page in found if page["count"] > 50} == {
        (f"/{name}.html", scheme) for name in LOOKED_AT for scheme in ("default", "slate")
    }
    assert not [page for page in found if page["short"]]
