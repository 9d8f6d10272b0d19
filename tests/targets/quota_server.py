"""An HTTP server in a process of its own that counts for itself what arrives in any window, and refuses in storms."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Counts:
    """What arrived when.

    Args:
        per: Seconds of a window.
        storm: Share of the time in which everything is refused, by turns of half a second to two.
    """

    def __init__(self, per: float, storm: float) -> None:
        self._per = per
        self._lock = threading.Lock()
        self._recent: deque[float] = deque()
        self._storm = storm
        self._turns = random.Random(7)
        self._turn_ends = 0.0
        self._refuses = False
        self.arrived = self.refused = self.fullest = self.in_flight = self.most_in_flight = 0
        self.first = self.last = 0.0

    def came(self, now: float) -> float | None:
        """Count an arrival; returns the seconds for which it is refused, if it is."""
        with self._lock:
            self.first = self.first or now
            self.last = now
            self.arrived += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            recent = self._recent
            recent.append(now)
            while now - recent[0] >= self._per:
                recent.popleft()
            self.fullest = max(self.fullest, len(recent))
            if self._storm and now >= self._turn_ends:
                self._refuses = self._turns.random() < self._storm and not self._refuses
                self._turn_ends = now + self._turns.uniform(0.5, 2.0)
            if not self._refuses:
                return None
            self.refused += 1
            return max(0.1, min(1.0, self._turn_ends - now))

    def went(self) -> None:
        with self._lock:
            self.in_flight -= 1

    def read(self) -> dict[str, Any]:
        with self._lock:
            return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def serve(per: float, latency: float, storm: float) -> None:
    """Serve until stdin ends."""
    counts = Counts(per, storm)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is one packet

        def do_GET(self) -> None:
            if self.path == "/counts":
                self._answer(200, counts.read())
                return
            wait = counts.came(time.monotonic())
            if wait is None:
                time.sleep(latency)
            counts.went()
            self._answer(200 if wait is None else 429, {"retry_after": wait})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def process_request(self, request: Any, client_address: Any) -> None:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            super().process_request(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    server.serve_forever(0.05)
    server.server_close()


class QuotaServer:
    """The server's process, and what it has counted."""

    def __init__(self, per: float, *, latency: float = 0.03, storm: float = 0.0) -> None:
        arguments = [sys.executable, __file__, str(per), str(latency), str(storm)]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def counts(self) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", "/counts")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            return found
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


if __name__ == "__main__":
    serve(*map(float, sys.argv[1:]))
