"""What sync callers hold of a job: its outcome, its events, its cancel."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from orchestrator._models import Event, Job, Outcome, StateChange
from orchestrator._ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator._record import Record
    from orchestrator.blocking import BlockingSupervisor

# Ctrl-C does not end a wait for a lock on Windows: there, waits are cut into pieces.
PIECE = 0.2 if sys.platform == "win32" else None
# Callbacks may be a thousand calls ahead; credits for them travel in lots.
_CALL_LOT = 100


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
            self._supervisor._engine.logger.log(
                "job.failed_unobserved", "error", job=record.id, error=str(record.error)
            )

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
            self._supervisor._engine.talk.credit(self._record, _CALL_LOT, calls=True)

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
                self._news.wait(left if PIECE is None else PIECE if left is None else min(left, PIECE))
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
                self._supervisor._tell(self._supervisor._engine.talk.read, self._record)
        return self._events()

    def _events(self) -> Iterator[Event]:
        while True:
            self._wait_until(lambda: bool(self._ring) or self._is_over, None)
            with self._news:
                if not self._ring:
                    return
                event, owes_credit = self._ring.pop()
            if owes_credit and not self._settled:
                self._supervisor._tell(self._supervisor._engine.talk.credit, self._record, 1)
            if type(event) is StateChange and event.state not in ("queued", "running", "waiting"):
                self._observed = True
            yield event
