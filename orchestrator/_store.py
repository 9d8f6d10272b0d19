"""The journal as the engine uses it: tell what happened, and hear when it is recorded; nothing here blocks the loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from orchestrator._store_batch import Batch, BirthRow
from orchestrator._store_rows import Opened, StoredEffect
from orchestrator._store_run import Left, read_open_jobs
from orchestrator._store_thread import StoreThread

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable

    from orchestrator._journal import Journal
    from orchestrator._recipe import Birth
    from orchestrator._store_rows import Known, OpenJob, StoredAttempt, StoredJob, StoredOutcome

# Seconds between two walks over what is old.
_RETAIN_EVERY = 3600.0
# Of those who are told of one commit as many are called before the loop gets a turn.
_TOLD_AT_ONCE = 1024
# Seconds that a thread which was told to end gets to leave the disk.
_LET_GO = 5.0


class Store:
    """One run's use of a journal; every method belongs to the loop.

    What is told while the thread commits goes into the next commit, so there is no timer: a single call is committed
    at once, and under load many go together. Who asked to be told is called on the loop, in the order of the calls,
    after the commit that contains it. After `aclose` calls do nothing.

    Args:
        journal: Which file, and how safe.
        loop: The loop that all calls come from.
        on_stall: Called once when the disk refuses commits; they are tried again, and nobody is told meanwhile.
        on_recover: Called once when it takes them again.

    Attributes:
        stalled: What the disk refuses with, while it does.
    """

    def __init__(
        self,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        *,
        on_stall: Callable[[OSError | sqlite3.Error], None],
        on_recover: Callable[[], None],
    ) -> None:
        self.stalled: Exception | None = None
        self._loop = loop
        self._waits = journal.durability != "none"
        self._on_stall = on_stall
        self._on_recover = on_recover
        self._thread = StoreThread(journal, loop, self)
        self._found: asyncio.Future[Left] = loop.create_future()
        self._end = asyncio.Event()
        self._batches: deque[Batch] = deque()
        self._is_committing = False
        self._is_scheduled = False
        self._is_open = False
        self._told: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._is_telling = False
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> Opened:
        """Take the journal and return what earlier runs left.

        Raises:
            JournalInUse: If another supervisor has it; within a second.
            JournalDamaged: If the file is damaged, no journal, or written by a later version.
            JournalError: If it cannot be opened for another reason.
        """
        self._thread.start()
        try:
            # Shielded, for the thread goes on: who is cancelled here has it let go of the file.
            left = await asyncio.shield(self._found)
        except BaseException:
            self._found.cancel()
            self._thread.stop(give_up=True)
            await self._let_go()
            raise
        self._is_open = True
        self._retain()
        return Opened(
            run_id=left.run_id,
            same_boot=left.same_boot,
            births=left.births,
            last_job=left.last_job,
            last_fence=left.last_fence,
            open_jobs=self._read_open_jobs(left.last_job),
            meta=left.meta,
        )

    def submit(self, job: StoredJob, done: Callable[[Known | None], None]) -> None:
        """Record a job, unless its identity is there already; `done` hears which."""
        batch = self._batch()
        batch.submit(job)
        if self._waits or job.identity is not None or self.stalled is not None:
            batch.dones.append((done, job.id))
        else:
            self._tell(done, None)  # of a job with an identity only the file knows whether it is new
        self._wake()

    def attempt(self, row: StoredAttempt, done: Callable[[], None] | None = None) -> None:
        """Record an attempt, or what became of it."""
        batch = self._batch()
        batch.attempt(row)
        if done is not None:
            self._when_recorded(batch, done)
        self._wake()

    def effect(
        self,
        job: int,
        key: str,
        phase: str,
        fence: int,
        ref: str | None = None,
        done: Callable[[], None] | None = None,
    ) -> None:
        """Record the phase of an outside effect: `begun`, `done` or `undone`."""
        batch = self._batch()
        batch.effect(StoredEffect(job, key, phase, fence, ref))
        if done is not None:
            self._when_recorded(batch, done)
        self._wake()

    def settle(self, job: int, outcome: StoredOutcome, done: Callable[[], None]) -> None:
        """Record a job's outcome; the first one stays."""
        batch = self._batch()
        batch.settle(job, outcome, time.time())
        self._when_recorded(batch, done)
        self._wake()

    def update(self, job: int, attempts: int, deaths: int, suspect: bool) -> None:
        """Record what an open job has used up."""
        self._batch().update(job, attempts, deaths, suspect)
        self._wake()

    def born(self, birth: Birth, done: Callable[[], None]) -> None:
        """Record a child; user code may run in it when `done` was called."""
        batch = self._batch()
        batch.births.append(
            BirthRow(birth.marker, birth.name, birth.worker, birth.generation, birth.pid, birth.started, birth.temp)
        )
        self._when_recorded(batch, done)
        self._wake()

    def buried(self, marker: str, certificate: str | None = None) -> None:
        """Record that nothing is left of a child, of this run or an earlier one."""
        self._batch().bury(marker, certificate)
        self._wake()

    def set_meta(self, key: str, value: str, done: Callable[[], None] | None = None) -> None:
        """Record a value of the caller's own under a name."""
        batch = self._batch()
        batch.meta[key] = value
        if done is not None:
            self._when_recorded(batch, done)
        self._wake()

    async def flush(self) -> None:
        """Wait until everything told so far is recorded."""
        if not self._is_committing and not self._batches and not self._told:
            return
        recorded: asyncio.Future[None] = self._loop.create_future()
        self._batch().dones.append((_recorded(recorded), None))
        self._wake()
        await recorded

    async def aclose(self, timeout: float = 5.0) -> bool:
        """Record what was told, and let go of the journal.

        Args:
            timeout: Seconds to wait while the disk refuses.

        Returns:
            Whether everything was recorded. What was not is lost, and nobody is told of it.
        """
        if not self._is_open:
            return True
        done = False
        if self.stalled is not None:
            self._thread.hurry()
        try:
            async with asyncio.timeout(timeout):
                await self.flush()
            done = True
        except TimeoutError:
            pass
        finally:
            self._is_open = False
            self._batches.clear()
            if self._timer is not None:
                self._timer.cancel()
            self._thread.stop(give_up=not done)
            await self._let_go()
        return done

    async def _let_go(self) -> None:
        try:
            async with asyncio.timeout(_LET_GO):
                await self._end.wait()
        except TimeoutError:
            return  # it hangs in the disk, and ends when the disk answers
        self._thread.join()

    async def _read_open_jobs(self, last: int) -> AsyncIterator[OpenJob]:
        place: int | None = 0
        while place is not None:
            found, place = await self._thread.call(partial(read_open_jobs, after=place, last=last))
            for job in found:
                yield job

    def _retain(self) -> None:
        self._thread.retain()
        self._timer = self._loop.call_later(_RETAIN_EVERY, self._retain)

    # Out: batches to the thread.

    def _batch(self) -> Batch:
        if not self._batches or self._batches[-1].is_full:
            self._batches.append(Batch())
        return self._batches[-1]

    def _when_recorded(self, batch: Batch, done: Callable[[], None]) -> None:
        if self._waits or self.stalled is not None:
            batch.dones.append((done, None))
        else:
            self._tell(done)

    def _wake(self) -> None:
        if not self._is_committing and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._is_scheduled = False
        if not self._is_open:
            self._batches.clear()
        elif self._batches and not self._is_committing:
            self._is_committing = True
            self._thread.commit(self._batches.popleft())

    # In: what the thread tells, on the loop.

    def opened(self, found: Left | Exception) -> None:
        if self._found.done():
            return
        if isinstance(found, Exception):
            self._found.set_exception(found)
        else:
            self._found.set_result(found)

    def committed(self, batch: Batch, known: dict[int, Known]) -> None:
        self._is_committing = False
        self._hand_over()  # first: the thread works while others are told
        for done, number in batch.dones:
            self._tell(done, *(() if number is None else (known.get(number),)))

    def stalled_by(self, error: OSError | sqlite3.Error) -> None:
        self.stalled = error
        self._on_stall(error)

    def recovered(self) -> None:
        self.stalled = None
        self._on_recover()

    def ended(self) -> None:
        self._end.set()

    def _tell(self, done: Callable[..., object], *args: object) -> None:
        self._told.append((done, args))
        if not self._is_telling:
            self._is_telling = True
            self._loop.call_soon(self._tell_some)

    def _tell_some(self) -> None:
        for _ in range(min(_TOLD_AT_ONCE, len(self._told))):
            done, args = self._told.popleft()
            try:
                done(*args)
            except Exception as error:
                self._loop.call_exception_handler(
                    {"message": "an error in what was to happen after a commit", "exception": error}
                )
        self._is_telling = bool(self._told)
        if self._told:
            self._loop.call_soon(self._tell_some)


def _recorded(future: asyncio.Future[None]) -> Callable[[], None]:
    def tell() -> None:
        if not future.done():
            future.set_result(None)

    return tell
