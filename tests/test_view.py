"""`probgen view`: what a folder of runs is told to be, who may ask, and that nothing in it is written."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from conftest import python

import probgen as pg
from probgen.cli import main
from probgen.run import lock, verdicts
from probgen.run.store import Store
from probgen.view.curves import POINTS, Curves
from probgen.view.listing import Listing
from probgen.view.serving import Server

QUICK = ["--num-samples=60", "--num-warmup=50", "--num-chains=2", "--no-progress"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Chains whose verdict the shell kept, and the files of a learner that has none."""
    folder = tmp_path_factory.mktemp("view")
    assert main(["fit", "eight_schools", "--out", str(folder / "schools"), *QUICK]) == 0
    learner(folder / "deep" / "mixture")
    return folder


LOSS = np.linspace(3.0, 2.0, 20)[None]


def learner(path):
    """The files of a run of 30 steps that converged at step 20."""
    settings = {"num_steps": 30, "tolerance": 1e-6}
    record = {
        "probgen": "0.1.0",
        "program": {"model": "gaussian_mixture"},
        "inference": {"name": "em", "settings": settings},
    }
    store = Store(path)
    store.create(record | {"engine": "numpyro", "seed": 4, "precision": "float64"}, {}, overwrite=False)
    store.append(0, {"loss": LOSS[:, :16], "converged": np.zeros((1, 16), bool)})
    store.append(16, {"loss": LOSS[:, 16:], "converged": np.arange(4)[None] == 3})
    store.commit({"weights": np.ones(3)}, {"step": 20, "seconds": 1.5})


@pytest.fixture
def runs(made, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "runs"))


@pytest.fixture
def ask(runs):
    """Ask a server over the copy, as who knows its token: (status, what it answers, headers)."""
    yield from asking(runs)


def asking(folder, **options):
    server = Server(folder, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def of(path, method="GET", **headers):
        headers.setdefault("Cookie", server.token.cookie(server.server_port).split(";")[0])
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for key, value in headers.items():
            if value is not None:
                connection.putheader(key.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        told = json.loads(body) if body and "json" in answer.headers["Content-Type"] else body
        return answer.status, told, answer.headers

    of.server = server
    yield of
    server.shutdown()
    thread.join()
    server.server_close()


def rows(ask):
    return {row["id"]: row for row in ask("/api/runs")[1]["runs"]}


def told(folder):
    return {run.id: run for run in Listing(folder).runs()}


def files(folder):
    """Every file with its content, and the times of the folders."""
    return {p: p.read_bytes() if p.is_file() else p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}


# ---- what is told ------------------------------------------------------------------------------------------------


def test_the_table_has_what_rows_and_filters_read(ask, made):
    found = rows(ask)
    assert set(found) == {"schools", "deep/mixture"}
    row = found["schools"]
    assert (row["model"], row["algorithm"], row["engine"], row["seed"]) == ("eight_schools", "nuts", "numpyro", 0)
    assert (row["state"], row["step"], row["total"]) == ("finished", 110, 110)
    assert row["verdict"]["status"] == pg.load(made / "schools").diagnose().status
    assert row["worst"] or row["verdict"]["status"] == "pass"
    assert found["deep/mixture"]["state"] == "finished", "a learner that converged is done before its last step"
    assert "verdict" not in found["deep/mixture"]


def test_one_run_with_its_findings_and_curves(ask, made):
    status, run, _ = ask("/api/run?id=schools")
    assert status == 200
    fit = pg.load(made / "schools")
    assert {f["check"] for f in run["verdict"]["findings"]} == {f.check for f in fit.diagnose().findings}
    assert run["settings"]["num_samples"] == 60
    series = {s["name"]: s["values"] for s in run["series"]}
    np.testing.assert_allclose(series["lp"], fit.records["lp"])
    np.testing.assert_allclose(series["z[1]"], fit.records["z"][..., 1])
    assert run["divergences"] == fit.records["diverging"][:, 50:].sum()
    learned = ask("/api/run?id=deep%2Fmixture")[1]
    (loss,) = [s["values"] for s in learned["series"] if s["name"] == "loss"]
    np.testing.assert_allclose(loss, LOSS)


def test_long_curves_are_thinned(tmp_path):
    store, loss = Store(tmp_path / "run"), np.arange(10_000.0)[None]
    store.create({}, {}, overwrite=False)
    for start in range(0, 10_000, 2_500):
        part = loss[:, start : start + 2_500]
        store.append(start, {"loss": part, "lp": part, "z": part[..., None].repeat(5, 2), "diverging": part > 9_989})
    curves = Curves()
    found = curves.of(tmp_path / "run", 0)
    series = {s["name"]: s for s in found["series"]}
    assert [len(s["values"][0]) for s in series.values()] == [POINTS] * 5
    assert series["loss"]["values"][0][:2] == [12.0, 37.0]  # means of 25
    assert series["z[2]"]["values"][0][:2] == [0.0, 25.0]
    assert found["divergences"] == 10
    store.append(10_000, {"loss": np.full((1, 1), np.nan), "lp": part[:, :1]})
    assert np.isnan(curves.of(tmp_path / "run", 0)["series"][1]["values"][0]).sum() == 0
    assert {s["name"] for s in curves.of(tmp_path / "run", 0)["series"]} == {"loss", "lp"}, "what all segments have"


def test_nothing_is_written_and_no_engine_is_loaded(runs):
    before = files(runs)
    code = f"""if True:
        import sys
        from probgen.view.serving import Handler, Server
        server = Server({str(runs)!r})
        for run in server.listing.runs():
            server.curves.of(server.listing.run(run.id)[1], 0)
        server.server_close()
        assert not sys.modules.keys() & {{"jax", "torch", "numpyro", "pyro"}}
    """
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert files(runs) == before


def test_a_report_is_made_when_asked_for_and_judges(ask, runs):
    (runs / "schools" / verdicts.NAME).unlink()
    assert "verdict" not in rows(ask)["schools"]
    before = files(runs)
    status, page, _ = ask("/report?id=schools")
    assert (status, b"http-equiv" in page) == (200, True)
    assert ask("/api/run?id=schools")[1]["report"]
    page, headers = ready(ask)
    assert b"checks" in page
    assert b"<svg" in page
    assert "script-src" not in headers["Content-Security-Policy"]
    assert rows(ask)["schools"]["verdict"]["status"] == pg.load(runs / "schools").diagnose().status
    assert ask("/report?id=schools")[1] == page, "made once"
    assert files(runs) == before


def ready(ask):
    """The first report, when it is there."""
    until = time.monotonic() + 240
    while True:
        _, page, headers = ask("/report?made=1")
        if b"http-equiv" not in page:
            return page, headers
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_report_that_cannot_be_made_says_why(ask, runs):
    record = json.loads((runs / "schools" / "run.json").read_text())
    record["program"] = {"module": "gone", "file": "/nowhere/<b>gone</b>.py", "name": "line"}
    (runs / "schools" / "run.json").write_text(json.dumps(record))
    assert "verdict" not in rows(ask)["schools"], "it judged another record"
    ask("/report?id=schools")
    page, _ = ready(ask)
    assert b"cannot be imported again" in page
    assert b"<b>" not in page


def test_a_verdict_of_another_state_counts_no_more(runs):
    assert told(runs)["schools"].verdict
    fit = pg.extend(runs / "schools", num_samples=5, progress=False)
    assert told(runs)["schools"].verdict is None
    pg.load(runs / "schools").diagnose()
    assert told(runs)["schools"].verdict is None, "what is loaded is read alone"
    fit.diagnose()
    assert told(runs)["schools"].verdict
    pg.extend(runs / "schools", num_samples=5, progress=False)
    before = (runs / "schools" / verdicts.NAME).read_bytes()
    fit.diagnose()
    assert (runs / "schools" / verdicts.NAME).read_bytes() == before, "of a run that went on without it"
    assert main(["diagnose", str(runs / "schools")]) in (0, 1, 2)
    kept = told(runs)["schools"].verdict
    assert kept["status"] == pg.load(runs / "schools").diagnose().status
    (runs / "schools" / verdicts.NAME).write_text('{"stamp": {}, "findings": [{"status": "pass"}]}')
    assert told(runs)["schools"].verdict is None
    (runs / "schools" / verdicts.NAME).write_text("[1, ")
    assert told(runs)["schools"].verdict is None


# ---- a run that goes on, and one that was killed ----------------------------------------------------------------------

LONG = """
import sys, probgen as pg
pg.fit("eight_schools", None, "nuts", num_samples=10**6, num_warmup=50, num_chains=2, out=sys.argv[1], progress=False)
"""


def length(run):
    """Steps of a run's log density."""
    return next((len(s["values"][0]) * s["every"] for s in run.get("series", ()) if s["name"] == "lp"), 0)


def test_a_run_is_seen_while_it_goes_on_and_when_it_is_killed(ask, runs):
    child = subprocess.Popen([sys.executable, "-c", LONG, str(runs / "live")], stderr=subprocess.PIPE)
    try:
        until, seen = time.monotonic() + 120, [0]
        while len(seen) < 3 and time.monotonic() < until and child.poll() is None:
            run = ask("/api/run?id=live")[1]
            if length(run) > seen[-1]:
                assert run["state"] == "running"
                assert str(child.pid) in run["reason"]
                seen.append(length(run))
            time.sleep(0.05)
        assert len(seen) == 3, child.stderr.read() if child.poll() is not None else "its curve does not grow"
    finally:
        child.kill()
        child.communicate()
    assert rows(ask)["live"]["state"] == "killed"
    assert "without a word" in rows(ask)["live"]["reason"]


def test_locks_are_told_without_touching_them(tmp_path):
    assert lock.held(tmp_path) is None
    with lock.Lock(tmp_path):
        assert lock.held(tmp_path)["alive"] is True
        assert lock.held(tmp_path)["pid"] == os.getpid()
    assert lock.held(tmp_path) is None
    said = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2020-01-01 00:00:00"}
    (tmp_path / "lock").write_text(json.dumps(said))
    os.utime(tmp_path / "lock", (1.5e9, 1.5e9))
    if sys.platform == "linux":
        assert lock.held(tmp_path)["alive"] is False, "this process began later: it has the number of another one"
    (tmp_path / "lock").write_text(json.dumps(said | {"host": "elsewhere"}))
    assert lock.held(tmp_path)["alive"] is None
    (tmp_path / "lock").write_text("")
    assert lock.held(tmp_path)["alive"] is None, "it may be being written"
    for when in (-11, 1e6):
        os.utime(tmp_path / "lock", (time.time() + when,) * 2)
        assert lock.held(tmp_path)["alive"] is False


# ---- runs that are broken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("run.json", b'{"prog', "run.json is not JSON"),
        ("run.json", b"[1, 2]", "no record of a run"),
        ("run.json", b"\xff\xfe\x00", "run.json is not JSON"),
        ("run.json", b"[" * 100_000, "run.json is not JSON"),
        ("run.json", b'{"probgen": "99.0", "what": 1}', "Written by probgen 99.0"),
        ("run.json", None, "a start that was cut short"),
        ("state.safetensors", b"\0" * 40, "state.safetensors cannot be read"),
        ("state.safetensors", b"", "state.safetensors cannot be read"),
    ],
)
def test_a_broken_run_says_why_and_the_others_are_told(ask, runs, name, content, reason):
    file = runs / "schools" / name
    if name == "run.json" and content is None:
        (runs / "schools" / verdicts.NAME).unlink()
        for other in ("state.safetensors", "starts.safetensors"):
            (runs / "schools" / other).unlink()
    file.unlink() if content is None else file.write_bytes(content)
    found = rows(ask)
    assert found["schools"]["state"] == "broken"
    assert reason in found["schools"]["reason"]
    assert found["deep/mixture"]["state"] == "finished"
    assert ask("/api/run?id=schools")[1]["state"] == "broken"


def test_draws_that_are_missing_and_a_newer_version(runs):
    for segment in sorted((runs / "schools" / "draws").iterdir())[:1]:
        segment.unlink()
    record = json.loads((runs / "deep" / "mixture" / "run.json").read_text())
    (runs / "deep" / "mixture" / "run.json").write_text(json.dumps(record | {"probgen": "12.3.0", "seed": [1]}))
    found = told(runs)
    assert (found["schools"].state, "draws/" in found["schools"].reason) == ("broken", True)
    assert (found["deep/mixture"].state, found["deep/mixture"].seed) == ("finished", None)
    assert "newer than this one" in found["deep/mixture"].reason


def test_a_run_that_is_stopped_and_one_that_is_removed(ask, runs, killed):
    killed(pg.fit, "eight_schools", num_samples=60, num_warmup=50, num_chains=2, out=runs / "stopped", progress=False)
    found = rows(ask)["stopped"]
    assert (found["state"], 0 < found["step"] < 110) == ("stopped", True)
    shutil.rmtree(runs / "stopped")
    status, answer, _ = ask("/api/run?id=stopped")
    assert (status, "none any more" in answer["error"]) == (404, True)
    assert "stopped" not in rows(ask)


def test_folders_in_folders_are_looked_into_or_named(ask, runs, monkeypatch):
    deep = runs.joinpath(*"abcdefgh", "run")
    shutil.copytree(runs / "schools", deep)
    assert rows(ask)["a/b/c/d/e/f/g/h/run"]["state"] == "finished"
    monkeypatch.setattr("probgen.view.listing.DEEPEST", 8)
    told = ask("/api/runs")[1]
    assert ("a/b/c/d/e/f/g/h/run" in {row["id"] for row in told["runs"]}, told["not_looked"]) == (
        False,
        ["a/b/c/d/e/f/g/h/run"],
    )
    monkeypatch.setattr("probgen.view.listing.MOST", 3)
    assert ask("/api/runs")[1]["not_looked"] == ["a/b/c", "deep", "schools"]


def test_an_empty_folder_and_a_run_itself(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    assert told(tmp_path / "empty") == {}
    assert told(runs / "schools")["."].model == "eight_schools"


def test_a_run_that_goes_on_is_seen_by_its_lock(runs):
    with lock.Lock(runs / "schools"):
        assert told(runs)["schools"].state == "running"
        with pytest.raises(lock.RunInUse):
            lock.Lock(runs / "schools").__enter__()


def test_a_thousand_runs_are_listed_in_a_second(runs, tmp_path):
    kept = [runs / "schools" / name for name in ("run.json", "state.safetensors", "data.safetensors", verdicts.NAME)]
    for i in range(1000):
        folder = tmp_path / "many" / f"group{i % 10}" / f"run{i}"
        (folder / "draws").mkdir(parents=True)
        (folder / "draws" / "00000000-00000110").touch()
        for file in kept:
            os.link(file, folder / file.name)
    listing, took = Listing(tmp_path / "many"), []
    for _ in range(3):
        begun = time.process_time()
        found = listing.runs()
        took.append(time.process_time() - begun)
    assert len(found) == 1000
    assert {run.state for run in found} == {"finished"}
    assert min(took[1:]) < 1.0
    assert took[0] < 5.0


# ---- who may ask, and for what ----------------------------------------------------------------------------------------

OUT = ["../x", "..%2Fx", "%2e%2e/x", "/etc/passwd", "schools/../schools", "schools/run.json", "", "nothing", "%00"]


@pytest.mark.parametrize("id", OUT)
def test_only_runs_of_the_listing_are_answered(ask, runs, id):
    (runs.parent / "x").mkdir()
    shutil.copy(runs / "schools" / "run.json", runs.parent / "x" / "run.json")
    for page in ("/api/run", "/report"):
        for said in (id, quote(id, safe="")):
            assert ask(f"{page}?id={said}")[0] == 404
    assert ask(f"/{id.lstrip('/')}" if id else "/api")[0] == 404
    assert ask(f"/api/{id}")[0] == 404


def test_links_that_lead_out_are_not_followed(ask, runs, made):
    (runs / "away").symlink_to(made / "schools")
    (runs / "folder").symlink_to(made)
    (runs / "round").symlink_to(runs)
    state = runs / "schools" / "state.safetensors"
    state.unlink()
    state.symlink_to(made / "schools" / "state.safetensors")
    status, answer, _ = ask("/api/runs")
    found = {row["id"]: row for row in answer["runs"]}
    assert (status, set(found), set(answer["left_out"])) == (200, {"schools", "deep/mixture"}, {"away", "folder"})
    assert found["schools"]["state"] == "broken"
    assert "leads out of the folder" in found["schools"]["reason"]
    segment = next((runs / "deep" / "mixture" / "draws").iterdir())
    segment.unlink()
    segment.symlink_to(made / "deep" / "mixture" / "draws" / segment.name)
    (runs / "deep" / "mixture" / "state.safetensors").touch()
    assert "leads out" in rows(ask)["deep/mixture"]["reason"]
    assert ask("/report?id=schools")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1]", None])
def test_other_names_of_this_machine_are_refused(ask, host):
    for path in ("/", "/api/runs", "/report?id=schools"):
        assert ask(path, Host=host)[0] == 403
    assert ask("/", Host=f"localhost:{ask.server.server_port}")[0] == 200
    assert ask("/", Host="localhost:9000")[0] == 200, "through a tunnel"


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/runs", "/api/run?id=schools", "/report?id=schools"])
def test_other_users_of_the_machine_are_refused(ask, path):
    """As Jupyter does it: the word of the printed address, then a cookie that this port's pages alone are given."""
    server, joint = ask.server, "&" if "?" in path else "?"
    port, wrong = server.server_port, server.token.value[:-1] + "~"
    for cookie in (
        None,
        f"probgen-view-{port}={wrong}",
        f"probgen-view-{port + 1}={server.token.value}",
        "=;=",
        "x=\x01;" * 9,
    ):
        status, told, headers = ask(path, Cookie=cookie)
        assert status == 403
        said = told["error"] if isinstance(told, dict) else told.decode()
        assert "Open the address that" in said
        assert server.token.value not in said + str(headers)
    for token in (wrong, "", "%00", "%ff", server.token.value + "x"):
        assert ask(f"{path}{joint}token={token}")[0] == 403, "a wrong one, though the cookie is right"
    assert ask(path)[0] == 200
    assert ask(f"{path}{joint}token={server.token.value}", Cookie=None)[0] == (303 if path == "/" else 200)


def test_the_printed_address_opens_it_and_the_token_leaves_the_address(ask):
    status, _, headers = ask(
        ask.server.url.split(str(ask.server.server_port))[1], Cookie=None, Sec_Fetch_Site="cross-site"
    )
    assert (status, headers["Location"]) == (303, "/")
    word, *kind = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} == set(kind)
    assert ask("/", Cookie=word, Sec_Fetch_Site="cross-site")[0] == 200
    assert ask("/api/runs", Cookie=f"other=1; {word}")[0] == 200


def test_without_a_token_all_may_ask(runs):
    for ask in asking(runs, token=False):
        assert ask.server.url.endswith(f":{ask.server.server_port}/")
        assert ask("/api/runs", Cookie=None)[0] == ask("/?token=any", Cookie=None)[0] - 103 == 200
        assert ask("/api/runs", Cookie=None, Host="evil.example")[0] == 403


def test_other_sites_cannot_have_it_read(ask):
    for path in ("/api/runs", "/report?id=schools", "/page.js"):
        assert ask(path, Sec_Fetch_Site="cross-site")[0] == 403
        assert ask(path, Sec_Fetch_Site="same-site")[0] == 403
        assert ask(path, Sec_Fetch_Site="same-origin")[0] == 200
    _, _, headers = ask("/")
    assert "Access-Control-Allow-Origin" not in headers
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_reads_alone(ask, runs, method):
    before = files(runs)
    status, answer, headers = ask("/api/run?id=schools", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert "changes nothing" in answer["error"]
    assert files(runs) == before


def test_heads_and_what_did_not_change(ask):
    status, body, headers = ask("/api/runs", "HEAD")
    assert (status, body, int(headers["Content-Length"]) > 100) == (200, b"", True)
    assert ask("/api/runs", If_None_Match=headers["ETag"])[0] == 304
    assert ask("/report?id=schools", "HEAD")[:2] == (200, b"")
    assert ask("/api/run?id=schools")[1]["report"] == "", "a HEAD starts no report"


def test_it_is_bound_to_this_machine_and_loads_nothing_from_elsewhere(ask):
    assert ask.server.server_address[0] == "127.0.0.1"
    for path in ("/", "/page.css", "/page.js", "/charts.js"):
        status, body, _ = ask(path)
        assert status == 200
        words = body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in words
        assert "https:" not in words
        assert "innerHTML" not in words, "words of runs are text"


def luminance(colour):
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


def contrast(a, b):
    """Of two colours, as WCAG 2.2 has it."""
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def test_words_stand_out_in_light_and_dark():
    style = (Path(pg.__file__).parent / "view" / "page.css").read_text()
    themes = [
        dict(re.findall(r"--(\w+): (#\w+)", part))
        for part in style.split("@media (max-width")[0].split("@media (prefers-color-scheme: dark)")
    ]
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for theme in themes:
        full = {k: v if len(v) == 7 else "#" + "".join(2 * c for c in v[1:]) for k, v in theme.items()}
        for ground in ("paper", "card"):
            low = {
                k: v
                for k in ("ink", "soft", "link", "pass", "warn", "fail", "live")
                if (v := contrast(full[k], full[ground])) < 4.5
            }
            assert not low, (ground, low)
        assert all(contrast(full["on"], full[k]) >= 4.5 for k in ("pass", "warn", "fail"))
        assert all(contrast(full[f"c{i}"], full["paper"]) >= 3.0 for i in range(8)), "lines"


def test_verdicts_stand_out_in_reports_too():
    style = (Path(pg.__file__).parent / "report.html").read_text()
    for theme in style.split("@media (prefers-color-scheme: dark)")[:2]:
        found = dict(re.findall(r"--(\w+): (#\w+)", theme))
        full = {k: v if len(v) == 7 else "#" + "".join(2 * c for c in v[1:]) for k, v in found.items()}
        low = {k: v for k in ("ink", "soft", "pass", "warn", "fail") if (v := contrast(full[k], full["paper"])) < 4.5}
        assert not low


# ---- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_and_ends_at_ctrl_c(runs, number, tmp_path):
    code = "import sys; from probgen.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "view", str(runs), "--port", "0"]
    made, where = tmp_path / "made", os.environ | {"TMPDIR": str(tmp_path / "made")}
    made.mkdir()
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=where)
    try:
        line = child.stdout.readline()
        assert "/?token=" in line
        port = int(line.split("127.0.0.1:")[1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
        child.send_signal(number)
        if number == signal.SIGTERM:  # as `timeout` does
            child.send_signal(number)
        _, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 0
    assert err.strip() == "Ended."
    assert not list(made.glob("probgen-view-*"))


def test_what_a_browser_is_started_with_does_not_tell_the_token(runs, monkeypatch, capsys):
    """Every user of the machine reads the words that a process was started with."""
    seen = []
    monkeypatch.setattr("probgen.cli.view._shown", lambda url: seen.append(url) or keep(url))
    monkeypatch.setattr(Server, "serve_forever", lambda server: None)
    doors = []

    def keep(url):
        door = Path(url.removeprefix("file://"))
        doors.append((door.read_text(), door.stat().st_mode & 0o777) if door.is_file() else None)
        return True

    assert main(["view", str(runs), "--port", "0", "--open"]) == 0
    token = capsys.readouterr().out.split("token=")[1].split()[0]
    assert (token in seen[0], token in doors[0][0], doors[0][1]) == (False, True, 0o600)
    assert not Path(seen[0].removeprefix("file://")).exists()
    assert main(["view", str(runs), "--port", "0", "--open", "--no-token"]) == 0
    assert seen[1].startswith("http://127.0.0.1:")
    assert "token" not in seen[1]


def test_bad_folders_and_ports_are_one_message(capsys, tmp_path):
    assert main(["view", str(tmp_path / "nothing")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert main(["view", str(tmp_path), "--port", "70000"]) == 2
    assert "0 to 65535" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["view", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
    assert "--port 0" in capsys.readouterr().err
