"""A pin board on this machine, to publish to in tests and examples: a real web application that counts for itself.

with PinBoard(errors=0.1, seed=7) as board:
    publish_to(board.url, USERNAME, PASSWORD)
    assert board.twice() == []
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, Self

import uvicorn
from _pin_board_app import Site
from _pin_board_faults import Faults
from _pin_board_pins import BOARDS, Pins

USERNAME = "ada"
PASSWORD = "pins-please"


class PinBoard:
    """The board; a context manager that serves from a thread of this process until it is left.

    Args:
        duplicates: `allow`, or `refuse` a title and image that are there already.
        boards: Names of the boards that pins can be put on.
        port: Where it listens, on 127.0.0.1; 0 for any free port.
        options: Of `Faults`: `errors`, `lost_answers`, `rate`, `per`, `late`, `slow`, `seed`.
    """

    def __init__(
        self, *, duplicates: str = "allow", boards: tuple[str, ...] = BOARDS, port: int = 0, **options: Any
    ) -> None:
        if duplicates not in ("allow", "refuse"):
            raise ValueError(f"duplicates is 'allow' or 'refuse', not {duplicates!r}")
        self._faults = Faults(**options)
        self._pins = Pins(boards, duplicates)
        self._site = Site(self._pins, self._faults, {USERNAME: PASSWORD})
        self._thread = threading.Thread(target=self._serve, name="pin board")
        # Open from here on: who comes before the thread serves has to wait, and is not refused.
        self._socket = socket.create_server(("127.0.0.1", port), backlog=256)
        self._port = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._site.application(),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # What hangs on to the board when it closes is a browser that is not needed any more.
                timeout_graceful_shutdown=1,
            )
        )

    @property
    def url(self) -> str:
        """The address, without a path."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections and the thread."""
        self._faults.close()
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()

    def pins(self, **wanted: str) -> list[dict[str, Any]]:
        """Return the pins, oldest first, as the JSON API does; `title`, `mark`, `board` and `text` choose."""
        return [pin.describe() for pin in self._pins.find(**wanted)]

    def twice(self) -> list[list[int]]:
        """Return the numbers of pins that were published more than once, a list for each."""
        return self._pins.twice()

    def stats(self) -> dict[str, Any]:
        """Return what was counted so far."""
        return self._site.stats()

    def configure(self, **changes: Any) -> None:
        """Change `errors`, `lost_answers`, `rate`, `per`, `late`, `slow`, or what goes wrong on command.

        `fail_next=2` lets two publishes fail before their pin is stored, `lose_next=2` after; `limit_next=2` lets two
        be too many, which may come again after a second. `hold="before"` or
        `hold="after"` lets publishes wait before or after their pin is stored, until `hold=None` or their client is
        gone; a pin whose client went before it was stored is not stored.
        """
        self._faults.configure(**changes)

    def wait_until_held(self, number: int = 1, timeout: float = 60.0) -> None:
        """Wait until so many publishes wait.

        Raises:
            TimeoutError: They did not come.
        """
        if not self._faults.wait_until_held(number, timeout):
            raise TimeoutError(f"fewer than {number} publishes were held within {timeout:g} s")

    def end_sessions(self) -> None:
        """Log everybody out."""
        self._site.sessions.clear()

    def reset(self) -> None:
        """Forget pins, sessions and counts."""
        self._site.reset()

    def _serve(self) -> None:
        # A loop of its own kind: the program may have a policy whose loops are of another.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._server.serve(sockets=[self._socket]))
