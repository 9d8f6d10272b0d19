"""The input of a run: records from a reader thread, taken one by one, with back-pressure and an end on demand."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

from orchestrator.cli._options import RunOptions, UsageProblem
from orchestrator.cli._records import HeaderProblem, Record, RecordReader, count_records

if TYPE_CHECKING:
    from collections.abc import Callable

# Two batches ahead keep the loop fed while the thread reads the next; more would only hold memory.
BATCHES_AHEAD = 2


class RecordSource:
    """Reads records in a daemon thread, because a read of a terminal or a silent pipe cannot be interrupted.

    Args:
        options: The input and its format.

    Attributes:
        total: How many records there are, once that is known.
        taken: How many were taken.
        problem: Why reading ended early, if it did.
    """

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._records: deque[Record] = deque()
        self._free = threading.Semaphore(BATCHES_AHEAD)
        self._arrived = asyncio.Event()
        self._header: asyncio.Future[list[str]] = self._loop.create_future()
        self._counted = asyncio.Event()
        self._read = 0
        self._unfreed = 0
        self._ended = False
        self._stopped = False
        self.total: int | None = None
        self.taken = 0
        self.problem: str | None = None
        self._descriptor = 0
        if options.source is not None:
            try:
                self._descriptor = os.open(options.source, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            except OSError as error:
                raise UsageProblem(f"FILE: {str(options.source)!r} cannot be opened: {error.strerror}.") from error
        elif sys.platform == "win32":
            import msvcrt

            # In text mode the C runtime would end the input at a Ctrl-Z.
            msvcrt.setmode(0, os.O_BINARY)

    def start(self) -> None:
        """Start reading, and counting if the input is a regular file."""
        # Asked first: the thread closes the descriptor when it has read all.
        countable = self._options.source is not None and stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        threading.Thread(target=self._read_all, name="orchestrator run: input", daemon=True).start()
        if countable:
            threading.Thread(target=self._count_all, name="orchestrator run: count", daemon=True).start()
        else:
            self._counted.set()

    async def columns(self) -> list[str]:
        """Return the names in the header of a CSV input; none when the input is empty.

        Raises:
            UsageProblem: If the header cannot name arguments.
        """
        if self._options.format != "csv":
            return []
        try:
            return await self._header
        except HeaderProblem as problem:
            raise UsageProblem(f"FILE: {problem}.") from None

    def take_nowait(self) -> Record | None:
        """Return the next record if one is there."""
        if not self._records or self._stopped:
            return None
        record = self._records.popleft()
        self.taken += 1
        if not self._records:
            self._arrived.clear()
            if self._unfreed:
                self._free.release(self._unfreed)
                self._unfreed = 0
        return record

    async def wait(self) -> bool:
        """Wait until there may be a record; False at the end of the input or after `stop`."""
        while not self._stopped:
            if self._records:
                return True
            if self._ended:
                return False
            self._arrived.clear()
            await self._arrived.wait()
        return False

    @property
    def ended(self) -> bool:
        """Whether every record was taken."""
        return self._ended and not self._records

    def stop(self) -> None:
        """Take no further record; the reader thread ends as soon as its read returns."""
        self._stopped = True
        self._arrived.set()
        self._set_header([])
        self._free.release(BATCHES_AHEAD)

    async def count(self) -> int | None:
        """Wait for the count of a regular file; return the total, or None if it is unknown."""
        await self._counted.wait()
        return self.total

    def _call(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            # The loop closed while this thread was in a read: nobody waits for the rest.
            self._stopped = True

    def _read_all(self) -> None:
        problem: str | None = None
        try:
            RecordReader(
                self._descriptor,
                self._options.format,
                self._push,
                on_header=lambda names: self._call(self._set_header, names),
            ).read()
        except HeaderProblem as error:
            problem = f"{error}"
            self._call(self._set_header, error)
        except OSError as error:
            problem = error.strerror or str(error)
        if self._options.source is not None:
            os.close(self._descriptor)
        self._call(self._end, problem)

    def _push(self, batch: list[Record]) -> bool:
        self._free.acquire()
        if self._stopped:
            return False
        self._call(self._accept, batch)
        return not self._stopped

    def _accept(self, batch: list[Record]) -> None:
        self._records.extend(batch)
        self._read += len(batch)
        self._unfreed += 1
        self._arrived.set()

    def _set_header(self, header: list[str] | HeaderProblem) -> None:
        if self._header.done():
            return
        if isinstance(header, HeaderProblem):
            self._header.set_exception(header)
        else:
            self._header.set_result(header)

    def _end(self, problem: str | None) -> None:
        self._ended = True
        self.problem = problem
        if problem is None and not self._stopped:
            self.total = self._read
        self._set_header([])
        self._arrived.set()

    def _count_all(self) -> None:
        assert self._options.source is not None
        total: int | None = None
        try:
            descriptor = os.open(self._options.source, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                # Counting goes on after `stop`: the summary says how many records were not run.
                total = count_records(descriptor, self._options.format)
            finally:
                os.close(descriptor)
        except OSError:
            pass
        self._call(self._set_total, total)

    def _set_total(self, total: int | None) -> None:
        if self.total is None:
            self.total = total
        self._counted.set()
