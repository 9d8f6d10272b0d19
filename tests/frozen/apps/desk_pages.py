"""The service of the app that tests freeze: a small server that says who it is, and leaks when asked."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEPT: list[bytearray] = []


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/leak/"):
            KEPT.append(bytearray(b"x" * (int(self.path.rpartition("/")[2]) * 2**20)))
        about = {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "executable": sys.executable,
            "bundle": getattr(sys, "_MEIPASS", None),
            "argv": sys.argv,
            "environment": dict(os.environ),
        }
        body = json.dumps(about).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(host: str, port: int) -> None:
    """Answer until somebody ends it."""
    ThreadingHTTPServer((host, port), Page).serve_forever()
