"""Many jobs, or the values of one, for sync callers: iterators that hold a bounded part at a time."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from orchestrator._blocking_handle import BlockingHandle, News
from orchestrator._events import Event, Item
from orchestrator._link import PIECE
from orchestrator._submission import AHEAD, identity_for
from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from types import TracebackType

    from orchestrator._models import Job, Outcome
    from orchestrator._record import Record
    from orchestrator.blocking import BlockingSupervisor


class _Entry(BlockingHandle):
    """One job of a map, which shares the map's condition and tells it when there is something to do."""

    wants_events = False

    def __init__(self, outcomes: BlockingOutcomes, job: Job, index: int) -> None:
        super().__init__(outcomes._thread, job, outcomes._news)
        self._observed = True
        self._outcomes = outcomes
        self._noticed = False  # it is in the map's line already
        self.index = index

    def event(self, record: Record, event: Event, *, owed: bool = False) -> None:
        """Nobody reads events of a map's jobs."""

    def _notice(self) -> None:
        if not self._noticed:
            self._noticed = True
            self._outcomes._noticed.append(self)
        super()._notice()


class BlockingOutcomes:
    """An iterator and context manager of outcomes; made by `BlockingSupervisor.map`. One thread reads it.

    Each outcome has the `index` and the `item` it belongs to. Items are taken, and callbacks are called, on the thread
    that asks for the next outcome. Ctrl-C there ends the map.
    """

    _closed = True  # also of one whose items were refused: `__del__` looks

    def __init__(self, supervisor: BlockingSupervisor, template: Job | None, items: Any, *, ordered: bool) -> None:
        if not isinstance(items, Iterable):
            raise ConfigurationError("items", f"must be an iterable, not {type(items).__name__}")
        self._supervisor = supervisor
        self._thread = supervisor._check_open()
        self._template = template
        self._source: Iterator[Any] | None = iter(items)
        self._ordered = ordered
        self._ahead = AHEAD * supervisor._slots()
        self._news = News()
        self._noticed: deque[_Entry] = deque()  # settled, or with calls to make
        self._pending: dict[int, _Entry] = {}
        self._early: dict[int, _Entry] = {}  # settled before it is their turn
        self._index = self._turn = 0
        self._problem: Exception | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome:
        try:
            entry = self._advance()
        except Exception:
            raise
        except BaseException:
            self._cancel_all()
            raise
        self._turn += 1
        if entry._callback_error is not None:
            raise entry._callback_error
        return entry.outcome()

    def _advance(self) -> _Entry:
        """Return the next entry that is over.

        An item is taken for each that is returned, so that there are always jobs on their way, and more of them as long
        as none is over.
        """
        while not self._closed:
            took = self._take_item()
            entry = self._next_over(wait=not took)
            if entry is not None:
                return entry
            if not took and not self._pending:
                self.close()
                if self._problem is not None:
                    raise self._problem
        raise StopIteration

    def _take_item(self) -> bool:
        """Submit the job of one more item; returns whether there was one, and room for it."""
        if self._source is None or len(self._pending) + len(self._early) >= self._ahead:
            return False
        if self._pending and not self._thread.has_space:
            return False  # jobs that wait for their calls to be made may be what fills the queue
        try:
            item = next(self._source)
            index = self._index
            submission = self._supervisor._submitter.from_item(self._template, item, index)
            entry = _Entry(self, submission.job, index)
            with self._news.lock:
                self._pending[index] = entry
            try:
                self._supervisor._hand_over(
                    submission, entry, place=(index, item), identity=identity_for(self._template, index)
                )
            except Exception:
                del self._pending[index]
                raise
        except StopIteration:
            self._source = None
        except Exception as error:
            # The iterable's own, or a job that cannot be accepted: told after the outcomes of those before it.
            self._source = None
            self._problem = error
        else:
            self._index += 1
            return True
        return False

    def _next_over(self, *, wait: bool) -> _Entry | None:
        """Make calls, and return the entry that is over and whose turn it is; None when there is none (any more)."""
        while True:
            if self._ordered and self._turn in self._early:
                return self._early.pop(self._turn)
            with self._news.lock:
                while wait and self._pending and not self._noticed:
                    self._news.wait(PIECE)
                if not self._noticed:
                    return None
                entry = self._noticed.popleft()
                entry._noticed = False
            while entry._can_call:
                entry._make_call()
            with self._news.lock:
                if not entry._is_over or self._pending.pop(entry.index, None) is None:
                    continue
                self._news.notify_all()  # a thread that closes waits for the last one
            if not self._ordered:
                return entry
            self._early[entry.index] = entry

    def _cancel_all(self) -> None:
        """Cancel what is not done, and want no more of its calls."""
        self._closed = True
        self._source = None
        with self._news.lock:
            pending = list(self._pending.values())
            for entry in pending:
                entry._calls.refuse()
        for entry in pending:
            entry.cancel()

    def close(self) -> None:
        """Cancel what is not done and wait for its end; outcomes that were not taken are dropped."""
        self._thread.check_caller()
        self._cancel_all()
        while self._pending:
            self._next_over(wait=True)

    def __del__(self) -> None:
        if not self._closed and self._index:
            warnings.warn("a map was dropped before its end; use `with`", ResourceWarning, source=self, stacklevel=2)


class BlockingItems:
    """An iterator and context manager of what a generator job yields; made by `BlockingSupervisor.stream`."""

    _over = True  # also of one that is not made yet: `__del__` looks

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

    def __iter__(self) -> Self:
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
            self._handle._cancel_and_wait()

    def __del__(self) -> None:
        if not self._over:
            self._handle._tell(self._handle._end_job)
            warnings.warn("a stream was dropped before its end; use `with`", ResourceWarning, source=self, stacklevel=2)
