"""The thread that has a run's journal: commits whatever is there as soon as it is idle, and says so on the loop."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator_adapters.batch._store_file import open_store, refusal
from orchestrator_adapters.batch._store_rows import EndRow, KeptRow, Known, TryRow, write

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")

# A row waits this long for others to be committed with, unless `flush` says that there will be none soon.
_LINGER = 0.001


@dataclass(slots=True)
class Commit:
    """What is committed together."""

    ends: list[EndRow] = field(default_factory=list)
    tries: list[TryRow] = field(default_factory=list)
    kept: list[KeptRow] = field(default_factory=list)
    found: list[Known] = field(default_factory=list)  # what those have; there when it is committed

    def __len__(self) -> int:
        return len(self.ends) + len(self.tries) + len(self.kept)


@dataclass(slots=True)
class _Call:
    """Something to do with the connection between two commits."""

    function: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


class Store:
    """A run's journal, from a loop; used through `opened`.

    Args:
        folder: Of the run.
        committed: Called on the loop when rows are safe, in the order of the commits.
        failed: Called on the loop, once, when the disk does not take a commit; nothing is committed any more then.
    """

    def __init__(self, folder: str, committed: Callable[[Commit], None], failed: Callable[[Exception], None]) -> None:
        self._folder = folder
        self._committed = committed
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._inbox: SimpleQueue[Commit | _Call | None] = SimpleQueue()
        self._next = Commit()
        self._is_busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._broken: Exception | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None
        self._first: Callable[[sqlite3.Connection], None] | None = None

    async def open(self) -> None:
        """Take the journal.

        Raises:
            BatchError: If another process has it, or it cannot be used.
        """
        connection = await asyncio.to_thread(open_store, self._folder)
        # A host that ends without closing its run must not wait for us: the journal survives worse.
        self._thread = threading.Thread(
            target=self._run, args=(connection,), name=f"orchestrator batch: {self._folder}", daemon=True
        )
        self._thread.start()

    def before_first_commit(self, function: Callable[[sqlite3.Connection], None]) -> None:
        """Have a function called before the first commit; `begin` calls it if there is none."""
        self._first = function

    @property
    def has_begun(self) -> bool:
        """Whether nothing is left to be done before the first commit."""
        return self._first is None

    async def begin(self) -> None:
        """Do now what was to be done before the first commit."""
        await self.call(self._prepare)

    def add(self, row: EndRow | TryRow | KeptRow) -> None:
        """Commit a row soon, with all others of this turn of the loop."""
        if isinstance(row, EndRow):
            self._next.ends.append(row)
        elif isinstance(row, TryRow):
            self._next.tries.append(row)
        else:
            self._next.kept.append(row)
        if self._is_busy:
            return
        if self._timer is None:
            self._idle.clear()
            self._timer = self._loop.call_later(_LINGER, self._hand_over)

    def flush(self) -> None:
        """Commit now what was added: nothing more will come soon."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hand_over()

    def _hand_over(self) -> None:
        if self._is_busy:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._next and self._broken is None:
            self._is_busy = True
            self._idle.clear()
            batch, self._next = self._next, Commit()
            self._inbox.put(batch)
        else:
            self._idle.set()

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a function does with the connection, after everything that was added before.

        Raises:
            BatchError: If the disk does not take it, or did not take a commit before.
        """
        await self._settled()
        future: asyncio.Future[T] = self._loop.create_future()
        self._inbox.put(_Call(function, future))
        return await future

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a function reads of what is committed, without waiting for what is not."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._inbox.put(_Call(function, future))
        return await future

    async def _settled(self) -> None:
        await self._idle.wait()
        if self._broken is not None:
            raise self._broken

    async def close(self) -> None:
        """Commit what was added, as far as the disk takes it, and let go of the journal."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        await self._idle.wait()
        self._inbox.put(None)
        await asyncio.to_thread(thread.join)

    # On the thread

    def _run(self, connection: sqlite3.Connection) -> None:
        try:
            while (work := self._inbox.get()) is not None:
                if isinstance(work, _Call):
                    self._answer(connection, work)
                else:
                    self._commit(connection, work)
        finally:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self._first is not None:
            self._first(connection)
            self._first = None

    def _commit(self, connection: sqlite3.Connection, batch: Commit) -> None:
        try:
            self._prepare(connection)
            batch.found = write(connection, batch.ends, batch.tries, batch.kept)
        except sqlite3.Error as error:
            self._tell(self._end_commit, batch, refusal(self._folder, error))
        except Exception as error:
            self._tell(self._end_commit, batch, error)  # an error of this program; a thread that ends would tell nobody
        else:
            self._tell(self._end_commit, batch, None)

    def _answer(self, connection: sqlite3.Connection, call: _Call) -> None:
        try:
            result = call.function(connection)
        except sqlite3.Error as error:
            self._tell(_fail, call.future, refusal(self._folder, error))
        except Exception as error:
            self._tell(_fail, call.future, error)
        else:
            self._tell(_succeed, call.future, result)

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(function, *args)

    # On the loop again

    def _end_commit(self, batch: Commit, error: Exception | None) -> None:
        self._is_busy = False
        if error is None:
            try:
                self._committed(batch)
            finally:
                self._hand_over()
        else:
            self._broken = error
            self._next = Commit()
            self._idle.set()
            self._failed(error)


def _succeed(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
