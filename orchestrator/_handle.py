"""What callers hold of a job: its outcome, its events, its cancel."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from typing import TYPE_CHECKING, Any

from orchestrator._calls import LOT, Calls
from orchestrator._events import Event, StateChange
from orchestrator._persist import outlast
from orchestrator._ring import Ring
from orchestrator.exceptions import SupervisorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator._link import Link
    from orchestrator._models import Job, Outcome
    from orchestrator._record import Record
    from orchestrator._submission import Submission


class Receipt:
    """Waits for one job on the caller's loop, and makes the calls that the job asks for.

    Calls are made one by one from the loop, in a copy of the caller's context, all before anybody sees the outcome.
    """

    wants_events = False

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._waiters: list[asyncio.Future[None]] = []
        self._calls = Calls()
        self._context: contextvars.Context | None = None
        self.record: Record | None = None
        self.callback_error: BaseException | None = None
        self._is_settled = False  # the record may say so earlier, on another thread, when calls are still to come
        self.done = False

    # What the engine tells (`Listener`)

    def settled(self, record: Record) -> None:
        self.record = record
        self._is_settled = True
        if not self._calls:
            self._finish()

    def event(self, record: Record, event: Event, *, owed: bool = False) -> None:
        """Nobody reads events of a job that is only waited for."""

    def called(self, record: Record, index: int, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        before = len(self._calls)
        self._calls.add(record, index, args, kwargs)
        if not before and self._calls:
            if self._context is None:
                self._context = contextvars.copy_context()
            self._loop.call_soon(self._make_calls, record, context=self._context)

    def hold_context(self) -> None:
        """Remember the caller's context for the calls."""
        self._context = contextvars.copy_context()

    def _make_calls(self, record: Record) -> None:
        """Make one call, then let the loop do other things."""
        call = self._calls.take()
        wrapped, args, kwargs = call
        try:
            wrapped.function(*args, **kwargs)
        except BaseException as error:
            self.callback_error = error
            self._calls.refuse()
            self._tell_engine(self._link.engine.jobs.cancel, record)
            if not isinstance(error, Exception):
                raise
        finally:
            if self._calls.made(call):
                self._tell_engine(self._credit_calls, record)
            if self._calls:
                self._loop.call_soon(self._make_calls, record, context=self._context)
            elif self._is_settled and not self.done:
                self._finish()

    def _credit_calls(self, record: Record) -> None:
        self._link.engine.talk.credit(record, LOT, calls=True)

    def _tell_engine(self, function: Any, *args: Any) -> None:
        try:
            self._link.call(function, *args)
        except SupervisorClosed:
            return  # it settled the job when it closed

    def _finish(self) -> None:
        self.done = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    # For callers

    async def wait(self) -> None:
        """Wait until the job is settled; cancelling this only stops the wait."""
        while not self.done:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    async def wait_or_cancel(self, record: Record) -> None:
        """Wait until the job is settled; cancelling this cancels the job first, and then waits for its end."""
        try:
            await self.wait()
        except asyncio.CancelledError:
            self._tell_engine(self._link.engine.jobs.cancel, record)
            if not self.done:
                over = self._loop.create_future()
                self._waiters.append(over)
                await outlast(over)
            raise

    def cancel_job(self, record: Record) -> None:
        """Cancel the job, wherever it is."""
        self._tell_engine(self._link.engine.jobs.cancel, record)

    def value(self) -> Any:
        """Return the value of a settled job, or raise its error."""
        assert self.record is not None
        if self.callback_error is not None:
            raise self.callback_error
        if self.record.error is not None:
            raise self.record.error
        return self.record.value


class JobHandle(Receipt):
    """A job that was accepted by `Supervisor.submit`.

    Attributes:
        key: The job's key.
    """

    wants_events = True

    def __init__(self, link: Link, submission: Submission) -> None:
        super().__init__(link)
        self.key = submission.job.key
        self._submission = submission
        self._ring = Ring()
        self._readers = 0
        self._observed = False
        self._news: asyncio.Event | None = None
        self._told: list[tuple[Callable[[Outcome], object], contextvars.Context]] = []

    def __repr__(self) -> str:
        return f"<JobHandle {self.id} {self.key or ''} {self.state}>".replace("  ", " ")

    def __del__(self) -> None:
        problem = None if self.record is None else self.record.problem(self.callback_error)
        if problem is not None and not self._observed:
            self._link.engine.logger.log("job.failed_unobserved", "error", job=self.id, error=str(problem))

    @property
    def id(self) -> int:
        """Number of the job within its supervisor, or its journal."""
        return 0 if self.record is None else self.record.number

    @property
    def job(self) -> Job:
        """The job as it was submitted."""
        return self._submission.public_job()

    def _attach(self, record: Record) -> None:
        self.record = record

    @property
    def state(self) -> str:
        """`queued`, `running`, `waiting` (for its next attempt), or how it ended."""
        return "queued" if self.record is None else self.record.public_state

    def cancel(self) -> None:
        """Cancel the job, wherever it is; its outcome follows, at most grace + 2 s later."""
        if self.record is not None and not self.done:
            self._observed = True  # who cancels a job need not be told that it did not succeed
            self._tell_engine(self._link.engine.jobs.cancel, self.record)

    async def outcome(self) -> Outcome:
        """Wait for the outcome; a failed job raises nothing here. Cancelling this only stops the wait."""
        self._observed = True
        await self.wait()
        assert self.record is not None
        return self.record.outcome()

    async def result(self) -> Any:
        """Wait for the job and return its value.

        Raises:
            JobError: When the job did not succeed.
            Exception: What a callback raised.
        """
        self._observed = True
        await self.wait()
        return self.value()

    def when_done(self, function: Callable[[Outcome], object]) -> None:
        """Have `function(outcome)` called on this loop when the job is over, after all calls that the job made.

        It is called once, soon and not at once, in a copy of the present context; what it raises goes to the loop's
        exception handler.

        Raises:
            TypeError: If it is no function, or an async one, which nobody would await.
        """
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise TypeError(f"when_done takes a sync function that gets the outcome, not {function!r:.100}")
        self._observed = True
        self._told.append((function, contextvars.copy_context()))
        if self.done:
            self._tell_outcome()

    def _tell_outcome(self) -> None:
        assert self.record is not None
        outcome = self.record.outcome()
        for function, context in self._told:
            # Not the function itself: in debug mode the loop looks at what it gets, and may raise here, in the engine.
            self._loop.call_soon(_call, function, outcome, context=context)
        self._told.clear()

    def events(self) -> Events:
        """Return an async iterator of what happens to the job: states, progress, logs, items, artefacts.

        It ends after the state that is the job's outcome, with what a callback raised if one did. Events that came
        before the first call are there too, as far as the last 1,000 reach. A job has one reader: two would share its
        events between them. While somebody reads, the items of a job are at most 16 ahead of them; a reader who leaves
        early (by `break`, or by `aclose` of what this returns) leaves the job to go on alone.
        """
        self._readers += 1
        if self._readers == 1 and self.record is not None and not self.done:
            self._tell_engine(self._link.engine.talk.read, self.record)
        return Events(self)

    def _stop_reading(self) -> None:
        self._readers -= 1
        if not self._readers and self.record is not None and not self.done:
            self._tell_engine(self._link.engine.talk.stop_reading, self.record, self._ring.write_off())

    # What the engine tells

    def event(self, record: Record, event: Event, *, owed: bool = False) -> None:
        if owed and not self._readers:
            # It was on its way between two loops when the last reader left.
            self._tell_engine(self._link.engine.talk.credit, record, 1)
            owed = False
        self._ring.push(event, owed=owed)
        if self._news is not None:
            self._news.set()

    def _finish(self) -> None:
        super()._finish()
        if self._told:
            self._tell_outcome()
        if self._news is not None:
            self._news.set()

    async def _next_event(self) -> Event:
        while not self._ring:
            if self.done:
                if isinstance(self.callback_error, Exception):
                    raise self.callback_error
                raise StopAsyncIteration
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()
        event, owes_credit = self._ring.pop()
        if owes_credit and self.record is not None and not self.done:
            self._tell_engine(self._link.engine.talk.credit, self.record, 1)
        if type(event) is StateChange and event.state not in ("queued", "running", "waiting"):
            self._observed = True
        return event


def _call(function: Callable[[Outcome], object], outcome: Outcome) -> None:
    function(outcome)


class Events:
    """An async iterator of one job's events; leaving it early leaves the job alone."""

    def __init__(self, handle: JobHandle) -> None:
        self._handle = handle
        self._closed = False

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        if self._closed:
            raise StopAsyncIteration
        return await self._handle._next_event()

    async def aclose(self) -> None:
        """Read no more; the job goes on, and its items wait for nobody."""
        if not self._closed:
            self._closed = True
            self._handle._stop_reading()

    def __del__(self) -> None:
        # Items wait for their reader; without one the job must not wait for ever. What is collected may be collected
        # on any thread, and in the midst of anything.
        if not self._closed and not self._handle.done:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._handle._loop.call_soon_threadsafe(self._handle._stop_reading)
