"""The thread that has the journal's connection: commits batches in order, and tries again while the disk refuses."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator._faults import FAULTS, strike
from orchestrator._store_batch import Batch
from orchestrator._store_file import JournalDatabase, open_journal, refusal
from orchestrator._store_retention import Retention
from orchestrator._store_run import Left, begin_run, end_run
from orchestrator._store_writes import write

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from orchestrator._journal import Journal
    from orchestrator._store_rows import Known

# Bytes of the write-ahead log at which it is brought into the file. With the largest batch it stays below 16 MiB, and
# a hot page is written to the file once for many commits.
CHECKPOINT = 8 * 2**20
# Seconds between tries while the disk refuses: a full disk is noticed to have space again within five.
_FIRST_RETRY = 0.2
_LAST_RETRY = 5.0


class Listener(Protocol):
    """What the thread tells; every method is called on the loop."""

    def opened(self, found: Left | Exception) -> None:
        """The journal is open, or why not."""

    def committed(self, batch: Batch, known: dict[int, Known]) -> None:
        """A batch is recorded; `known` are the jobs of it that were not written."""

    def stalled_by(self, error: OSError | sqlite3.Error) -> None:
        """The disk refuses; told once."""

    def recovered(self) -> None:
        """It takes commits again."""

    def ended(self) -> None:
        """The thread has let go of the journal; called last."""


class _Call:
    """Something to do with the database between two batches."""

    __slots__ = ("function", "future")

    def __init__(self, function: Callable[[JournalDatabase], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.future = future


class StoreThread:
    """Owns the connection from open to close.

    Args:
        journal: What to open.
        loop: Where the listener is called.
        listener: Who hears what happens.
    """

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        self._journal = journal
        self._loop = loop
        self._listener = listener
        self._inbox: SimpleQueue[Batch | _Call | Retention | str | None] = SimpleQueue()
        self._given_up = threading.Event()
        self._hurried = threading.Event()  # ends the wait for the next try
        # A host that ends without closing its supervisor must not wait for us: the journal survives worse.
        self._thread = threading.Thread(target=self._run, name=f"orchestrator: {journal.path}", daemon=True)

    def start(self) -> None:
        """Open the journal."""
        self._thread.start()

    def commit(self, batch: Batch) -> None:
        """Commit a batch after those before it."""
        self._inbox.put(batch)

    def call(self, function: Callable[[JournalDatabase], Any]) -> asyncio.Future[Any]:
        """Call a function with the database; what it returns or raises is the future's."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._inbox.put(_Call(function, future))
        return future

    def retain(self) -> None:
        """Begin to forget what is old, a slice at a time between batches."""
        self._inbox.put("retain")

    def hurry(self) -> None:
        """Try at once what the disk refused, if it did: nobody will wait long for it any more."""
        self._hurried.set()

    def stop(self, *, give_up: bool) -> None:
        """End after what was asked for; or at once, with the batch that the disk refuses."""
        if give_up:
            self._given_up.set()
            self._hurried.set()
        self._inbox.put(None)

    def join(self) -> None:
        """Wait for a thread that has told its end."""
        self._thread.join()

    def _run(self) -> None:
        database: JournalDatabase | None = None
        try:
            try:
                database = open_journal(os.fspath(self._journal.path), self._journal.durability)
                try:
                    left = begin_run(database)
                except sqlite3.Error as error:
                    raise refusal(database.path, database.path, error) from error
            except Exception as error:
                self._tell(self._listener.opened, error)
                return
            self._tell(self._listener.opened, left)
            self._work(database, left.run_id)
        finally:
            if database is not None:
                database.close()
            self._tell(self._listener.ended)

    def _work(self, database: JournalDatabase, run_id: str) -> None:
        while not self._given_up.is_set():
            work = self._inbox.get()
            if isinstance(work, Batch):
                self._commit(database, work, run_id)
            elif isinstance(work, _Call):
                self._call(database, work)
            elif work is None:
                try:
                    end_run(database, run_id)
                except (sqlite3.Error, OSError):
                    pass  # everything is recorded but that; the next run finds a run that did not end well
                return
            elif isinstance(work, Retention):
                self._retain(work)
            else:
                keep = self._journal.keep
                assert keep is None or isinstance(keep, float)
                self._retain(Retention(database, keep, time.time()))

    def _commit(self, database: JournalDatabase, batch: Batch, run_id: str) -> None:
        delay = 0.0
        repaired = False
        while True:
            try:
                known = write(database, batch, run_id, time.time())
                break
            except Exception as error:
                if isinstance(error, UnicodeError | OverflowError) and not repaired:
                    batch.repair()
                    repaired = True
                    continue
                if not delay:
                    self._tell(self._listener.stalled_by, _disk_error(error))
                delay = min(max(2 * delay, _FIRST_RETRY), _LAST_RETRY)
                if self._hurried.wait(delay):
                    self._hurried.clear()
                    delay = _FIRST_RETRY
                if self._given_up.is_set():
                    return
        if delay:
            self._tell(self._listener.recovered)
        self._tell(self._listener.committed, batch, known)
        if database.log_size >= CHECKPOINT:
            try:
                if FAULTS:
                    strike("C11")
                database.checkpoint()
                if FAULTS:
                    strike("C11")
            except (sqlite3.Error, OSError):
                pass  # what was committed is in the log; the next commit tries again, or finds the disk full

    def _call(self, database: JournalDatabase, call: _Call) -> None:
        try:
            result = call.function(database)
        except Exception as error:
            self._tell(_fail, call.future, error)
        else:
            self._tell(_answer, call.future, result)

    def _retain(self, retention: Retention) -> None:
        try:
            more = retention.step()
        except (sqlite3.Error, OSError):
            return  # the next walk begins where this one does
        if more:
            self._inbox.put(retention)  # behind what has come meanwhile

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            self._given_up.set()
            self._hurried.set()  # the loop is closed: nobody waits, and nobody will say stop


def _disk_error(error: Exception) -> OSError | sqlite3.Error:
    if isinstance(error, OSError | sqlite3.Error):
        return error
    wrapped = sqlite3.InternalError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _answer(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
