"""Targets that services run: small servers, and what goes wrong with them."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nobody wants to read that."""


def serve(port: int, host: str = "127.0.0.1") -> None:
    """Answer every request with the number of this process."""
    with ThreadingHTTPServer((host, port), _Answer) as server:
        print(f"listening on {port}", flush=True)
        server.serve_forever()
