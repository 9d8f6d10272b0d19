"""Hand results to the sink in the order of the records: from memory while they are fresh, else from the journal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator_adapters.batch import _store_rows as rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_adapters.batch._sink import Sink
    from orchestrator_adapters.batch._store import Store

# Results that are kept in memory until it is their turn; of more, the journal has them all.
_MOST_HELD = 1024
_MOST_HELD_BYTES = 8 * 2**20
# What the sink gets at once from the journal.
_BLOCK = 1024


class Delivery:
    """What the sink has and what comes next.

    Args:
        store: The run's journal.
        sink: Open.
        most: Results that the sink gets at once while they are fresh.
        moved: Called when the sink has taken some.

    Attributes:
        next: The first number that the sink has not taken.
        beyond: The first number that is not in turn yet.
    """

    def __init__(self, store: Store, sink: Sink, most: int, moved: Callable[[], None]) -> None:
        self._store = store
        self._sink = sink
        self._most = most
        self._moved = moved
        self._held: dict[int, bytes | None] = {}
        self._held_bytes = 0
        self._news = asyncio.Event()
        self.next = 1
        self.beyond = 1
        self._ended = False

    def hold(self, number: int, value: bytes | None) -> None:
        """Keep a result that is committed in memory, if there is room; None is that of a record that failed."""
        size = 0 if value is None else len(value)
        if len(self._held) < _MOST_HELD and self._held_bytes + size <= _MOST_HELD_BYTES:
            self._held[number] = value
            self._held_bytes += size

    def reach(self, beyond: int) -> None:
        """All records before this number are done."""
        if beyond > self.beyond:
            self.beyond = beyond
            self._news.set()

    def end(self) -> None:
        """There will be no more results."""
        self._ended = True
        self._news.set()

    async def run(self) -> None:
        """Deliver until the end.

        Raises:
            BatchError: If the sink does not take a result.
        """
        while True:
            while self.next == self.beyond:
                if self._ended:
                    return
                self._news.clear()
                await self._news.wait()
            values, after = self._fresh()
            if after == self.next:
                values, after = await self._stored()
            if values:
                await self._sink.write(values)
            self.next = after
            self._moved()

    def _fresh(self) -> tuple[list[bytes], int]:
        """Return results from memory, and the number after the last of them."""
        values: list[bytes] = []
        number = self.next
        beyond = min(self.beyond, number + self._most)
        held = self._held
        while number < beyond and number in held:
            value = held.pop(number)
            if value is not None:
                self._held_bytes -= len(value)
                values.append(value)
            number += 1
        return values, number

    async def _stored(self) -> tuple[list[bytes], int]:
        """Return results from the journal, and the number after the last of them."""
        first, beyond = self.next, self.beyond
        found = await self._store.read(lambda connection: rows.read_values(connection, first, beyond, _BLOCK))
        for number, _ in found:
            value = self._held.pop(number, None)
            if value is not None:
                self._held_bytes -= len(value)
        return [value.encode() for _, value in found if value is not None], found[-1][0] + 1
