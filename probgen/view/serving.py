"""The server: this machine alone, reading alone. Who asks by another name than this machine's, or from another site, is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import socketserver
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from probgen.view.admission import Token, told
from probgen.view.curves import Curves
from probgen.view.listing import Listing
from probgen.view.making import Job, Reports
from probgen.view.reading import Told, judged, plain

HERE = "127.0.0.1"
NAMES = (HERE, "localhost")  # of this machine in a browser; another name may have been pointed here by a stranger
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
}
OWN = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"
STATIC = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # of a report: no scripts
EVERYWHERE = "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
JSON, PAGE = "application/json; charset=utf-8", "text/html; charset=utf-8"


class Server(ThreadingHTTPServer):
    """Serves one folder on 127.0.0.1; port 0 takes a free one. OSError where the port is taken.

    token: whether who asks must know the word in `url`, which other users of the machine do not.
    """

    daemon_threads = True

    def __init__(self, folder: str | Path, port: int = 0, token: bool = True):
        root = Path(folder)
        if not root.is_dir():
            raise NotADirectoryError(f"There is no folder {folder}. Say which holds your runs: probgen view runs/")
        self.token = Token(token)
        self.listing, self.curves, self.reports = Listing(root), Curves(), Reports()
        super().__init__((HERE, port), Handler)  # closes them where it fails

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without a look-up of this machine's name
        self.server_name, self.server_port = HERE, self.server_address[1]

    @property
    def url(self) -> str:
        """Where a browser finds it; the whole key to it where it has a token."""
        return f"{self.home}?token={self.token.value}" if self.token.value else self.home

    @property
    def home(self) -> str:
        """Its page, as anybody may know it."""
        return f"http://{HERE}:{self.server_port}/"

    def server_close(self) -> None:
        super().server_close()
        self.reports.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away before its answer was whole."""


class Refused(Exception):
    """A request that is not answered: a status and the reason, as a page where a browser shows it."""

    def __init__(self, status: int, reason: str, page: bool = False):
        super().__init__(reason)
        self.status, self.page = status, page


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; everything else is refused."""

    server: Server
    server_version, sys_version = "probgen", ""
    timeout = 30

    def do_GET(self) -> None:
        try:
            self._answer()
        except Refused as refused:
            if refused.page:
                self._send(refused.status, PAGE, told(str(refused)), STATIC)
            else:
                self._send(refused.status, JSON, _json({"error": str(refused)}))
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # told on the page, whatever a run's files made happen
            self._send(500, JSON, _json({"error": f"{type(error).__name__}: {error}"}))

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self._send(405, JSON, _json({"error": f"{self.command} is refused: this page reads, and changes nothing."}))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the user's."""

    def _check(self, url: SplitResult, token: str | None) -> None:
        """Refuse names that are not this machine's, what another site has a browser ask, and who does not know the token."""
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if name.lower() not in NAMES:
            raise Refused(403, f"This page is for {self.server.home} alone; the request was for {name or 'no host'!r}.")
        if url.path != "/" and self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise Refused(403, "Another site asked for this. Open it from the page itself.")
        if reason := self.server.token.refused(token, self.headers.get("Cookie"), self.server.server_port):
            raise Refused(403, reason, page=url.path in ("/", "/report"))

    def _answer(self) -> None:
        url = urlsplit(self.path)
        asked = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        self._check(url, asked.get("token"))
        if "token" in asked and url.path == "/":  # the word leaves the address, for the history of the browser
            self._send(303, PAGE, b"", STATIC, {"Location": "/", **self._remembered()})
            return
        if url.path in FILES:
            name, kind = FILES[url.path]
            self._send(200, kind, (resources.files("probgen.view") / name).read_bytes(), OWN)
            return
        if url.path == "/api/runs":
            self._send(200, JSON, _json(self._list()))
        elif url.path == "/api/run":
            self._send(200, JSON, _json(self._run(asked.get("id", ""))))
        elif url.path == "/report":
            self._report(asked)
        else:
            raise Refused(404, "There is no such page.")

    def _list(self) -> dict[str, Any]:
        runs = self.server.listing.runs()
        shown = [self._row(run) for run in runs]
        listing = self.server.listing
        return {
            "folder": str(listing.root),
            "left_out": listing.left_out,
            "not_looked": listing.not_looked,
            "runs": shown,
        }

    def _row(self, run: Told) -> dict[str, Any]:
        """A run without what only its own page shows."""
        left = ("settings", "versions", "stamp", "verdict")
        row = {f.name: getattr(run, f.name) for f in dataclasses.fields(run) if f.name not in left}
        verdict = self._verdict(run)
        if verdict:
            worst = [f"{f['check']}: {f['message']}" for f in verdict["findings"] if f["status"] == verdict["status"]]
            row["verdict"] = {"status": verdict["status"], "headline": verdict["headline"]}
            row["worst"] = worst[0] if worst and verdict["status"] != "pass" else ""
        return row

    def _verdict(self, run: Told) -> Any:
        return judged(self.server.reports.verdict(run)) or run.verdict

    def _found(self, id: str) -> tuple[Told, Path]:
        try:
            return self.server.listing.run(id)
        except KeyError:
            raise Refused(404, "There is no such run in the folder, or none any more.") from None

    def _run(self, id: str) -> dict[str, Any]:
        run, path = self._found(id)
        row = self._row(run) | {"settings": run.settings, "versions": run.versions, "verdict": self._verdict(run)}
        row["path"] = str(path)
        job = self.server.reports.under_way(run.id)
        row["report"] = job.state if job else ""
        warmup = (run.settings or {}).get("num_warmup")
        row["num_warmup"] = warmup if isinstance(warmup, int) else 0
        return row | (self.server.curves.of(path, row["num_warmup"]) if run.step else {"series": []})

    def _report(self, asked: dict[str, str]) -> None:
        """A report that is ready; else a page that says so, and looks again by itself."""
        number = asked.get("made", "")
        job = self.server.reports.job(int(number)) if number.isdecimal() and len(number) < 10 else None
        if job is None:
            run, path = self._found(asked.get("id", ""))
            if run.state == "broken":
                raise Refused(404, f"There is no report of a run that cannot be read: {run.reason}")
            if self.command == "HEAD":
                self._send(200, PAGE, b"", STATIC)
                return
            job = self.server.reports.ask(run, path)
        self._send(200, PAGE, job.page or _waiting(job), STATIC)

    def _remembered(self) -> dict[str, str]:
        """What has the browser keep the token."""
        token = self.server.token
        return {"Set-Cookie": token.cookie(self.server.server_port)} if token.value else {}

    def _send(
        self,
        status: int,
        kind: str,
        body: bytes,
        policy: str = "default-src 'none'",
        more: Mapping[str, str] | None = None,
    ) -> None:
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        status = 304 if status == 200 and self.headers.get("If-None-Match") == tag else status
        self.send_response(status)
        for name, value in {
            "Content-Type": kind, "Content-Length": str(len(body) if status != 304 else 0), "ETag": tag,
            "Cache-Control": "no-cache", "Content-Security-Policy": policy + EVERYWHERE, "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
            **({"Allow": "GET, HEAD"} if status == 405 else {}), **(more or {}),
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(body)


def _json(value: Any) -> bytes:
    return json.dumps(plain(value), allow_nan=False, default=str).encode()


def _waiting(job: Job) -> bytes:
    """A page without scripts: what is being done, or why there is no report."""
    name = html.escape(job.id)
    again = f"/report?made={job.number}"
    if job.state == "failed":
        told = (
            f'<h1>No report of {name}</h1><pre role="alert">{html.escape(job.error)}</pre><p>The run is untouched.</p>'
        )
        refresh = ""
    else:
        word = "is being made" if job.state == "making" else "waits for another one"
        told = f'<h1>{name}</h1><p role="status">Its report {word}. This page shows it when it is ready.</p>'
        refresh = f'<meta http-equiv="refresh" content="2; url={again}">'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}<title>Report of {name}</title>'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:15vh auto;padding:0 1rem}"
        f"pre{{white-space:pre-wrap}}h1{{font-size:1.4rem}}</style></head><body>{told}</body></html>"
    ).encode()
