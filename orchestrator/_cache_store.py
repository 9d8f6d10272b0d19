"""The thread of the cache: checks and keeps what children wrote, and commits whatever came meanwhile together."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator._cache_file import CacheFile, Files, Value
from orchestrator._cache_index import Index, Removed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Entries of one transaction: some ten milliseconds.
_LARGEST_BATCH = 2_000
# Seconds for writing what is left at the end.
_PATIENCE = 5.0


class Put(NamedTuple):
    """Entries to keep.

    Attributes:
        entries: Keys and their values.
        done: Called on the loop with the keys that cannot be kept, and why, when the others are.
    """

    entries: Sequence[tuple[bytes, Value]]
    done: Callable[[dict[bytes, str]], None]


class Read(NamedTuple):
    """Values to read from the database; `done` is called on the loop with those that are there."""

    hashes: Sequence[bytes]
    done: Callable[[dict[bytes, bytes]], None]


class _Open(NamedTuple):
    most_bytes: int
    most_age: float | None
    future: asyncio.Future[Index]


class _Discard(NamedTuple):
    prefixes: tuple[str, ...]


class _Used(NamedTuple):
    uses: list[tuple[float, bytes]]


class CacheStore:
    """What a cache keeps outside its index; without a path only large values, as files that go with this process.

    Args:
        path: Of the file of a persistent cache.
        folder: Returns where large values are kept if there is no such file.
        loop: Where everybody is told.
        refused: Told on the loop that the disk does not take what is to be committed.
    """

    def __init__(
        self,
        path: str | None,
        folder: Callable[[], str],
        loop: asyncio.AbstractEventLoop,
        refused: Callable[[Exception], None],
    ) -> None:
        self.is_persistent = path is not None
        self._file = None if path is None else CacheFile(path)
        self._folder = folder
        self._files = None if self._file is None else self._file.files
        self._loop = loop
        self._refused = refused
        self._inbox: queue.SimpleQueue[Put | Read | Removed | _Open | _Discard | _Used | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._over: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def files(self) -> Files:
        """The folder of large values."""
        if self._files is None:
            self._files = Files(self._folder(), durable=False)
        return self._files

    # For the loop

    async def open(self, most_bytes: int, most_age: float | None) -> Index:
        """Open the file, and return the index of what is in it.

        Raises:
            CacheError: If that cannot be.
        """
        future: asyncio.Future[Index] = self._loop.create_future()
        self._ask(_Open(most_bytes, most_age, future))
        return await future

    def put(self, entries: Sequence[tuple[bytes, Value]], done: Callable[[dict[bytes, str]], None]) -> None:
        """Keep entries."""
        self._ask(Put(entries, done))

    def read(self, hashes: Sequence[bytes], done: Callable[[dict[bytes, bytes]], None]) -> None:
        """Read values."""
        self._ask(Read(hashes, done))

    def remove(self, removed: Removed) -> None:
        """Forget what the index has forgotten."""
        if self._file is not None or any(each.is_file for each in removed.contents):
            self._ask(removed)

    def discard(self, prefixes: Iterable[str]) -> None:
        """Remove files that children wrote whose names begin like this: nobody will name them."""
        if self._files is not None:
            self._ask(_Discard(tuple(prefixes)))

    def note_uses(self, uses: list[tuple[float, bytes]]) -> None:
        """Keep when entries were used last."""
        self._ask(_Used(uses))

    async def aclose(self) -> None:
        """Do what was asked for, and let go of everything."""
        self._closed = True
        if self._thread is not None:
            self._over = self._loop.create_future()
            self._inbox.put(None)
            with contextlib.suppress(TimeoutError):  # a disk that hangs must not keep the host
                async with asyncio.timeout(_PATIENCE):
                    await self._over
                self._thread.join()
            self._thread = None
        elif self._files is not None:
            self._files.close()

    def _ask(self, work: Any) -> None:
        if self._closed:
            return  # nobody is left to be told
        if self._thread is None:
            # A host that ends without closing its supervisor must not wait for us.
            self._thread = threading.Thread(target=self._run, name="orchestrator cache", daemon=True)
            self._thread.start()
        self._inbox.put(work)

    # For the thread

    def _run(self) -> None:
        try:
            while (work := self._inbox.get()) is not None:
                batch = [work]
                ends = False
                while len(batch) < _LARGEST_BATCH:
                    try:
                        more = self._inbox.get_nowait()
                    except queue.Empty:
                        break
                    if more is None:
                        ends = True
                        break
                    batch.append(more)
                self._do(batch)
                if ends:
                    return
        finally:
            if self._file is not None:
                self._file.close()
            if self._files is not None:
                self._files.close()
            self._tell(self._ended)

    def _ended(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _do(self, batch: list[Any]) -> None:
        """Do what came, with all that is to be committed in one transaction."""
        puts: list[tuple[Put, dict[bytes, str]]] = []
        entries: list[tuple[bytes, Value]] = []
        removed = Removed()
        uses: list[tuple[float, bytes]] = []
        for work in batch:
            if isinstance(work, Put):
                refused: dict[bytes, str] = {}
                for key, value in work.entries:
                    problem = self._take(value)
                    if problem is None:
                        entries.append((key, value))
                    else:
                        refused[key] = problem
                puts.append((work, refused))
            elif isinstance(work, Removed):
                removed.add(work)
            elif isinstance(work, _Used):
                uses += work.uses
            elif isinstance(work, _Open):
                self._open(work)
            elif isinstance(work, _Discard):
                self.files.remove_incoming(work.prefixes)
        self._commit(entries, removed, uses)
        for put, refused in puts:
            self._tell(put.done, refused)
        # Last: what they ask for may just have been written.
        for work in batch:
            if isinstance(work, Read):
                self._tell(work.done, self._read(work))

    def _take(self, value: Value) -> str | None:
        """Keep a file that a child wrote; returns why not."""
        if value.data is None:
            try:
                self.files.take(value)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError):
                    self._tell(self._refused, error)
                return f"{type(error).__name__}: {error}"
        return None

    def _commit(self, entries: list[tuple[bytes, Value]], removed: Removed, uses: list[tuple[float, bytes]]) -> None:
        if self._file is None:
            new = {value.content.hash for _, value in entries}
            self.files.remove(each for each in removed.contents if each.hash not in new)
        elif entries or removed or uses:
            try:
                self._file.write(entries, removed, uses)
            except (sqlite3.Error, OSError) as error:
                # They are used all the same, as long as this process lives.
                self._tell(self._refused, error)

    def _read(self, work: Read) -> dict[bytes, bytes]:
        try:
            return {} if self._file is None else self._file.read(work.hashes)
        except sqlite3.Error as error:
            self._tell(self._refused, error)
            return {}

    def _open(self, work: _Open) -> None:
        assert self._file is not None
        try:
            index = self._file.open(work.most_bytes, work.most_age)
        except Exception as error:
            self._tell(_fail, work.future, error)
        else:
            self._tell(_answer, work.future, index)

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            self._inbox.put(None)  # the loop is closed: nobody waits, and nobody will say that this is to end


def _answer(future: asyncio.Future[Index], index: Index) -> None:
    if not future.done():
        future.set_result(index)


def _fail(future: asyncio.Future[Index], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
