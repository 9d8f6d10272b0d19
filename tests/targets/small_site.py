"""A web site on the local machine for tests: a login, a form whose fields come late, and pages that hang on purpose."""

from __future__ import annotations

import html
import http.server
import socket
import threading
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "ada", "pins-please"
COOKIE = "session=let-in"

LOGIN = """<form method="post"><input id="username" name="username">
<input id="password" name="password" type="password">
<button id="login">Log in</button></form>{error}"""
# The fields are not there when the page is: whoever does not wait for them finds none.
NEW = """<div id="place"></div><template id="form"><form method="post"><input id="title" name="title">
<textarea id="description" name="description"></textarea>
<select id="board" name="board"><option>Birds</option><option>Maps</option></select>
<button id="publish">Publish</button></form></template>
<script>setTimeout(() => document.getElementById("place").append(
  document.getElementById("form").content.cloneNode(true)), 120)</script>{error}"""
PAGES = {
    "/plain": "<h1>{title}</h1>",
    "/spin": "<h1>spin</h1><button onclick='while (true) {{}}'>spin</button>",
    "/dialog": "<h1>dialog</h1><button onclick='alert(1)'>ask</button><script>function ask() {{ alert(2) }}</script>",
    "/popups": "<h1>popups</h1><button onclick='for (let i = 0; i < 5; i++) window.open(\"/plain?title=\" + i)'>"
    "open</button>",
    "/noisy": "<h1>noisy</h1><script>console.log('first words'); console.error('bad words');"
    "fetch('/nowhere'); setTimeout(() => {{ throw new Error('thrown in the page') }}, 0)</script>",
    "/download": "<a id='file' href='/file'>file</a><a id='endless' href='/endless-file'>endless</a>",
}


class Site:
    """A context manager; serves in threads of this process until it is left.

    Attributes:
        url: Where it is, without a slash at the end.
        pins: What was published, in order.
        asked: The path of every request, in order.
    """

    def __enter__(self) -> Self:
        self.pins: list[dict[str, str]] = []
        self.asked: list[str] = []
        self.on_publish: Callable[[int], None] = lambda number: None  # called before that pin is accepted
        self.closing = threading.Event()
        self._reached = threading.Condition()
        self._open: set[socket.socket] = set()
        site = self

        class Handler(_Handler):
            def setup(self) -> None:
                self.site = site
                site._open.add(self.request)
                super().setup()

            def finish(self) -> None:
                site._open.discard(self.request)
                super().finish()

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="small site")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        for line in list(self._open):
            try:
                line.shutdown(socket.SHUT_RDWR)  # browsers keep lines open on which they never ask anything
            except OSError:
                pass
        self._server.server_close()
        self._thread.join()

    def saw(self, path: str) -> None:
        with self._reached:
            self.asked.append(path)
            self._reached.notify_all()

    def wait_asked(self, path: str, count: int = 1, timeout: float = 60) -> None:
        """Wait until a path was asked for so many times in all."""
        with self._reached:
            assert self._reached.wait_for(lambda: self.asked.count(path) >= count, timeout), self.asked


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # closing waits for them
    request_queue_size = 100

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that is killed hangs up in the midst of an answer."""


class _Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self, body: str, status: int = 200, **headers: str) -> None:
        text = f"<!doctype html><title>{self.path}</title>{body}".encode()
        self.send_response(status)
        kind = headers.pop("kind", "text/html; charset=utf-8")
        for name, value in {"Content-Type": kind, "Content-Length": str(len(text)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(text)

    def redirect(self, place: str, **headers: str) -> None:
        self.answer("", 303, Location=place, **headers)

    def is_known(self) -> bool:
        return COOKIE in (self.headers.get("Cookie") or "")

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.site.saw(parts.path)
        if parts.path == "/login":
            self.answer(LOGIN.format(error=""))
        elif parts.path == "/new":
            if self.is_known():
                self.answer(NEW.format(error=""))
            else:
                self.redirect("/login")
        elif parts.path.startswith("/pin/"):
            number = int(parts.path.removeprefix("/pin/"))
            self.answer(f"<h1 data-pin-id='{number}'>{html.escape(self.site.pins[number]['title'])}</h1>")
        elif parts.path == "/whoami":
            self.answer(f"<h1>{'known' if self.is_known() else 'unknown'}</h1>")
        elif parts.path == "/endless":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><h1>endless</h1><img src='/never'>")
            self.wfile.flush()
            self.site.closing.wait(120)
        elif parts.path == "/endless-file":
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Disposition", "attachment; filename=endless.bin")
            self.end_headers()
            self.wfile.write(b"x" * 100_000)
            self.wfile.flush()
            self.site.closing.wait(120)
        elif parts.path == "/never":
            self.site.closing.wait(120)
        elif parts.path == "/file":
            self.answer("x" * 10_000, kind="application/octet-stream", Content_Disposition="attachment; filename=a.bin")
        elif parts.path in PAGES:
            self.answer(PAGES[parts.path].format(title=html.escape(asked.get("title", "plain"))))
        else:
            self.answer("<h1>not here</h1>", 404)

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        self.site.saw(f"POST {path}")
        length = int(self.headers.get("Content-Length") or 0)
        given = {
            name: values[0]
            for name, values in parse_qs(self.rfile.read(length).decode(), keep_blank_values=True).items()
        }
        if path == "/login":
            if (given.get("username"), given.get("password")) == (USER, PASSWORD):
                self.redirect("/new", Set_Cookie=f"{COOKIE}; Path=/")
            else:
                self.answer(LOGIN.format(error="<p class='error'>wrong password</p>"))
        elif path == "/new" and self.is_known():
            if not given.get("title"):
                self.answer(NEW.format(error="<p class='error'>a pin needs a title</p>"))
                return
            self.site.on_publish(len(self.site.pins))
            self.site.pins.append(given)
            self.redirect(f"/pin/{len(self.site.pins) - 1}")
        else:
            self.redirect("/login")
