"""Many jobs from one iterable: outcomes as they come, in bounded memory both ways."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from orchestrator._handle import Receipt
from orchestrator._submission import AHEAD, identity_for
from orchestrator.exceptions import ConfigurationError, SupervisorClosed

if TYPE_CHECKING:
    from types import TracebackType

    from orchestrator._link import Link
    from orchestrator._models import Job, Outcome
    from orchestrator._record import Record
    from orchestrator._supervisor import Supervisor

# After so many outcomes that were there already, and after so many seconds of taking items, the loop gets a turn.
_LOT = 64
_TURN = 0.01


class _Entry(Receipt):
    """One job of a map, which tells the map when it is settled."""

    def __init__(self, link: Link, outcomes: Outcomes, index: int, item: Any) -> None:
        super().__init__(link)
        self._outcomes = outcomes
        self.index = index
        self.item = item

    def _finish(self) -> None:
        super()._finish()
        self._outcomes._settled(self)


class Outcomes:
    """An async iterator and async context manager of outcomes; made by `Supervisor.map`.

    Each outcome has the `index` and the `item` it belongs to.
    """

    _closed = True  # also of one whose items were refused: `__del__` looks

    def __init__(self, supervisor: Supervisor, template: Job | None, items: Any, *, ordered: bool) -> None:
        if not isinstance(items, Iterable | AsyncIterable):
            raise ConfigurationError("items", f"must be an iterable or an async iterable, not {type(items).__name__}")
        self._supervisor = supervisor
        self._template = template
        self._source: Iterator[Any] | AsyncIterator[Any] = (
            aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        )
        self._ordered = ordered
        self._ahead = AHEAD * supervisor._slots()
        self._index = 0
        self._exhausted = False
        self._pending: dict[int, tuple[_Entry, Record]] = {}
        self._ready: deque[_Entry] = deque()
        self._early: dict[int, _Entry] = {}  # settled before it is their turn
        self._turn = 0
        self._news = asyncio.Event()
        self._feeder: asyncio.Task[None] | None = None
        self._problem: BaseException | None = None
        self._taken = asyncio.Event()
        self._unbroken = 0  # outcomes that were there already when they were asked for
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Outcomes:
        return self

    def _settled(self, entry: _Entry) -> None:
        self._pending.pop(entry.index, None)
        if not self._ordered:
            self._ready.append(entry)
        else:
            self._early[entry.index] = entry
            while self._turn in self._early:
                self._ready.append(self._early.pop(self._turn))
                self._turn += 1
        self._news.set()

    @property
    def _held(self) -> int:
        return len(self._pending) + len(self._ready) + len(self._early)

    async def __anext__(self) -> Outcome:
        if self._closed:
            raise StopAsyncIteration
        self._unbroken += 1
        if self._unbroken >= _LOT:
            self._unbroken = 0
            await asyncio.sleep(0)
        if self._feeder is None and not self._exhausted:
            self._feeder = asyncio.create_task(self._feed(), name="orchestrator map")
        while not self._ready:
            if self._exhausted and not self._pending:
                await self.aclose()
                if self._problem is not None:
                    raise self._problem
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        entry = self._ready.popleft()
        self._taken.set()
        if entry.callback_error is not None:
            raise entry.callback_error
        assert entry.record is not None
        return entry.record.outcome()

    async def _feed(self) -> None:
        """Take items as long as there is room, and submit their jobs."""
        now = asyncio.get_running_loop().time
        begun = now()
        source = self._source
        waits = isinstance(source, AsyncIterator)
        try:
            while True:
                while self._held >= self._ahead:
                    self._taken.clear()
                    await self._taken.wait()
                if now() - begun > _TURN:
                    await asyncio.sleep(0)  # an iterable that takes its time is not to stop the loop
                    begun = now()
                try:
                    item = await anext(source) if waits else next(source)  # type: ignore[arg-type]
                except (StopIteration, StopAsyncIteration):
                    break
                await self._submit(item)
        except Exception as error:
            # The iterable's own, or a job that cannot be accepted: told after the outcomes of those before it.
            self._problem = error
        finally:
            self._exhausted = True
            self._news.set()

    async def _submit(self, item: Any) -> None:
        index = self._index
        self._index += 1
        link, submission = self._supervisor._prepare(self._template, item, index)
        entry = _Entry(link, self, index, item)
        identity = identity_for(self._template, index)
        record = await self._supervisor._accept(link, submission, entry, index=index, item=item, identity=identity)
        if not entry.done:
            self._pending[index] = entry, record

    async def aclose(self) -> None:
        """Cancel what is not done and wait for its end; outcomes that were not taken are dropped."""
        self._closed = True
        feeder, self._feeder = self._feeder, None
        if feeder is not None and not feeder.done():
            feeder.cancel()
            await asyncio.wait([feeder])
        if self._pending:
            link = self._supervisor._link
            assert link is not None
            with contextlib.suppress(SupervisorClosed):  # it settled them when it closed
                link.call(link.engine.cancel, [record for _, record in self._pending.values()])
        while self._pending:
            self._news.clear()
            await self._news.wait()
        if isinstance(self._source, AsyncIterator):
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()

    def __del__(self) -> None:
        if not self._closed and self._feeder is not None:
            warnings.warn(
                "a map was dropped before its end; use `async with`", ResourceWarning, source=self, stacklevel=2
            )
