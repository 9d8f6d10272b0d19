"""One instance of the app for a user: the second start has the first one show its window, and ends."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Seconds: the first instance is on this machine, and answers at once or is being stopped.
_PATIENCE = 5.0


class SingleInstance:
    """Holds a lock of the operating system, which is gone with the process, however that ends: it cannot go stale.

    Attributes:
        is_first: Nobody had the lock before.
        on_second_start: Called, on a thread, whenever the app is started again.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._lock_path = folder / f"{name}.lock"
        self._address_path = folder / f"{name}.json"
        self._token = secrets.token_hex(16)
        self.is_first = False
        self.on_second_start: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        self.is_first = _lock(self._lock)
        if self.is_first:
            self._server = socket.create_server(("127.0.0.1", 0))
            address = {"port": self._server.getsockname()[1], "token": self._token}
            opened = os.open(self._address_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(opened, "w", encoding="utf-8") as file:
                json.dump(address, file)
            threading.Thread(target=self._listen, name="second starts", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_first:
            self._server.close()
        os.close(self._lock)

    def call_first(self) -> bool:
        """Have the first instance show its window; returns whether it answered."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            address = json.loads(self._address_path.read_text("utf-8"))
            with socket.create_connection(("127.0.0.1", address["port"]), _PATIENCE) as connection:
                connection.sendall(f"{address['token']}\n".encode())
                return connection.recv(2) == b"ok"
        return False

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # closed: the app ends
            while True:
                connection, _ = self._server.accept()
                with contextlib.suppress(OSError), connection:
                    connection.settimeout(_PATIENCE)
                    # Others on this machine may connect, too; only this user can read the token.
                    if connection.recv(100).decode("ascii", "replace").strip() == self._token:
                        self.on_second_start()
                        connection.sendall(b"ok")


def _lock(file: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
