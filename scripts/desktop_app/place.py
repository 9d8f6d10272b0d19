"""Where the app meets the system it runs on: its log file, errors that nobody caught, signals that end it."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def log_to(path: Path) -> None:
    """Write what is logged, and what nobody caught, to a file: a windowed app has no other place for it."""
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=1_000_000, backupCount=3, encoding="utf-8", delay=True
    )
    form = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, handlers=[handler], format=form)
    before = sys.excepthook

    def uncaught(kind: Any, error: Any, trace: Any) -> None:
        logging.critical("uncaught", exc_info=(kind, error, trace))
        if sys.stderr is not None:
            before(kind, error, trace)

    sys.excepthook = uncaught
    threading.excepthook = lambda told: uncaught(told.exc_type, told.exc_value, told.exc_traceback)


def on_signals(call: Callable[[], None]) -> None:
    """Call from a thread, once, when somebody asks the process to end: Ctrl-C, SIGTERM, a terminal that closes.

    Most toolkits keep the main thread in C code, where Python runs no handler: so a thread listens to what Python's
    own C handler writes. GTK has that written elsewhere, but runs the handlers.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def ask(*_: object) -> None:
        with contextlib.suppress(OSError):
            writer.send(b"\0")

    def listen() -> None:
        reader.recv(1)
        logging.info("asked to end by a signal")
        call()

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), ask)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=listen, name="signals", daemon=True).start()
