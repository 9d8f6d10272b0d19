"""Where records come from: a file, stdin or an iterable; read no faster than they are taken."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator_adapters.batch._errors import BatchError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# The engine's bound on a message is the same; a larger record could not be sent to a child.
MAX_ROW_BYTES = 16 * 2**20
# Of a bad row so much is worth keeping: enough to find it, too little to fill a journal.
SHOWN = 1000


class Row(NamedTuple):
    """One record of a source.

    Attributes:
        number: Counts records from 1, bad ones included.
        place: Where it stands, for people: `line 17`, `row 17`, `item 17`.
        content: The record, a JSON value; of a bad row its text, shortened if it is long.
        problem: Why it is a bad row, in a sentence without full stop; None if it is a good one.
    """

    number: int
    place: str
    content: Any
    problem: str | None = None


class Source(ABC):
    """Records to be taken one after the other.

    Attributes:
        name: What people call it: the path as given, `stdin`, or the kind of an iterable.
        path: The file it is, if it is one.
    """

    name: str
    path: str | None = None

    @abstractmethod
    async def count(self) -> int | None:
        """Return how many records there are; None when only reading them to the end would tell."""

    @abstractmethod
    def __aiter__(self) -> AsyncGenerator[Row, None]:  # noqa: PYI058  callers close it
        """Return the records from the first on; close what is returned (`contextlib.aclosing`) if you leave early.

        Raises:
            BatchError: If the source cannot be read any further; everything before it was handed over.
        """


def open_source(value: Any, *, format: str | None = None) -> Source:
    """Return the source that a user named.

    Args:
        value: The path of a file (`.jsonl`, `.csv` or `.parquet`, each perhaps with `.gz`), `"-"` for stdin, or any
            iterable or async iterable of records.
        format: `jsonl`, `csv` or `parquet`, perhaps with `.gz`, when the name of a file does not tell.

    Raises:
        BatchError: If there is no such source, or it can be seen that it cannot be read.
    """
    if isinstance(value, str | os.PathLike):
        from orchestrator_adapters.batch._source_file import open_file_source

        return open_file_source(os.fspath(value), format)
    from orchestrator_adapters.batch._source_iterable import open_iterable_source

    if format is not None:
        raise BatchError(f"a format ({format}) is for files and stdin; the source is a {type(value).__name__}")
    return open_iterable_source(value)
