"""The attempts that one child holds: sent ahead when they are quick, taken back when the first one turns out slow."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from orchestrator import _wire

if TYPE_CHECKING:
    import asyncio

    from orchestrator._attempt import Attempt
    from orchestrator._child_process import Child
    from orchestrator._inline import InlineChild
    from orchestrator._models import Seconds
    from orchestrator._record import Record
    from orchestrator._worker import Worker

# Where the stack of a hanging child can be asked for by a signal.
_HAS_SIGNALS = sys.platform != "win32"
# Jobs are sent ahead as long as the child has less than this much work: long enough to hide a round trip of a busy
# host many times over, short enough that nobody notices the wait behind it.
_AHEAD = 0.004
_MOST_AHEAD = 64
# A job that was expected to be quick and still runs after this is slow: what waits behind it goes elsewhere.
_SLOW = 0.02
# With a shorter bound the wait behind others would count.
_SHORT_TIMEOUT = 1.0
# Payloads that lie in the pipe while another job runs are memory; large ones are not sent ahead.
_SMALL = 16 * 1024


def may_wait_in_child(record: Record) -> bool:
    """Return whether the job may be sent ahead to a child that is busy with another one."""
    job = record.job
    return (
        record.target.kind == "sync"
        and not job.limits
        and job.effects == "pure"
        and not record.suspect
        and not record.deaths
        and (job.timeout is None or job.timeout >= _SHORT_TIMEOUT)  # type: ignore[operator]
        and job.progress_timeout is None
        and len(record.payload.body) <= _SMALL
    )


class Leases:
    """Attempts by fence, in the order they were sent.

    Args:
        worker: Whose child holds them.
        child: The child.
        slots: Jobs at once in an async child.
    """

    def __init__(self, worker: Worker, child: Child | InlineChild, slots: int) -> None:
        self.held: dict[int, Attempt] = {}
        self._worker = worker
        self._child = child
        self._slots = slots
        self._loop = worker.pool.loop
        self._expected = 0.0  # seconds of work that was sent and has not been answered, as far as known
        self._slow_timer: asyncio.TimerHandle | None = None
        self._recalled: set[int] = set()

    def __len__(self) -> int:
        return len(self.held)

    def takes(self, record: Record) -> bool:
        """Return whether the job may be sent now."""
        held = self.held
        if not held:
            return True
        if self._worker.flavour == "async":
            return len(held) < self._slots and not record.suspect and not self._holds_suspect()
        quick = record.target.seconds
        first = next(iter(held.values()))
        return (
            quick is not None
            and len(held) < _MOST_AHEAD
            and self._expected + quick < _AHEAD
            and not self._recalled
            and not self._child.unsent
            and may_wait_in_child(record)
            and may_wait_in_child(first.record)
            # Whatever was expected of it: one that runs this long may run on.
            and self._loop.time() - first.begun_at < _SLOW
        )

    def _holds_suspect(self) -> bool:
        return any(attempt.record.suspect for attempt in self.held.values())

    def add(self, attempt: Attempt) -> bytes:
        """Lease the attempt; returns its frame, which is to be written at once (empty when it must wait for a file)."""
        record = attempt.record
        first = not self.held
        self.held[attempt.fence] = attempt
        # An unknown job is taken for a slow one, so that nothing is sent after it.
        self._expected += _AHEAD if record.target.seconds is None else record.target.seconds
        if self._worker.flavour != "async":
            if first:
                attempt.begin()
            elif self._slow_timer is None:
                self._slow_timer = self._loop.call_later(_SLOW, self._look_for_slowness)
        payload = record.payload
        head = b'{"type":"job","fence":%d,"job":%d,"attempt":%d,' % (attempt.fence, record.id, record.attempts)
        if not _HAS_SIGNALS and record.job.timeout is not None:
            head += self._dump_order(record.job.timeout)
        if len(payload.body) > _wire.SPILL_BYTES and self._child.temp:
            path = os.path.join(self._child.temp, f"job-{attempt.fence}")
            self._worker.desk.spill(attempt, path)
            return b""
        return b"%s%s%s}\n" % (head, payload.head, payload.body)

    def _dump_order(self, timeout: Seconds) -> bytes:
        """Return the members that have the child write its stack by itself, for nothing can ask it to."""
        after = float(timeout) + self._worker.grace / 2  # type: ignore[arg-type]
        return b'"dump_after":%.3f,"dump_file":%s,' % (after, _wire.encode_json(self._child.stack_path()).encode())

    def spilled(self, attempt: Attempt, path: str) -> bytes:
        """Return the frame of an attempt whose payload is in a file now."""
        record = attempt.record
        head = {"type": "job", "fence": attempt.fence, "job": record.id, "attempt": record.attempts, "file": path}
        return _wire.encode(head)[:-2] + b"," + record.payload.head[:-1] + b"}\n"

    def remove(self, fence: int) -> Attempt | None:
        """Return an attempt that is over; the next one in line runs from now on, if it is a plain child."""
        held = self.held
        attempt = held.pop(fence, None)
        if attempt is None:
            return None
        if not held:
            self._expected = 0.0
        else:
            self._expected -= _AHEAD if attempt.record.target.seconds is None else attempt.record.target.seconds
            if self._worker.flavour != "async":
                following = next(iter(held.values()))
                if not following.begun:
                    following.begin()
        return attempt

    def took_back(self, asked: list[int]) -> None:
        """Note that a recall was answered."""
        self._recalled.difference_update(asked)

    def _look_for_slowness(self) -> None:
        self._slow_timer = None
        if len(self.held) < 2:
            return
        first = next(iter(self.held.values()))
        left = first.begun_at + _SLOW - self._loop.time()
        if left > 0:
            self._slow_timer = self._loop.call_later(left, self._look_for_slowness)
            return
        first.record.target.learn_time(self._loop.time() - first.begun_at)
        self.recall()

    def recall(self) -> None:
        """Ask the child for everything that it has not begun."""
        waiting = [fence for fence, attempt in self.held.items() if not attempt.begun and fence not in self._recalled]
        if waiting:
            self._recalled.update(waiting)
            self._worker.send({"type": "recall", "fences": waiting})

    def close(self) -> tuple[list[Attempt], list[Attempt]]:
        """After the child's death: return the attempts that ran, and those that never started."""
        if self._slow_timer is not None:
            self._slow_timer.cancel()
        attempts = list(self.held.values())
        self.held.clear()
        if self._worker.flavour == "async":
            ran = [attempt for attempt in attempts if attempt.begun]
        else:
            # The child noted what it began before it began it; one that does not keep notes ran its first.
            noted = self._child.running_fence() if attempts else None
            ran = [attempt for attempt in attempts if attempt.fence == noted] if noted is not None else attempts[:1]
        return ran, [attempt for attempt in attempts if attempt not in ran]
