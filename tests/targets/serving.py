"""Targets that services run: small servers, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from orchestrator import child


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, text = 200, str(os.getpid())
        if self.path == "/cwd":
            text = os.getcwd()
        elif self.path.startswith("/env/"):
            text = os.environ.get(self.path[5:], "-")
        elif self.path.startswith("/file/"):  # well as long as a file is there
            status = 200 if os.path.exists(self.path[5:]) else 500
        elif self.path == "/hang":
            time.sleep(600)
        elif self.path.startswith("/grow/"):
            _KEPT.append(b"x" * int(self.path[6:]))
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nobody wants to read that."""


_KEPT: list[bytes] = []


def serve(port: int, host: str = "127.0.0.1") -> None:
    """Answer every request with the number of this process, and some with other things."""
    with ThreadingHTTPServer((host, port), _Answer) as server:
        server.daemon_threads = True
        print(f"listening on {port}", flush=True)
        server.serve_forever()


def serve_after(gate: str, port: int) -> None:
    """Serve once a file is there."""
    while not os.path.exists(gate):
        time.sleep(0.01)
    serve(port)


def serve_and_tell(folder: str, name: str, port: int) -> None:
    """Serve, and write down when it begins and when it ends."""
    _write(folder, f"{name} begins")
    try:
        serve(port)
    finally:
        _write(folder, f"{name} ends")


def _write(folder: str, line: str) -> None:
    with open(os.path.join(folder, "told"), "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


async def serve_async(folder: str, port: int) -> None:
    """Serve in an event loop."""
    asyncio.get_running_loop()
    try:
        server = await asyncio.start_server(_greet, "127.0.0.1", port)
        async with server:
            await server.serve_forever()
    finally:
        _write(folder, "async ends")


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"HTTP/1.0 200 OK\r\n\r\nasync")
    await writer.drain()
    writer.close()


def say_ready_after(gate: str) -> None:
    """Have no port; say that it is ready once a file is there, and stop when asked to."""
    while not os.path.exists(gate):
        time.sleep(0.01)
    child.log("about to be ready", pid=os.getpid())
    child.ready()
    while not child.stop_requested():
        time.sleep(0.01)


def idle(folder: str) -> None:
    """Do nothing until it is stopped, and tell of each way to hear of that."""
    atexit.register(_write, folder, "atexit")
    _write(folder, f"begins {os.getpid()}")
    try:
        while True:
            time.sleep(600)
    finally:
        _write(folder, f"finally {child.stop_requested()}")


def heed_nothing(folder: str) -> None:
    """Ignore every wish that it should end."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _write(folder, f"begins {os.getpid()}")
    child.ready()
    while True:
        time.sleep(600)


def die_at_once(folder: str) -> None:
    """Count the starts, and fail."""
    _write(folder, "start")
    raise RuntimeError("there is no database")


def end_at_once(folder: str) -> None:
    """Count the starts, and return."""
    _write(folder, "start")


def ready_then_die(folder: str) -> None:
    """Count the starts, be ready, and fail."""
    _write(folder, "start")
    child.ready()
    os._exit(3)


def never_ready(port: int) -> None:
    """Wait for ever, and listen to nobody."""
    print("loading for ever", file=sys.stderr, flush=True)
    time.sleep(600)


def serve_in_thread(port: int) -> None:
    """Return with a server left in a thread, as some programs do."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Answer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever).start()


def beget(folder: str, port: int) -> None:
    """Start a process that outlives its parent, and serve."""
    import subprocess

    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    Path(folder, "grandchild").write_text(str(started.pid), "utf-8")
    serve(port)


def take(size: int, when: str, port: int) -> None:
    """Serve with little memory, and take much once a file is there."""

    def grow() -> None:
        while not os.path.exists(when):
            time.sleep(0.01)
        _KEPT.append(b"x" * size)

    threading.Thread(target=grow, daemon=True).start()
    serve(port)


def wants_another(number: int) -> None:
    """Have a parameter that nobody offers."""
