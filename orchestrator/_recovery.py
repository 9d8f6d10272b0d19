"""The journal in the life of an engine: opened and swept before the first spawn, resumed after it, closed last."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING

from orchestrator._leftovers import sweep_left_behind
from orchestrator._store import Store
from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from orchestrator._durable import DurableJobs
    from orchestrator._journal import Journal
    from orchestrator._recipe import Birth, InThread, Witness
    from orchestrator._store_rows import Opened, StoredBirth


# Seconds for writing what is left at the end, and for a last try on a disk that refuses.
_PATIENCE = 5.0
_LAST_TRY = 1.0


class Recovery:
    """Opens a journal for one engine, and takes up what earlier runs left in it.

    Args:
        journal: Which one.
        jobs: Whose lives it keeps.
        log: Logs an event.
        in_thread: Runs a blocking function in a thread.
        moved: Called when the journal cannot be written for now, and when it can again.
        main: This program's main module, as children load it.
    """

    def __init__(
        self,
        journal: Journal,
        jobs: DurableJobs,
        log: Callable[..., None],
        in_thread: InThread,
        moved: Callable[[], None],
        main: Mapping[str, str] | None,
    ) -> None:
        self._path = journal.path
        self._main = main
        self._jobs = jobs
        self._log = log
        self._in_thread = in_thread
        self._moved = moved
        self._opened: Opened | None = None
        self.store = Store(journal, asyncio.get_running_loop(), on_stall=self._stalled, on_recover=self._recovered)

    async def open(self) -> int:
        """Open the journal and sweep what earlier runs left running; returns the last job's number.

        Raises:
            JournalError: If it cannot be opened.
        """
        self._opened = opened = await self.store.open()
        self._jobs.keep_in(self.store, opened.last_fence, self._main)
        if opened.births:
            self._log("journal.sweep_started", children=len(opened.births))
            survivors = await self._in_thread(_sweep, opened.births)
            for birth in opened.births:
                self.store.buried(birth.marker)
            if survivors:
                self._log("child.survived", "error", pids=list(survivors))
        return opened.last_job

    async def resume(self) -> None:
        """Take up the jobs that earlier runs accepted and did not finish."""
        assert self._opened is not None
        count = 0
        async for found in self._opened.open_jobs:
            try:
                self._jobs.resume(found)
            except ConfigurationError as error:
                # It stays open: who submits it again says how it is to be run.
                self._log("journal.job_left", "warning", job=found.job.id, key=found.job.key, reason=str(error))
            else:
                count += 1
        if count:
            self._log("journal.resumed", jobs=count, path=self._path)

    async def aclose(self) -> None:
        """Write what is left to write, and let go of the journal."""
        # What a disk refused through the whole drain it will hardly take now: a stop has ten seconds in all.
        if not await self.store.aclose(_PATIENCE if self.store.stalled is None else _LAST_TRY):
            self._log("journal.closed_unwritten", "error", path=self._path, reason=str(self.store.stalled))
            self._jobs.forsake()

    def _stalled(self, error: OSError | sqlite3.Error) -> None:
        remedy = "nothing is begun or acknowledged until it can be written; make room or mend the disk"
        self._log("journal.stalled", "error", path=self._path, error=str(error), remedy=remedy)
        self._moved()

    def _recovered(self) -> None:
        self._log("journal.recovered", path=self._path)
        self._moved()


def _sweep(births: list[StoredBirth]) -> tuple[int, ...]:
    survivors = sweep_left_behind([birth for birth in births if birth.same_boot])
    for birth in births:
        if not birth.same_boot:
            # Nothing of it can run any more, but temp folders may outlive a boot.
            with contextlib.suppress(OSError):
                shutil.rmtree(birth.temp)
    return survivors


class Witnesses:
    """Has every child known to its guardian and to the journal."""

    def __init__(self, guardian: Witness, store: Store) -> None:
        self._guardian = guardian
        self._store = store

    @property
    def guards(self) -> bool:
        return self._guardian.guards

    async def expect(self, birth: Birth) -> None:
        """Have the guardian know: a journal has no use for what may never be."""
        await self._guardian.expect(birth)

    def forget(self, birth: Birth) -> None:
        """Have the guardian forget."""
        self._guardian.forget(birth)

    async def born(self, birth: Birth) -> None:
        """Take note of a child; returns when both know it."""
        # The guardian first: it also removes the folders of a supervisor that dies while it writes.
        await self._guardian.born(birth)
        written = asyncio.Event()
        self._store.born(birth, written.set)
        await written.wait()

    def buried(self, birth: Birth) -> None:
        """Forget a child."""
        self._guardian.buried(birth)
        self._store.buried(birth.marker)
