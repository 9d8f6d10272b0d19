"""Records from a user's iterable or async iterable: one pulled at a time, never ahead, closed at the end."""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any

from orchestrator_adapters.batch._errors import RESUMABLE, BatchError
from orchestrator_adapters.batch._source import MAX_ROW_BYTES, SHOWN, Row, Source
from orchestrator_adapters.batch._values import Unfit, to_json_value

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def open_iterable_source(value: Any) -> Source:
    """Return a source of what an iterable gives.

    Raises:
        BatchError: If it is none, or one that is surely meant otherwise.
    """
    kind = type(value).__name__
    if isinstance(value, bytes | bytearray | Mapping):
        raise BatchError(f"the source is a single {kind}; give an iterable of records, such as a list with it")
    if isinstance(value, io.IOBase):
        raise BatchError("the source is an open file; give its path, or '-' for stdin")
    if not isinstance(value, AsyncIterable | Iterable):
        raise BatchError(f"the source is a {kind}; give a path, '-' for stdin, or an iterable of records")
    return _IterableSource(value)


class _IterableSource(Source):
    def __init__(self, value: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._value = value
        self.name = f"the {type(value).__name__} of records"

    async def count(self) -> int | None:
        try:
            return len(self._value) if isinstance(self._value, Sized) else None
        except Exception:
            return None  # a query that was not made yet, say: its records tell

    async def __aiter__(self) -> AsyncGenerator[Row, None]:
        number = 0
        iterator: Iterator[Any] | AsyncIterator[Any] | None = None
        try:
            while True:
                try:
                    if iterator is None:
                        iterator = aiter(self._value) if isinstance(self._value, AsyncIterable) else iter(self._value)
                    value = await anext(iterator) if isinstance(iterator, AsyncIterator) else next(iterator)
                except (StopIteration, StopAsyncIteration):
                    return
                except Exception as error:
                    where = f"after item {number}" if number else "before its first item"
                    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                    raise BatchError(f"{self.name} raised {where}: {text}", RESUMABLE) from error
                number += 1
                yield _row(number, value)
        finally:
            await _close(iterator)


def _row(number: int, value: Any) -> Row:
    place = f"item {number}"
    try:
        content, size = to_json_value(value)
    except Unfit as problem:
        return Row(number, place, repr(value)[:SHOWN], str(problem))
    if size > MAX_ROW_BYTES:
        problem_text = f"the record is larger than {MAX_ROW_BYTES:,} bytes; pass large data by file name"
        return Row(number, place, repr(value)[:SHOWN], problem_text)
    return Row(number, place, content)


async def _close(iterator: Any) -> None:
    # What a generator holds its `finally` frees: a file, a cursor. Others have nothing to free, or know when to.
    close = getattr(iterator, "aclose", None)
    if close is None and inspect.isgenerator(iterator):
        close = iterator.close
    if close is not None:
        ending = close()
        if inspect.isawaitable(ending):
            await ending
