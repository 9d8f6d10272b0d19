"""Services that go wrong, each in its own way; every start adds a line with its pid to the file `starts`."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HELD: list[bytearray] = []


class Answers(BaseHTTPRequestHandler):
    """Answers with its pid, and does harm when it is asked to."""

    status = 200
    count = 0  # of questions

    def do_GET(self) -> None:
        if self.path == "/slow":
            Answers.count += 1
            time.sleep(0.3)
        if self.path == "/leak":
            HELD.append(bytearray(os.urandom(1) * 150_000_000))
        if self.path == "/die":
            os._exit(7)
        if self.path == "/deafen":
            type(self).do_GET = hold  # type: ignore[method-assign]
        body = str(Answers.count if self.path == "/count" else os.getpid()).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Fails(Answers):
    """Answers, but never well."""

    status = 500


def hold(*_: object) -> None:
    while True:
        time.sleep(3600)


def started(starts: str) -> None:
    with Path(starts).open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")


def listen(host: str, port: int, answers: type[Answers] = Answers) -> None:
    with ThreadingHTTPServer((host, port), answers) as server:
        server.daemon_threads = True
        server.serve_forever()


def good(starts: str, port: int, host: str = "127.0.0.1") -> None:
    started(starts)
    listen(host, port)


def never_ready(starts: str, port: int) -> None:
    started(starts)
    print("still looking for my glasses", file=sys.stderr, flush=True)
    hold()


def exits(starts: str, port: int, code: int = 3) -> None:
    started(starts)
    print("there is no such database", file=sys.stderr, flush=True)
    sys.exit(code)


def raises(starts: str, port: int) -> None:
    started(starts)
    raise KeyError("no such setting")


def ready_and_gone(starts: str) -> None:
    from orchestrator import child

    started(starts)
    child.ready()


def answers_500(starts: str, port: int) -> None:
    started(starts)
    listen("127.0.0.1", port, Fails)


def speaks_no_http(starts: str, port: int) -> None:
    started(starts)
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(4096)
                accepted.sendall(b"220 mail at your service\r\n")


def ignores_the_request_to_stop(starts: str, port: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    good(starts, port)


def forks_away(starts: str, strays: str, port: int) -> None:
    """Start a process that gives itself a session of its own and another parent, twice over, and then serve."""
    program = (
        "import os, sys, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
        "print('away', flush=True)\n"
        "time.sleep(3600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, strays], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"away\n"
        process.stdout.close()
    good(starts, port)


def leaves_its_port_to_a_stray(starts: str, port: int) -> None:
    """Give the listening socket to a process that lives on when this one is killed."""
    started(starts)
    with socket.create_server(("127.0.0.1", port)) as server:
        os.set_inheritable(server.fileno(), True)
        program = "import time; time.sleep(3600)"
        with subprocess.Popen([sys.executable, "-c", program], close_fds=False, start_new_session=True):
            hold()


def talks_too_much(starts: str, port: int) -> None:
    def flood() -> None:
        while True:
            sys.stderr.write("x" * 10_000 + "\n")
            print("y" * 10_000)

    threading.Thread(target=flood, daemon=True).start()
    good(starts, port)


def crashes_in_c(starts: str, port: int) -> None:
    started(starts)
    ctypes.string_at(0)
