"""One execution of a job in a child: its lease, its time bounds, and the ladder that ends it early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from orchestrator import _killset, _liveness

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from orchestrator._frames import Made
    from orchestrator._grant import Grant
    from orchestrator._guarded_loop import GuardedLoop
    from orchestrator._record import Record
    from orchestrator._ticket import Ticket
    from orchestrator._worker import Worker

# Why an attempt is ended before it answers: somebody cancelled the job, or one of its bounds ran out.
Why = Literal["cancelled", "timed_out", "silent", "expired"]

# For reading what the child said while something here held up the loop, and what it could not say as its pipe was full;
# its time is up if that is no answer. On a busy machine a child that has to write the rest needs some tenths.
_READ_TIME = 0.5
# The stack dump is written by a signal handler within microseconds; this is for a machine that is very busy.
_DUMP_TIME = 0.1


class Attempt:
    """A lease: the child's right to run this attempt, until it answers or is known to be dead.

    Attributes:
        fence: Growing number; frames with another one are not for this attempt.
        begun: It is known, or in order of things, to be running.
        why: Set once it is to end early.
        bound: The time bound that ran out, in seconds.
        stack: Where it was when its time ran out.
        permits: What the job asked for with `child.permit`, by request number.
        made: The files and folders that the job named, by path; None when it named none.
        at_end: Called when it is to end early, and when it is over, if anybody has to know.
    """

    __slots__ = (
        "_progress_timer",
        "_timer",
        "at_end",
        "begun",
        "begun_at",
        "bound",
        "fence",
        "loop",
        "made",
        "moment",
        "permits",
        "record",
        "stack",
        "tickets",
        "why",
        "worker",
    )

    def __init__(self, fence: int, record: Record, worker: Worker, loop: GuardedLoop) -> None:
        self.fence = fence
        self.record = record
        self.worker = worker
        self.loop = loop
        self.begun = False
        self.begun_at = 0.0
        self.moment = 0.0
        self.why: Why | None = None
        self.bound = 0.0
        self.stack = ""
        self.permits: dict[int, Grant] | None = None
        self.tickets: dict[int, Ticket] | None = None
        self.made: dict[str, Made] | None = None
        self.at_end: Callable[[Attempt], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._progress_timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Note that it runs now, and start its clocks."""
        self.begun = True
        self.begun_at = self.loop.time()
        self.moment = _killset.now()
        job = self.record.job
        if self.why is None:
            if job.timeout is not None:
                self._timer = self._bound("timed_out", job.timeout)  # type: ignore[arg-type]
            self.heard()

    def heard(self) -> None:
        """Start the clock of its silence anew."""
        bound = self.record.job.progress_timeout
        if bound is not None and self.why is None:
            if self._progress_timer is not None:
                self._progress_timer.cancel()
            self._progress_timer = self._bound("silent", bound)  # type: ignore[arg-type]

    def _bound(self, why: Why, bound: float) -> asyncio.TimerHandle:
        due = self.loop.time() + bound
        return self.loop.call_at(due, self._run_out, why, bound, due)

    def _run_out(self, why: Why, bound: float, due: float) -> None:
        """End it, unless we are late ourselves: then what it said meanwhile may be unread.

        Its `timeout` counts on while our loop stalls, for the job runs on; its silence says nothing of a time in which
        nobody listened.
        """
        late = self.loop.time() - due
        if why == "silent" and _liveness.is_stall(late):
            self.heard()
        elif _liveness.is_late(late):
            timer = self.loop.call_later(_READ_TIME, self._run_out, why, bound, float("inf"))  # once
            if why == "silent":
                self._progress_timer = timer
            else:
                self._timer = timer
        else:
            self.record.step("timed_out")
            self.end_early(why, bound)

    def end_early(self, why: Why, bound: float = 0.0) -> None:
        """Ask the child to end it; after the grace time kill the child."""
        if self.why is not None:
            return
        self.why = why
        self.bound = bound
        self._disarm()
        cancelled = why == "cancelled"
        frame = {"type": "cancel", "fence": self.fence, "stack": not cancelled}
        self.worker.send({**frame, "why": "cancel" if cancelled else "timeout"})
        self._timer = self.loop.call_later(self.worker.grace, self._lose_patience)
        if self.at_end is not None:
            self.at_end(self)

    def _lose_patience(self) -> None:
        if not self.begun:
            # It waits in the child behind another job, which must not die for it: the answer is still to come.
            self._timer = self.loop.call_later(max(self.worker.grace, _DUMP_TIME), self._lose_patience)
        elif self.why == "cancelled":
            self._kill()
        else:
            self.worker.dump_stack()
            self._timer = self.loop.call_later(_DUMP_TIME, self._kill)

    def _kill(self) -> None:
        # Of an async job the task's own stack is known from the cancel, and of a sync one in a browser the greenlet's:
        # the dump only shows their event loop.
        if not (self.stack and self.worker.flavour != "plain"):
            self.stack = self.worker.read_stack() or self.stack
        self.worker.kill("cancelled" if self.why == "cancelled" else "timeout")

    def over(self) -> None:
        """Stop the clocks and give back the permits: it answered, or its child is dead."""
        self._disarm()
        for ticket in (self.tickets or {}).values():
            ticket.cancel()
        for permit in (self.permits or {}).values():
            permit.release()
        self.tickets = self.permits = None
        at_end, self.at_end = self.at_end, None
        if at_end is not None:
            at_end(self)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._progress_timer is not None:
            self._progress_timer.cancel()
            self._progress_timer = None
