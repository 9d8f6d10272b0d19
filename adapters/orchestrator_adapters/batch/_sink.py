"""Where results go: a file, stdout, a function or an object with `write`, in the order of the records."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from orchestrator_adapters.batch._errors import BatchError

if TYPE_CHECKING:
    from orchestrator_adapters.batch._source import Source


class Sink(ABC):
    """Takes JSON texts in order.

    Attributes:
        name: What people call it: the path as given, `stdout`, or the name of a function.
        is_live: Whether results are out as soon as they are written; those of a file only at `commit`.
        path: The file it writes, if it is one.
    """

    name: str
    is_live: bool = True
    path: str | None = None

    @abstractmethod
    async def open(self) -> None:
        """Begin, or begin anew; nothing that is there is touched.

        Raises:
            BatchError: If it can be seen that results cannot be written there.
        """

    @abstractmethod
    async def write(self, values: list[bytes]) -> None:
        """Take the next results; returns when it is ready for more.

        Raises:
            BatchError: If they cannot be written.
        """

    @abstractmethod
    async def commit(self) -> None:
        """Put everything in its place, durably: all or nothing.

        Raises:
            BatchError: If that fails; what was there before is untouched.
        """

    @abstractmethod
    async def abort(self) -> None:
        """Remove what was not committed; does nothing after `commit` or when nothing was opened."""


class NoSink(Sink):
    """Takes results and drops them: they stay in the journal."""

    name = "nowhere"
    is_live = False  # nobody waits for them

    async def open(self) -> None: ...

    async def write(self, values: list[bytes]) -> None: ...

    async def commit(self) -> None: ...

    async def abort(self) -> None: ...


def open_sink(value: Any, *, format: str | None = None, source: Source | None = None) -> Sink:
    """Return the sink that a user named; `open` begins it.

    Args:
        value: The path of a file (`.jsonl`, `.csv` or `.parquet`, each perhaps with `.gz`), `"-"` for stdout, a
            function of one value, sync or async, an object with a method `write`, or None.
        format: `jsonl`, `csv` or `parquet`, perhaps with `.gz`, when the name of a file does not tell.
        source: Where the records come from; a sink may not be the same file.

    Raises:
        BatchError: If it is no sink.
    """
    if value is None:
        return NoSink()
    if isinstance(value, str | os.PathLike):
        from orchestrator_adapters.batch._sink_file import open_file_sink

        return open_file_sink(os.fspath(value), format, source)
    if format is not None:
        raise BatchError(f"a format ({format}) is for files and stdout; the sink is a {type(value).__name__}")
    from orchestrator_adapters.batch._sink_calls import open_call_sink

    return open_call_sink(value)
