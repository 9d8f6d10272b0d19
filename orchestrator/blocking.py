"""The supervisor for code that has no event loop, or one that must not know: Streamlit, Jupyter, Qt, Flask, scripts."""

from __future__ import annotations

import atexit
import concurrent.futures
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from orchestrator import _launch
from orchestrator._child_process import NoSpawn
from orchestrator._link import EngineThread
from orchestrator._models import Event, Item, Job, Outcome, StateChange, Statistics, whole
from orchestrator._record import Record
from orchestrator._ring import Ring
from orchestrator._submission import Submission, Submitter
from orchestrator._supervisor import options_of
from orchestrator.exceptions import ConfigurationError, LaunchError, SupervisorClosed, WrongContext

__all__ = ("BlockingHandle", "BlockingItems", "BlockingOutcomes", "BlockingSupervisor")

Target = Callable[..., Any] | str

# Ctrl-C does not end a wait for a lock on Windows: there, waits are cut into pieces.
_PIECE = 0.2 if sys.platform == "win32" else None
_CALL_LOT = 100
_AHEAD = 128


class BlockingHandle:
    """A job that was accepted; made by `BlockingSupervisor.submit`, usable from any thread.

    Functions wrapped with `callback` are called on a thread that waits in `result`, `outcome` or `events`, one by one,
    all before that returns the end of the job.

    Attributes:
        id: Number of the job within its supervisor.
        key: The job's key.
        job: The job as it was submitted.
    """

    wants_events = True

    def __init__(self, supervisor: BlockingSupervisor, job: Job, news: threading.Condition | None = None) -> None:
        self.job = job
        self.key = job.key
        self.id = 0
        self._supervisor = supervisor
        self._news = threading.Condition() if news is None else news
        self._record: Record | None = None
        self._settled = False
        self._ring = Ring()
        self._calls: deque[tuple[int, list[Any], Mapping[str, Any]]] = deque()
        self._calling = False  # some thread makes a call: others wait, so that calls keep their order
        self._made = 0
        self._callback_error: BaseException | None = None
        self._observed = False
        self._reading = False

    def __repr__(self) -> str:
        return f"<BlockingHandle {self.id} {self.key or ''} {self.state}>".replace("  ", " ")

    def __del__(self) -> None:
        record = self._record
        if record is not None and self._settled and record.error is not None and not self._observed:
            self._supervisor._engine.logger.log("job.failed_unobserved", "error", job=record.id, error=str(record.error))

    # What the engine tells, on its thread (`Listener`)

    def settled(self, record: Record) -> None:
        """The engine's word that the job is over."""
        with self._news:
            self._settled = True
            self._notice()

    def event(self, record: Record, event: Event) -> None:
        """The engine's word that something happened."""
        with self._news:
            self._ring.push(event, read=record.read)
            self._notice()

    def called(self, record: Record, index: int, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        """The engine's word that the job called one of the caller's functions."""
        with self._news:
            if self._callback_error is not None or index >= len(record.payload.callbacks):
                return
            latest = record.payload.callbacks[index].latest
            if latest and self._calls and self._calls[-1][0] == index:
                self._calls[-1] = (index, args, kwargs)
            else:
                self._calls.append((index, args, kwargs))
            self._notice()

    def _notice(self) -> None:
        """Wake who waits; called with the condition held."""
        self._news.notify_all()

    # Waiting

    @property
    def _is_over(self) -> bool:
        return self._settled and not self._calls and not self._calling

    def _make_call(self) -> None:
        """Make one of the calls that the job asked for; called with the condition held, which it lets go meanwhile."""
        assert self._record is not None
        index, args, kwargs = self._calls.popleft()
        wrapped = self._record.payload.callbacks[index]
        self._calling = True
        self._news.release()
        try:
            wrapped.function(*args, **kwargs)
        except BaseException as error:
            self._callback_error = error
            self.cancel()
        finally:
            self._news.acquire()
            self._calling = False
            if self._callback_error is not None:
                self._calls.clear()
            self._news.notify_all()
        if not wrapped.latest:
            self._made += 1
            if self._made % _CALL_LOT == 0:
                self._supervisor._tell(self._credit_calls)

    def _credit_calls(self) -> None:
        if self._record is not None:
            self._supervisor._engine.jobs.credit(self._record, _CALL_LOT, calls=True)

    def _wait_until(self, reached: Callable[[], bool], timeout: float | None) -> bool:
        """Make calls and wait until something is so; returns whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._news:
            while not reached():
                if self._calls and not self._calling:
                    self._make_call()
                    continue
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._news.wait(left if _PIECE is None else _PIECE if left is None else min(left, _PIECE))
        return True

    def _end(self, timeout: float | None) -> Record:
        self._observed = True
        if not self._wait_until(lambda: self._is_over, timeout):
            raise TimeoutError(f"job {self.id} has no outcome after {timeout:g} s; it goes on")
        assert self._record is not None
        return self._record

    # For callers

    @property
    def state(self) -> str:
        """`queued`, `running`, `waiting` (for its next attempt), or how it ended."""
        record = self._record
        if record is None:
            return "queued"
        if record.status is not None:
            return str(record.status)
        return "running" if record.state == "cancelling" else record.state

    def cancel(self) -> None:
        """Cancel the job, wherever it is; its outcome follows, at most grace + 2 s later."""
        if self._record is not None and not self._settled:
            self._observed = True  # who cancels a job need not be told that it did not succeed
            self._supervisor._tell(self._supervisor._engine.jobs.cancel, self._record)

    def outcome(self, timeout: float | None = None) -> Outcome:
        """Wait for the outcome; a failed job raises nothing here.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            TimeoutError: If the job is not done by then; it goes on.
        """
        return self._end(timeout).outcome()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the job and return its value.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            TimeoutError: If the job is not done by then; it goes on.
            JobError: When the job did not succeed.
            BaseException: What a callback raised.
        """
        record = self._end(timeout)
        if self._callback_error is not None:
            raise self._callback_error
        if record.error is not None:
            raise record.error
        return record.value

    def result_or_cancel(self) -> Any:
        """Wait for the value; an exception that arrives meanwhile (Ctrl-C) cancels the job and waits for its end."""
        try:
            self._end(None)
        except BaseException:
            self.cancel()
            self._end(None)
            raise
        return self.result()

    def events(self) -> Iterator[Event]:
        """Iterate over what happens to the job: states, progress, logs, items, artefacts; ends with the job."""
        if not self._reading:
            self._reading = True
            if self._record is not None and not self._settled:
                self._supervisor._tell(self._supervisor._engine.jobs.read, self._record)
        return self._events()

    def _events(self) -> Iterator[Event]:
        while True:
            self._wait_until(lambda: bool(self._ring) or self._is_over, None)
            with self._news:
                if not self._ring:
                    return
                event, owes_credit = self._ring.pop()
            if owes_credit and not self._settled:
                self._supervisor._tell(self._supervisor._engine.jobs.credit, self._record, 1)
            if type(event) is StateChange and event.state not in ("queued", "running", "waiting"):
                self._observed = True
            yield event


class BlockingSupervisor:
    """`Supervisor` for sync code; takes the same options.

    Its engine runs on a daemon thread. Every method may be called from any thread. Use it in a `with` statement, or
    call `open` and `close`; one that is still open when the program ends is closed then, and cancels its jobs.
    """

    def __init__(self, workers: int | None = None, **options: Any) -> None:
        self._options = options_of(workers, options)
        self._submitter = Submitter(self._options)
        self._thread: EngineThread | None = None
        self._pid = 0
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "new" if self._thread is None else self._thread.engine.state
        return f"<BlockingSupervisor {self._options.name!r} {state} workers={self._options.workers}>"

    # Opening and closing

    def open(self) -> BlockingSupervisor:
        """Open the supervisor; returns itself.

        Raises:
            LaunchError: If no child can be started here; the message names the remedy.
            SelfSpawnError: If a child would run the program itself again.
        """
        with self._lock:
            if self._thread is not None or self._closed:
                raise SupervisorClosed(f"supervisor {self._options.name!r} was opened already; make a new one")
            _launch.check_host()
            thread = EngineThread(self._options)
            thread.start()
            try:
                thread.wait_opened()
            except NoSpawn as error:
                raise LaunchError(f"no event loop can start processes here: {error}") from error
            self._pid = os.getpid()
            self._thread = thread
            atexit.register(self._close_at_exit)
        return self

    def close(self) -> None:
        """Close the supervisor as leaving its `with` statement normally does."""
        self._close(cancel=self._options.on_exit == "cancel")

    def __enter__(self) -> BlockingSupervisor:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(cancel=kind is not None or self._options.on_exit == "cancel")

    def _close(self, *, cancel: bool) -> None:
        with self._lock:
            thread = self._thread
            if thread is None or self._closed:
                self._closed = True
                return
            if os.getpid() != self._pid:
                raise WrongContext("this process is a forked copy of the one that opened the supervisor")
            self._closed = True
        engine = thread.engine

        async def close() -> None:
            await engine.close(cancel=cancel)

        closing = thread.submit(close)
        try:
            _wait(closing)
        except BaseException:
            # Ctrl-C while jobs were being waited for: they end now, and nothing stays behind.
            thread.call(engine.hurry)
            _wait(closing)
            raise
        finally:
            thread.finish()
            atexit.unregister(self._close_at_exit)

    def _close_at_exit(self) -> None:
        if os.getpid() == self._pid:
            self._close(cancel=True)

    def __del__(self) -> None:
        # The registration at exit keeps an open one alive; what gets here was never opened, or was closed.
        if self._thread is not None and not self._closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)

    # Reaching the engine

    @property
    def _engine(self) -> Any:
        assert self._thread is not None
        return self._thread.engine

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        assert self._thread is not None
        try:
            self._thread.call(function, *args)
        except SupervisorClosed:
            return  # it settled every job when it closed

    def _check_open(self) -> EngineThread:
        thread = self._thread
        if thread is None or self._closed:
            state = "is closed" if self._closed else "is not open; use `with`, or call open() first"
            raise SupervisorClosed(f"supervisor {self._options.name!r} {state}")
        if os.getpid() != self._pid:
            raise WrongContext("this process is a forked copy of the one that opened the supervisor; open one here")
        if threading.get_ident() == thread.ident:
            raise WrongContext("called on the supervisor's own thread, which would wait for itself")
        thread.engine.check_open()
        return thread

    # Jobs

    def run(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> Any:
        """Run a target in a child and return what it returns; see `Supervisor.run`.

        Callbacks are called on this thread. Ctrl-C (or any exception that arrives here) cancels the job, and is raised
        when that has ended.
        """
        handle = self._submit(self._submitter.make(target, args, kwargs))
        return handle.result_or_cancel()

    def submit(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> BlockingHandle:
        """Hand a job over and return its handle; waits while `queue_size` jobs are waiting."""
        return self._submit(self._submitter.make(target, args, kwargs))

    def _submit(
        self, submission: Submission, handle: BlockingHandle | None = None, *, read: bool = False, place: Any = (None, None)
    ) -> BlockingHandle:
        thread = self._check_open()
        payload = submission.encode()
        while not thread.engine.has_space:
            _wait(thread.submit(thread.engine.wait_for_space))
        handle = handle or BlockingHandle(self, submission.public_job())
        record = self._submitter.record(submission, payload, handle)
        record.index, record.item = place
        if read:
            record.read, record.gather = True, False
            handle._reading = True
        handle._record = record
        handle.id = record.id
        thread.call(thread.engine.accept, record)
        return handle

    def map(self, target: Target | Job | Iterable[Job], items: Any = None, *, ordered: bool = False) -> BlockingOutcomes:
        """Run a target for each item, or each of many jobs; an iterator of outcomes. See `Supervisor.map`."""
        self._check_open()
        if isinstance(target, Job | str) or callable(target):
            if items is None:
                raise ConfigurationError("items", "are missing; map takes a target and items, or an iterable of jobs")
            template = target if isinstance(target, Job) else Job(target)
            if template.args:
                raise ConfigurationError("target.args", "must be empty: each item is the one positional argument")
            return BlockingOutcomes(self, template, items, ordered=ordered)
        if items is not None:
            raise ConfigurationError("target", f"must be a function, a name or a Job, not {type(target).__name__}")
        return BlockingOutcomes(self, None, target, ordered=ordered)

    def stream(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> BlockingItems:
        """Run a generator target; an iterator of what it yields. See `Supervisor.stream`."""
        return BlockingItems(self._submit(self._submitter.make(target, args, kwargs), read=True))

    # The supervisor itself

    def statistics(self) -> Statistics:
        """Return a snapshot of jobs, workers and limits."""
        if self._thread is None:
            raise SupervisorClosed(f"supervisor {self._options.name!r} is not open")
        engine = self._thread.engine
        if self._closed:
            return engine.statistics()

        async def look() -> Statistics:
            return engine.statistics()

        found: Statistics = _wait(self._thread.submit(look))
        return found

    def scale(self, workers: int) -> None:
        """Change how many workers there are; those that are too many finish their jobs first."""
        thread = self._check_open()
        thread.call(thread.engine.scale, whole(workers, "workers", minimum=1))

    def drain(self) -> None:
        """Take no more jobs, and return when every accepted one has its outcome."""
        thread = self._check_open()
        _wait(thread.submit(thread.engine.drain))


class _Entry(BlockingHandle):
    """One job of a map, which shares the map's condition."""

    def __init__(self, outcomes: BlockingOutcomes, job: Job, index: int) -> None:
        super().__init__(outcomes._supervisor, job, outcomes._news)
        self.wants_events = False  # type: ignore[misc]
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
        self._ahead = _AHEAD * supervisor._options.workers * supervisor._options.concurrency
        self._news = threading.Condition()
        self._attention: deque[_Entry] = deque()
        self._pending: dict[int, _Entry] = {}
        self._early: dict[int, _Entry] = {}
        self._index = self._turn = 0
        self._problem: BaseException | None = None
        self._closed = False

    def __enter__(self) -> BlockingOutcomes:
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
            return Job(**{name: getattr(template, name) for name in Job.__dataclass_fields__ if name != "args"}, args=(item,))
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
                self._news.wait(_PIECE)
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

    def __enter__(self) -> BlockingItems:
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


def _wait(future: Any) -> Any:
    """Wait for a `concurrent.futures.Future`, open to Ctrl-C."""
    while True:
        done, _ = concurrent.futures.wait([future], timeout=_PIECE)
        if done:
            return future.result()

