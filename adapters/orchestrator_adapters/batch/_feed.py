"""From the source to the supervisor: takes a record when the gate has room, and sends the one whose turn it is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator_adapters.batch._accounts import Tally
from orchestrator_adapters.batch._encode import json_text, record_hash
from orchestrator_adapters.batch._errors import BatchError
from orchestrator_adapters.batch._gate import Entry
from orchestrator_adapters.batch._store_rows import EndRow, KeptRow, usage_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from orchestrator_adapters.batch._accounts import Accounts
    from orchestrator_adapters.batch._gate import Gate
    from orchestrator_adapters.batch._plan import Earlier
    from orchestrator_adapters.batch._source import Source
    from orchestrator_adapters.batch._store import Store
    from orchestrator_adapters.batch._store_rows import Known

# Records that are done already and go by without a pause: a few milliseconds, then signals and progress have a turn.
_LOT = 512

_decode = msgspec.json.decode


class Feed:
    """Moves records through the gate.

    Args:
        source: Where they come from.
        gate: Decides which one is next.
        accounts: Are told of each move.
        earlier: What earlier runs have; None when there are none.
        store: The run's journal.
        moved: Called when records went by that are done already.

    Attributes:
        problem: Why the source could not be read to its end.
    """

    def __init__(
        self,
        source: Source,
        gate: Gate,
        accounts: Accounts,
        earlier: Earlier | None,
        store: Store,
        moved: Callable[[], None],
    ) -> None:
        self._source = source
        self._gate = gate
        self._accounts = accounts
        self._earlier = earlier
        self._store = store
        self._moved = moved
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._has_ended = False
        self.problem: BatchError | None = None
        self._sent: dict[int, Entry] = {}
        self._index = -1

    @property
    def is_over(self) -> bool:
        """Whether nothing will be sent any more."""
        return self._gate.is_closed or (self._has_ended and not self._gate.open)

    def wake(self) -> None:
        """Look again: something was committed, delivered or closed."""
        self._room.set()
        self._news.set()

    # From the source

    async def read(self) -> None:
        """Take records to the end of the source, or until it cannot be read further: `problem` tells."""
        try:
            await self._read()
        except BatchError as error:
            self.problem = error  # everything before it was taken, and is run
        self._has_ended = True
        self._moved()
        self.wake()

    async def _read(self) -> None:
        gate, earlier, accounts = self._gate, self._earlier, self._accounts
        known: Known | None = None
        async with contextlib.aclosing(aiter(self._source)) as rows:
            while not gate.is_closed:
                number = accounts.taken + 1
                if earlier is not None:
                    if not earlier.covers(number):
                        await earlier.load(number)
                    known = earlier.done(number)
                # What is done already takes no room.
                if known is None and not gate.may_take():
                    self._room.clear()
                    await self._room.wait()
                    continue
                try:
                    row = await anext(rows)
                except StopAsyncIteration:
                    break
                hash = record_hash(row.content, row.problem)
                if known is not None and known.hash == hash.hex().upper():
                    accounts.resume(Tally(known.attempts, usage_of(known), known.failure_class, known.inline))
                else:
                    if known is not None and earlier is not None:
                        await earlier.changed(number)
                    self._take(Entry(number, row.place, row.content, hash), row.problem)
                if known is not None and number % _LOT == 0:
                    self._moved()
                    await asyncio.sleep(0)
        if not gate.is_closed:
            if earlier is not None:
                await earlier.end(accounts.taken)
            accounts.count(accounts.taken)

    def _take(self, entry: Entry, problem: str | None) -> None:
        """Take a record that is not done at its place."""
        keeps = self._earlier is not None and self._remember(self._earlier, entry)
        self._accounts.take()
        self._gate.take(entry, sendable=problem is None and not keeps)
        if keeps:
            self._store.add(KeptRow(entry.number, entry.hash, entry.place))
        elif problem is not None:
            self._refuse(entry, problem)
        self._news.set()

    def _remember(self, earlier: Earlier, entry: Entry) -> bool:
        """Return whether a record was done at another place; else note what it has behind it."""
        if earlier.keeps(entry.hash):
            return True
        begun = earlier.begun(entry.number, entry.hash)
        if begun is not None:
            entry.sequence, entry.attempts = begun.sequence, begun.attempts
            entry.charged, entry.throttles = begun.charged, begun.throttles
            for text in begun.usages:
                entry.use(_decode(text) if text else {})
            self._accounts.begun_before(Tally(begun.attempts, dict(entry.usage)))
        return False

    def _refuse(self, entry: Entry, problem: str) -> None:
        """End a bad row without an attempt."""
        text = f"{self._source.name}: {entry.place}: {problem}"
        failure = json_text({"record": entry.content, "error": "BadRow", "message": text})
        self._store.add(
            EndRow(entry.number, entry.hash, entry.place, None, "invalid", failure, entry.attempts, None, 0.0, False)
        )

    # To the supervisor

    async def records(self) -> AsyncGenerator[Any, None]:
        """Yield the record to run now, until nothing will be sent any more; for one `map`."""
        gate, accounts, loop, news = self._gate, self._accounts, self._loop, self._news
        self._sent = sent = {}
        self._index = -1
        while not self.is_over:
            entry = gate.next(loop.time())
            if entry is None:
                news.clear()
                at = gate.wake_at()
                timer = None if at is None else loop.call_at(at, news.set)
                try:
                    await news.wait()
                finally:
                    if timer is not None:
                        timer.cancel()
                continue
            accounts.send(again=entry.tried)
            entry.tried = True
            self._index += 1
            sent[self._index] = entry
            yield entry.content

    def returned(self, index: int | None) -> Entry:
        """Return the record of an outcome, by its position among those that this `map` got; the last one for None."""
        return self._sent.pop(self._index if index is None else index)

    async def first(self) -> bool:
        """Wait until there is something to send, or nothing will be; return which."""
        while not self.is_over:
            if self._gate.wake_at() is not None:
                return True
            self._news.clear()
            await self._news.wait()
        return False
