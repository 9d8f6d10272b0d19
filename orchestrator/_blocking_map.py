"""Many jobs, or the values of one, for sync callers: iterators that hold a bounded part at a time."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from orchestrator._blocking_handle import PIECE, BlockingHandle
from orchestrator._models import Event, Item, Job, Outcome
from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from types import TracebackType

    from orchestrator._record import Record
    from orchestrator.blocking import BlockingSupervisor

# As for async callers: quick jobs never wait for the reader of outcomes.
_AHEAD = 128


class _Entry(BlockingHandle):
    """One job of a map, which shares the map's condition."""

    def __init__(self, outcomes: BlockingOutcomes, job: Job, index: int) -> None:
        super().__init__(outcomes._supervisor, job, outcomes._news)
        self.wants_events = False
        self._observed = True
        self._outcomes = outcomes
        self.index = index

    def event(self, record: Record, event: Event) -> None:
        """Nobody reads events of a map's jobs."""

    def _notice(self) -> None:
        self._outcomes._attention.append(self)
        super()._notice()


class BlockingOutcomes:
    """An iterator and context manager of outcomes; made by `BlockingSupervisor.map`. One thread reads it."""

    def __init__(self, supervisor: BlockingSupervisor, template: Job | None, items: Any, *, ordered: bool) -> None:
        if not isinstance(items, Iterable):
            raise ConfigurationError("items", f"must be an iterable, not {type(items).__name__}")
        self._supervisor = supervisor
        self._template = template
        self._source: Iterator[Any] | None = iter(items)
        self._ordered = ordered
        self._ahead = _AHEAD * (supervisor._options.workers or 1) * supervisor._options.concurrency
        self._news = threading.Condition()
        self._attention: deque[_Entry] = deque()
        self._pending: dict[int, _Entry] = {}
        self._early: dict[int, _Entry] = {}
        self._index = self._turn = 0
        self._problem: BaseException | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> BlockingOutcomes:
        return self

    def __next__(self) -> Outcome:
        if self._closed:
            raise StopIteration
        while True:
            self._fill()
            entry = self._early.pop(self._turn, None) if self._ordered else None
            if entry is None:
                entry = self._next_settled()
                if entry is None:
                    self.close()
                    if self._problem is not None:
                        raise self._problem
                    raise StopIteration
                if self._ordered and entry.index != self._turn:
                    self._early[entry.index] = entry
                    continue
            self._turn += 1
            if entry._callback_error is not None:
                raise entry._callback_error
            return entry.outcome()

    def _fill(self) -> None:
        while self._source is not None and len(self._pending) + len(self._early) < self._ahead:
            try:
                item = next(self._source)
                job = self._job_of(item)
                entry = _Entry(self, job, self._index)
                submission = self._supervisor._submitter.from_job(job)
                with self._news:
                    self._pending[self._index] = entry
                try:
                    self._supervisor._submit(submission, entry, place=(self._index, item))
                except BaseException:
                    del self._pending[self._index]
                    raise
                self._index += 1
            except StopIteration:
                self._source = None
            except Exception as error:
                # The iterable's own, or a job that cannot be accepted: told after the outcomes of those before it.
                self._source = None
                self._problem = error

    def _job_of(self, item: Any) -> Job:
        if self._template is not None:
            template = self._template
            return Job(
                **{name: getattr(template, name) for name in Job.__dataclass_fields__ if name != "args"}, args=(item,)
            )
        if not isinstance(item, Job):
            raise ConfigurationError(f"items[{self._index}]", f"must be a Job, not {type(item).__name__}")
        return item

    def _next_settled(self) -> _Entry | None:
        """Make calls and wait until a job is over; None when there is none any more."""
        with self._news:
            while self._pending:
                while self._attention:
                    entry = self._attention.popleft()
                    while entry._calls:
                        entry._make_call()
                    if entry._is_over and self._pending.pop(entry.index, None) is not None:
                        return entry
                self._news.wait(PIECE)
        return None

    def close(self) -> None:
        """Cancel what is not done and wait for its end; outcomes that were not taken are dropped."""
        self._closed = True
        self._source = None
        for entry in list(self._pending.values()):
            entry.cancel()
        while self._next_settled() is not None:
            pass

    def __del__(self) -> None:
        if not self._closed and self._index:
            warnings.warn("a map was dropped before its end; use `with`", ResourceWarning, source=self, stacklevel=2)


class BlockingItems:
    """An iterator and context manager of what a generator job yields; made by `BlockingSupervisor.stream`."""

    def __init__(self, handle: BlockingHandle) -> None:
        self._handle = handle
        self._events = handle.events()
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> BlockingItems:
        return self

    def __next__(self) -> Any:
        if not self._over:
            for event in self._events:
                if isinstance(event, Item):
                    return event.value
            self._over = True
            self._handle.result()
        raise StopIteration

    def close(self) -> None:
        """Cancel the job unless it is done, and wait for its end."""
        if not self._over:
            self._over = True
            self._handle.cancel()
            self._handle.outcome()

    def __del__(self) -> None:
        if not self._over:
            self._handle.cancel()
            warnings.warn("a stream was dropped before its end; use `with`", ResourceWarning, source=self, stacklevel=2)
