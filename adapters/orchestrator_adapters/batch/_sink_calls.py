"""Results handed to a user's function, or to an object with `write`, one after the other."""

from __future__ import annotations

import inspect
import io
from typing import TYPE_CHECKING, Any

from orchestrator_adapters.batch._errors import RESUMABLE, BatchError
from orchestrator_adapters.batch._sink import Sink
from orchestrator_adapters.batch._values import decode_result

if TYPE_CHECKING:
    from collections.abc import Callable


def open_call_sink(value: Any) -> Sink:
    """Return a sink that calls a function, or an object's `write`.

    Raises:
        BatchError: If the value is neither.
    """
    write = getattr(value, "write", None)
    kind = type(value).__name__
    if callable(write):
        return _CallSink(f"the {kind} to write to", write, _encoder(value), getattr(value, "flush", None))
    if callable(value):
        return _CallSink(f"the function {getattr(value, '__qualname__', kind)}", value, decode_result, None)
    raise BatchError(f"the sink is a {kind}; give a path, '-' for stdout, a function, or an object with write")


def _encoder(stream: Any) -> Callable[[bytes], Any]:
    binary = isinstance(stream, io.RawIOBase | io.BufferedIOBase) or "b" in str(getattr(stream, "mode", ""))
    return (lambda text: text + b"\n") if binary else (lambda text: text.decode() + "\n")


class _CallSink(Sink):
    """Calls a function with each result, in the loop's thread; an async one is awaited before the next.

    Args:
        name: What people call it.
        call: Gets what `encode` makes of a JSON text.
        encode: Makes what `call` gets.
        flush: Called at the end.
    """

    def __init__(self, name: str, call: Callable[[Any], Any], encode: Callable[[bytes], Any], flush: Any) -> None:
        self.name = name
        self._call = call
        self._encode = encode
        self._flush = flush
        self._written = 0

    async def open(self) -> None:
        self._written = 0

    async def write(self, values: list[bytes]) -> None:
        for value in values:
            self._written += 1
            await self._attempt(f"result {self._written}", self._call, self._encode(value))

    async def commit(self) -> None:
        if callable(self._flush):
            await self._attempt("the last result", self._flush)

    async def abort(self) -> None: ...

    async def _attempt(self, what: str, call: Callable[..., Any], *args: Any) -> None:
        try:
            ending = call(*args)
            if inspect.isawaitable(ending):
                await ending
        except Exception as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise BatchError(f"{self.name} raised at {what}: {text}", RESUMABLE) from error
