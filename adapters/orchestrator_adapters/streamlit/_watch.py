"""One job as pages see it: a thread reads what happens to it, script threads draw it and make its calls."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from orchestrator import Job, Outcome, callback
from orchestrator_adapters.streamlit._bar import Place, bar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator import BlockingSupervisor
    from orchestrator.blocking import BlockingHandle
    from orchestrator.exceptions import OrchestratorError

# More than a page shows, so that what led to an error is there.
_LOG_LINES = 200
# Calls that wait for a page. Then the job waits too, unless no page has taken one for a while: a closed tab must not
# stop a job.
_MOST_CALLS = 1_000
_ABANDONED = 10.0
# What live pictures of a browser are called.
LIVE = "live.jpg"


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """A job at one moment.

    Attributes:
        version: Grows whenever something is different.
        state: `queued`, `running`, `waiting`, or how it ended.
        place: How far it is.
        lines: The last of what it logged and printed.
        dropped: Lines that were dropped because there were too many.
        picture: Path of the live picture.
        pictures: How often that has changed.
        seconds: Since it was submitted, or what it took.
        outcome: Once it is over.
    """

    version: int
    state: str
    attempt: int
    place: Place | None
    lines: tuple[str, ...]
    dropped: int
    picture: str | None
    pictures: int
    seconds: float
    outcome: Outcome | None


class Watch:
    """Follows one job until its end, whoever looks; usable from any thread."""

    def __init__(self, identity: str, label: str) -> None:
        self.identity = identity
        self.label = label
        self._news = threading.Condition()  # guards all that follows
        self._handle: BlockingHandle | None = None
        self._functions: dict[int, Callable[..., Any]] = {}
        self._calls: deque[tuple[int, list[Any], dict[str, Any], bool]] = deque()
        self._taken = time.monotonic()
        self._version = 0
        self._state, self._attempt = "queued", 0
        self._place: Place | None = None
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._dropped = 0
        self._picture: str | None = None
        self._pictures = 0
        self._began = time.monotonic()
        self._ended: float | None = None
        self._outcome: Outcome | None = None
        self._cancelled = False

    # Starting

    def start(self, supervisor: BlockingSupervisor, job: Job) -> None:
        """Submit the job, and follow it.

        Raises:
            OrchestratorError: If it is refused.
        """
        handle = supervisor.submit(self._wired(job))
        with self._news:
            self._handle = handle
            cancelled = self._cancelled
        if cancelled:
            handle.cancel()  # by another session, meanwhile
        threading.Thread(target=self._follow, args=(handle,), name=f"job {handle.id} watched", daemon=True).start()

    def refuse(self, error: OrchestratorError) -> None:
        """Note that no job came of it."""
        status = cast("Any", "failed")  # the enumeration is not public; its members are strings
        self._finish(Outcome(status=status, error=error, job_id=0))

    def _wired(self, job: Job) -> Job:
        """Return the job with stand-ins for its callbacks: each run of a page brings its own."""
        args = [self._stand_in(value, slot) for slot, value in enumerate(job.args)]
        kwargs = {
            name: self._stand_in(value, slot)
            for slot, (name, value) in enumerate(sorted(job.kwargs.items()), len(job.args))
        }
        return dataclasses.replace(job, args=args, kwargs=kwargs)

    def _stand_in(self, value: Any, slot: int) -> Any:
        if isinstance(value, bar):
            return callback(lambda *args, **kwargs: self._move(value, list(args), kwargs), latest=True)
        if not isinstance(value, callback):
            return value
        self._functions[slot] = value.function
        latest = value.latest
        return callback(lambda *args, **kwargs: self._keep(slot, list(args), kwargs, latest), latest=latest)

    def attach(self, job: Job) -> None:
        """Let the calls of the job go to the functions of this run of the page from now on."""
        values = [*job.args, *(value for _, value in sorted(job.kwargs.items()))]
        with self._news:
            self._taken = time.monotonic()
            for slot, value in enumerate(values):
                if slot in self._functions and isinstance(value, callback):
                    self._functions[slot] = value.function

    # On the thread that follows

    def _follow(self, handle: BlockingHandle) -> None:
        try:
            for event in handle.events():
                with self._news:
                    self._hear(event)
                    self._change()
        finally:
            self._finish(handle.outcome())

    def _hear(self, event: Any) -> None:
        if event.kind == "progress":
            self._place = Place(event.done, event.total, event.text)
        elif event.kind == "log":
            self._dropped += event.dropped
            self._lines.extend(event.text.splitlines()[-_LOG_LINES:])
        elif event.kind == "artifact" and event.name.rpartition("/")[2] == LIVE:
            self._picture = event.path
            self._pictures += 1
        elif event.kind == "state":
            self._state, self._attempt = event.state, event.attempt

    def _move(self, reader: bar, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        problem, place = None, None
        try:
            place = reader.place(args, kwargs)
        except Exception as error:  # no reason to end a job that publishes
            problem = f"what reads the bar raised {type(error).__name__}: {error}"
        with self._news:
            if problem is not None and problem not in self._lines:
                self._lines.append(problem)
            self._place = place or self._place
            self._change()

    def _keep(self, slot: int, args: list[Any], kwargs: dict[str, Any], latest: bool) -> None:
        """Keep a call until a page's thread makes it."""
        with self._news:
            if latest and self._calls and self._calls[-1][0] == slot:
                self._calls.pop()
            while len(self._calls) >= _MOST_CALLS and not self._cancelled:
                if time.monotonic() - self._taken >= _ABANDONED:
                    self._calls.popleft()
                else:
                    self._news.wait(1.0)
            if not self._cancelled:
                self._calls.append((slot, args, kwargs, latest))
            self._change()

    def _finish(self, outcome: Outcome) -> None:
        with self._news:
            self._outcome = outcome
            self._state = str(outcome.status)
            self._ended = time.monotonic()
            self._change()

    def _change(self) -> None:
        self._version += 1
        self._news.notify_all()

    # For pages

    @property
    def is_over(self) -> bool:
        """Whether the job has its outcome."""
        return self._outcome is not None

    def cancel(self) -> None:
        """Cancel the job; its outcome follows. Calls that wait are not made any more."""
        with self._news:
            self._cancelled = True
            self._calls.clear()
            self._change()
            handle = self._handle
        if handle is not None:
            handle.cancel()

    def make_calls(self) -> None:
        """Make the calls that wait, on this thread.

        Raises:
            BaseException: What the function raised. An exception of its own ends the job; after what is none, such as
                Streamlit's word that the page runs anew, the call is made again by the next run.
        """
        while True:
            with self._news:
                self._taken = time.monotonic()
                if not self._calls:
                    return
                call = self._calls.popleft()
                function = self._functions[call[0]]
                self._news.notify_all()
            try:
                function(*call[1], **call[2])
            except Exception:
                self.cancel()
                raise
            except BaseException:
                with self._news:
                    if not self._cancelled:
                        self._calls.appendleft(call)
                raise

    def wait(self, version: int, timeout: float, *, at_least: float = 0.0) -> Snapshot:
        """Wait until something is different from that version, or the time is up; returns what there is."""
        deadline = time.monotonic() + at_least
        with self._news:
            self._news.wait_for(lambda: self._version != version, timeout)
            # What comes now can be drawn together with that; only the end does not wait.
            self._news.wait_for(lambda: self._outcome is not None, max(0.0, deadline - time.monotonic()))
            return self._snapshot()

    def snapshot(self) -> Snapshot:
        """Return what there is."""
        with self._news:
            return self._snapshot()

    def _snapshot(self) -> Snapshot:
        now = time.monotonic() if self._ended is None else self._ended
        return Snapshot(
            version=self._version,
            state="cancelling" if self._cancelled and self._outcome is None else self._state,
            attempt=self._attempt,
            place=self._place,
            lines=tuple(self._lines),
            dropped=self._dropped,
            picture=self._picture,
            pictures=self._pictures,
            seconds=now - self._began,
            # Calls that wait come before the end, as everywhere.
            outcome=None if self._calls else self._outcome,
        )
