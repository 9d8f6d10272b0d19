"""What sync callers hold of a job: its outcome, its events, its cancel."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from orchestrator._calls import LOT, Calls
from orchestrator._events import Event, StateChange
from orchestrator._link import PIECE
from orchestrator._models import Job, Outcome, Seconds, seconds
from orchestrator._ring import Ring
from orchestrator.exceptions import SupervisorClosed, WrongContext

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator._link import EngineThread
    from orchestrator._record import Record


class News:
    """A condition; `with` takes its bare lock, for Ctrl-C within a condition's own code could leave that locked."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        condition = threading.Condition(self.lock)
        self.wait, self.notify_all = condition.wait, condition.notify_all


class BlockingHandle:
    """A job that was accepted; made by `BlockingSupervisor.submit`, usable from any thread.

    Functions wrapped with `callback` are called on a thread that waits in `result`, `outcome` or `events`, one by one,
    all before that returns the end of the job. What else than an `Exception` they raise there (Ctrl-C, the rerun of a
    Streamlit page) cancels the job and passes through that thread at once.

    Attributes:
        key: The job's key.
        job: The job as it was submitted.
    """

    wants_events = True

    def __init__(self, thread: EngineThread, job: Job, news: News | None = None) -> None:
        self.job = job
        self.key = job.key
        self._thread = thread
        self._record: Record | None = None
        self._news = News() if news is None else news  # guards all that follows
        self._settled = False
        self._ring = Ring()
        self._calls = Calls()
        self._caller: int | None = None  # the thread that makes a call: others wait, so that calls keep their order
        self._callback_error: Exception | None = None
        self._observed = False
        self._readers = 0  # counted on the engine's thread

    @property
    def id(self) -> int:
        """Number of the job within its supervisor, or its journal."""
        return 0 if self._record is None else self._record.number

    def __repr__(self) -> str:
        return f"<BlockingHandle {self.id} {self.key or ''} {self.state}>".replace("  ", " ")

    def __del__(self) -> None:
        problem = None if self._record is None else self._record.problem(self._callback_error)
        if problem is not None and not self._observed:
            self._thread.engine.logger.log("job.failed_unobserved", "error", job=self.id, error=str(problem))

    # On the engine's thread

    def settled(self, record: Record) -> None:
        """The engine's word that the job is over."""
        with self._news.lock:
            self._settled = True
            self._notice()

    def event(self, record: Record, event: Event, *, owed: bool = False) -> None:
        """The engine's word that something happened."""
        with self._news.lock:
            self._ring.push(event, owed=owed)
            self._notice()

    def called(self, record: Record, index: int, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        """The engine's word that the job called one of the caller's functions."""
        with self._news.lock:
            self._calls.add(record, index, args, kwargs)
            self._notice()

    def _notice(self) -> None:
        """Wake who waits; called with the condition held."""
        self._news.notify_all()

    def _end_job(self) -> None:
        jobs = self._thread.engine.jobs
        if self._record is not None and jobs.holds(self._record):
            jobs.cancel(self._record)
        elif not self._settled:  # its caller was interrupted before it could hand it over
            with self._news.lock:
                self._settled = True
                self._notice()

    def _start_reading(self) -> None:
        self._readers += 1
        if self._record is not None and not self._settled:
            self._thread.engine.talk.read(self._record)

    def _stop_reading(self) -> None:
        self._readers -= 1
        record = self._record
        if record is not None and not self._settled and not self._readers:
            with self._news.lock:
                owed = self._ring.write_off()
            self._thread.engine.talk.stop_reading(record, owed)

    def _credit(self, count: int, calls: bool) -> None:
        if self._record is not None:
            self._thread.engine.talk.credit(self._record, count, calls=calls)

    # Waiting

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function run on the engine's thread; once that is over there is nothing to tell."""
        try:
            self._thread.call(function, *args)
        except (SupervisorClosed, WrongContext):
            return

    @property
    def _is_over(self) -> bool:
        return self._settled and not self._calls and self._caller is None

    @property
    def _can_call(self) -> bool:
        return self._caller is None and len(self._calls) > 0

    def _check_waiter(self) -> None:
        """Raise WrongContext where a wait for this job would never end."""
        self._thread.check_caller()
        if self._caller == threading.get_ident():
            raise WrongContext("called by a function that the job itself called: the job's end comes after that")

    def _wait_until(self, reached: Callable[[], bool], timeout: float | None = None) -> bool:
        """Make calls and wait until something is so; returns whether it is."""
        self._check_waiter()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            with self._news.lock:
                while not reached() and not self._can_call:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return False
                    self._news.wait(min(left, PIECE))
                if reached():
                    return True
            self._make_call()

    def _make_call(self) -> None:
        """Make the first call that waits, unless another thread is making one.

        Raises:
            BaseException: What is not an `Exception`; it belongs to this thread, not to the job.
        """
        if not self._can_call:
            return
        try:
            with self._news.lock:
                if not self._can_call:
                    return
                self._caller = threading.get_ident()
                call = self._calls.take()
            wrapped, args, kwargs = call
            wrapped.function(*args, **kwargs)
            if self._calls.made(call):
                self._tell(self._credit, LOT, True)
        except BaseException as error:
            with self._news.lock:
                self._calls.refuse()
            if isinstance(error, Exception):
                self._callback_error = error
            self.cancel()
            if not isinstance(error, Exception):
                raise
        finally:
            with self._news.lock:
                if self._caller == threading.get_ident():
                    self._caller = None
                self._news.notify_all()

    def _wait_end(self, timeout: Seconds | None = None) -> Record:
        if not self._wait_until(lambda: self._is_over, seconds(timeout, "timeout", exclusive=False)):
            raise TimeoutError(f"job {self.id} has no outcome after {timeout} s; it goes on")
        assert self._record is not None
        self._observed = True
        return self._record

    def _cancel_and_wait(self) -> None:
        """End the job, if it was handed over, for a caller who is leaving, and who wants no more of its calls."""
        if self._record is None:
            return
        with self._news.lock:
            self._calls.refuse()
        self.cancel()
        self._wait_until(lambda: self._settled)

    # For callers

    @property
    def state(self) -> str:
        """`queued`, `running`, `waiting` (for its next attempt), or how it ended."""
        return "queued" if self._record is None else self._record.public_state

    def cancel(self) -> None:
        """Cancel the job, wherever it is; its outcome follows, at most grace + 2 s later."""
        if self._settled:
            return
        self._observed = True  # who cancels a job need not be told that it did not succeed
        try:
            self._thread.call(self._end_job)
        except SupervisorClosed:
            self._end_job()

    def outcome(self, timeout: Seconds | None = None) -> Outcome:
        """Wait for the outcome; a failed job raises nothing here.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            TimeoutError: If the job is not done by then; it goes on.
        """
        return self._wait_end(timeout).outcome()

    def result(self, timeout: Seconds | None = None) -> Any:
        """Wait for the job and return its value.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            TimeoutError: If the job is not done by then; it goes on.
            JobError: When the job did not succeed.
            Exception: What a callback raised.
        """
        record = self._wait_end(timeout)
        if self._callback_error is not None:
            raise self._callback_error
        if record.error is not None:
            raise record.error
        return record.value

    def events(self) -> BlockingEvents:
        """Iterate over what happens to the job: states, progress, logs, items, artefacts; ends with the job.

        What a callback raised is raised after the last event.
        Events that came before the first call are there too, as far as the last 1,000 reach. A job has one reader: two
        would share its events between them.
        """
        return BlockingEvents(self)

    def _next_event(self) -> Event | None:
        """Return the next event, or None after the last one."""
        self._check_waiter()
        self._make_call()  # one for each event, so that neither waits for the end of the other
        while True:
            self._wait_until(lambda: bool(self._ring) or self._is_over)
            with self._news.lock:
                if self._ring:
                    event, owes_credit = self._ring.pop()
                    break
                if self._is_over:
                    if self._callback_error is not None:
                        raise self._callback_error
                    return None
        if owes_credit:
            self._tell(self._credit, 1, False)
        if type(event) is StateChange and event.state not in ("queued", "running", "waiting"):
            self._observed = True
        return event


class BlockingEvents:
    """An iterator of one job's events; leaving it early leaves the job alone."""

    def __init__(self, handle: BlockingHandle) -> None:
        self._handle = handle
        handle._tell(handle._start_reading)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self._handle._next_event()
        if event is None:
            raise StopIteration
        return event

    def __del__(self) -> None:
        # Items wait for their reader; without one the job must not wait for ever.
        if not self._handle._settled:
            self._handle._tell(self._handle._stop_reading)
