"""A gate at which jobs wait until the test lets them go; a job that stands there is known to be running."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self

from standing import stand, stand_async

__all__ = ("Arrival", "Gate", "stand", "stand_async")


@dataclass(frozen=True)
class Arrival:
    """Who stands at the gate."""

    label: str
    pid: int


class Gate:
    """The test's side: an async context manager; leaving it opens the gate."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self._standing: dict[str, list[asyncio.StreamWriter]] = {}
        self._open = False
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._come, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.open()
        await self._server.wait_closed()

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        label, _, pid = (await reader.readline()).decode().strip().rpartition(" ")
        if not pid:  # it died on its way
            writer.close()
            return
        async with self._changed:
            self.arrivals.append(Arrival(label, int(pid)))
            self._changed.notify_all()
        if self._open:
            writer.close()
        else:
            self._standing.setdefault(label, []).append(writer)

    async def arrived(self, count: int = 1) -> list[Arrival]:
        """Wait until so many have come, in all."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: len(self.arrivals) >= count)
        return self.arrivals

    def let(self, label: str) -> None:
        """Let those of a label go."""
        for writer in self._standing.pop(label, ()):
            writer.close()

    def open(self) -> None:
        """Let all go, and those who come later."""
        self._open = True
        for label in list(self._standing):
            self.let(label)
