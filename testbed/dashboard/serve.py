"""The page over HTTP, for this machine only. It is made anew whenever the results file has changed."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from testbed.dashboard import site
from testbed.dashboard.data import to_json
from testbed.dashboard.goals import Goal
from testbed.errors import BadInput, LabError, TestbedError
from testbed.results.store import reading

ADDRESS = "127.0.0.1"
_HOSTS = ("127.0.0.1", "localhost")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_JSON = "application/json"


class Live:
    """A results file, read again when it is another one than before."""

    def __init__(self, path: Path, goals: Sequence[Goal]) -> None:
        self.path = path
        self._goals = goals
        self._lock = threading.Lock()
        self._of = self._state()
        self._site = site.Site(path, goals, served=True)

    def site(self) -> site.Site:
        """The page as the file is now. Raises what reading a results file raises."""
        with self._lock:
            now = self._state()
            if now != self._of:
                self._site = site.Site(self.path, self._goals, served=True)
                self._of = now
            return self._site

    def _state(self) -> tuple[int, int, int] | None:
        if not self.path.exists():
            return None
        found = self.path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def compare(self, base: str, new: str) -> bytes:
        """Two batches, as JSON. Raises BadInput for one that is not there."""
        page = self.site()
        by_id = {batch.id: number for number, batch in enumerate(page.index.batches)}
        if missing := [name for name in (base, new) if name not in by_id]:
            raise BadInput(f"{self.path}: there is no batch {missing[0]!r}")
        with reading(self.path) as results:
            return to_json(page.compare(results, by_id[base], by_id[new]))


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Answer a file of the page, or /compare?base=BATCH&new=BATCH."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if host not in _HOSTS:  # a page of another site, whose name was made to mean this machine
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"this page is at 127.0.0.1\n")
            return
        try:
            kind, body = self._found()
        except KeyError:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such file\n")
        except TestbedError as error:
            status = HTTPStatus.BAD_REQUEST if isinstance(error, BadInput) else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, _JSON, to_json({"error": str(error)}))
        else:
            self._answer(HTTPStatus.OK, kind, body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def _found(self) -> tuple[str, bytes]:
        asked = urlsplit(self.path)
        path = asked.path.removeprefix("/") or "index.html"
        if path == "compare":
            given = parse_qs(asked.query)
            base, new = (given.get(name, [""])[0] for name in ("base", "new"))
            return _JSON, self.server.live.compare(base, new)
        if path == "data.js":
            return _TYPES[".js"], self.server.live.site().data()
        folder, _, name = path.rpartition("/")
        if folder == "classes" and name.endswith(".js"):
            return _TYPES[".js"], self.server.live.site().detail(name.removesuffix(".js"))
        file = {each.name: each for each in site.fixed()}[path]
        return _TYPES[file.suffix], file.read_bytes()

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are no news."""


class Server(http.server.ThreadingHTTPServer):
    """Listens when it is made. Raises LabError where the port is taken."""

    daemon_threads = True

    def __init__(self, live: Live, port: int) -> None:
        self.live = live
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise LabError(f"port {port} of {ADDRESS}: {error.strerror}: choose one with --port") from None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"
