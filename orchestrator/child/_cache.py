"""Values that all jobs share: asked of the supervisor, computed by one job, kept by what they are."""

from __future__ import annotations

import binascii
import hashlib
import json
import os
import sys
from _contextvars import ContextVar

from orchestrator import _wire
from orchestrator.child import _scope
from orchestrator.child._request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any, Self, TypeVar, overload

    from orchestrator.child._scope import Scope

    T = TypeVar("T")

# Above this a value is a file that children read and write themselves: neither pipes nor the supervisor carry it.
_LARGE = 64 * 1024
# Of `max_message_bytes`: a value may take three times its size in a frame.
_LARGE_SHARE = 8
# Of one frame: others are not to wait long for it.
_FILL_BYTES = 2**20
_MOST_KEYS = 4096
_KEY_BYTES = 100
# How often a value is asked for again whose file was just removed; then it is computed here.
_MOST_LOST = 2
_CO_COROUTINE = 128

# Numbers of the questions whose computing the running code is part of.
_inside: ContextVar[tuple[int, ...]] = ContextVar("orchestrator_cache", default=())
# Outside a child: what this process has computed.
_local: dict[str, tuple[str, bytes]] = {}


class Cache:
    """What `child.cache(name)` returns; keys of another name are other keys."""

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"cache({name!r}): the name must be a string, not {type(name).__name__}")
        self.name = name

    def __repr__(self) -> str:
        return f"<Cache {self.name!r}>"

    if TYPE_CHECKING:

        @overload
        def get_or_compute(self, key: Any, fn: Callable[[], Awaitable[T]]) -> Awaitable[T]: ...
        @overload
        def get_or_compute(self, key: Any, fn: Callable[[], T]) -> T: ...

    def get_or_compute(self, key: Any, fn: Callable[[], Any]) -> Any:
        """Return the value of a key, computed by `fn` if nobody has it yet.

        However many jobs ask, in however many children, one computes and the others wait for it. If that one fails, is
        cancelled or dies, the next computes; what `fn` raises goes to its caller, and is never kept.

        Args:
            key: Any JSON value; the order of the members of objects does not matter.
            fn: Called without arguments; returns a JSON value or bytes. With an async function the result of this call
                is an awaitable.

        Raises:
            TypeError: If JSON cannot carry the key, or the value, exactly.
        """
        search = _Search(self.name, [key])
        if _is_async(fn):

            async def compute_async(keys: list[Any]) -> list[Any]:
                return [await fn()]

            return _first(_look_up_async(search, compute_async))
        return _look_up(search, lambda keys: [_plain(fn())])[0]

    if TYPE_CHECKING:

        @overload
        def get_many(
            self, keys: Iterable[Any], fn: Callable[[list[Any]], Awaitable[Iterable[T]]]
        ) -> Awaitable[list[T]]: ...
        @overload
        def get_many(self, keys: Iterable[Any], fn: Callable[[list[Any]], Iterable[T]]) -> list[T]: ...

    def get_many(self, keys: Iterable[Any], fn: Callable[[list[Any]], Any]) -> Any:
        """Return the values of many keys, in their order; those that nobody has are computed in one call.

        Args:
            keys: As for `get_or_compute`; one may come twice.
            fn: Gets the list of missing keys and returns as many values in their order; it may be called again for keys
                that another job was computing, and did not. With an async function the result is an awaitable.

        Raises:
            TypeError: As `get_or_compute`.
            ValueError: If `fn` does not return as many values as it got keys.
        """
        search = _Search(self.name, list(keys))
        return _look_up_async(search, fn) if _is_async(fn) else _look_up(search, lambda missing: _plain(fn(missing)))


def _look_up(search: _Search, compute: Callable[[list[Any]], Any]) -> list[Any]:
    """Find or compute what is searched for; blocks."""
    with search:
        search.may_block()
        while search.open:
            for question in search.questions():
                search.learn(question, question.wait())
            if search.missing:
                with search.computing() as missing:
                    values = compute(missing)
                for fill in search.fills(values):
                    search.filled(fill.wait())
    return search.result()


async def _look_up_async(search: _Search, compute: Callable[[list[Any]], Awaitable[Any]]) -> list[Any]:
    """Find or compute what is searched for."""
    with search:
        while search.open:
            for question in search.questions():
                search.learn(question, await question.wait_async())
            if search.missing:
                with search.computing() as missing:
                    values = await compute(missing)
                for fill in search.fills(values):
                    search.filled(await fill.wait_async())
    return search.result()


async def _first(values: Awaitable[list[Any]]) -> Any:
    return (await values)[0]


class _Question(Request):
    """A question for some keys."""

    def __init__(self, scope: Scope, frame: dict[str, Any], keys: list[str]) -> None:
        super().__init__(scope, frame)
        self.keys = keys


class _Search:
    """One search for some keys; a context manager: leaving it by an exception gives back what it was to compute.

    Attributes:
        open: Keys, as the supervisor knows them, whose values are not there yet.
        missing: Those of them that are to be computed here, with the questions that gave them.
    """

    def __init__(self, name: str, keys: list[Any]) -> None:
        self._name = name
        self._scope = _scope.current()
        self._order = [self._digest(key, place) for place, key in enumerate(keys)]
        self._keys = dict(reversed(list(zip(self._order, keys, strict=True))))  # of equal ones the first
        self._values: dict[str, Any] = {}
        self.open = list(dict.fromkeys(self._order))
        self.missing: dict[str, int] = {}
        self._questions: list[_Question] = []
        self._folder: str | None = None
        self._lost: dict[str, int] = {}
        self._blocks = False
        self._found_nothing = False
        self._inside = _inside.get()
        # A thread that the job started does not know on whose behalf it asks.
        self._unsure = _scope.scope_variable.get() is not self._scope

    def _digest(self, key: Any, place: int) -> str:
        problem = _wire.find_inexact(key, "key" if not place else f"keys[{place}]")
        if problem is not None:
            raise TypeError(f"cache({self._name!r}): {': '.join(problem)}")
        text = json.dumps([self._name, key], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._give_back()

    def may_block(self) -> None:
        """Note that waiting blocks whatever else runs on this thread's event loop, if it has one."""
        loop = sys.modules.get("_asyncio")
        self._blocks = loop is not None and loop._get_running_loop() is not None
        if self._scope is not None and self._scope.host.must_not_block():
            raise RuntimeError(
                f"cache({self._name!r}): this would block the event loop that has to answer; give it an async "
                "function, and await the result"
            )

    # Asking

    def questions(self) -> Iterator[_Question]:
        """Yield what to ask next."""
        if self._scope is None:
            self._look_here()
            return
        size = max(1, min(_MOST_KEYS, self._scope.host.limits.largest // _KEY_BYTES))
        parts = [self.open[start : start + size] for start in range(0, len(self.open), size)]
        # Who was told to compute some keys must not wait for others: only what is asked for alone waits.
        patient = len(parts) == 1 or self._found_nothing
        self._found_nothing = True
        for part in parts[:1] if patient else parts:
            frame: dict[str, Any] = {"type": "cache", "op": "get", "keys": part, "wait": patient}
            if self._inside:
                frame["inside"] = self._inside
            if self._unsure:
                frame["unsure"] = True
            if self._blocks:
                frame["blocks"] = True
            lost = [key for key in part if key in self._lost]
            if lost:
                frame["lost"] = lost
            question = _Question(self._scope, frame, part)
            self._questions.append(question)
            yield question

    def _look_here(self) -> None:
        for key in self.open:
            found = _local.get(key)
            if found is None:
                self.missing[key] = 0
            else:
                self._values[key] = _decode(*found)
        self._close()

    def _close(self) -> None:
        self.open = [key for key in self.open if key not in self._values]

    def learn(self, question: _Question, answer: dict[str, Any]) -> None:
        """Take the answer to a question."""
        if answer["type"] != "cached":
            raise RuntimeError(f"cache({self._name!r}): {answer.get('reason', 'denied')}")
        for key, said in zip(question.keys, answer["values"], strict=True):
            if said is None:
                continue
            self._found_nothing = False
            try:
                self._values[key] = _received(said)
            except OSError:
                self._lost[key] = self._lost.get(key, 0) + 1
                if self._lost[key] > _MOST_LOST:
                    self.missing[key] = 0
        for place in answer.get("missing", ()):
            assert question.number is not None
            self.missing[question.keys[place]] = question.number
            self._folder = answer.get("folder")
        self._close()

    # Computing

    def computing(self) -> _Computing:
        """Return a context manager in which what is missing is computed; gives the list of its keys."""
        inside = (*_inside.get(), *dict.fromkeys(filter(None, self.missing.values())))
        return _Computing([self._keys[key] for key in self.missing], inside)

    def fills(self, values: Any) -> Iterator[Request]:
        """Take what was computed, and yield what to tell the supervisor of it."""
        values = list(values)
        if len(values) != len(self.missing):
            problem = f"the function returned {len(values)} values for {len(self.missing)} keys"
            raise ValueError(f"cache({self._name!r}): {problem}")
        encoded = {key: self._encoded(value, key) for key, value in zip(self.missing, values, strict=True)}
        for (key, found), value in zip(encoded.items(), values, strict=True):
            # What the next one gets: lists where there were tuples.
            self._values[key] = _decode(*found) if found[0] == "json" and _wire.has_tuple(value) else value
        self._close()
        leases = self.missing
        self.missing = {}
        self._found_nothing = False
        if self._scope is None:
            _local.update(encoded)
            return
        told: set[str] = set()
        yield from self._told(self._scope, encoded, leases, told)
        left = {lease for key, lease in leases.items() if key not in told}
        self._questions = [question for question in self._questions if question.number in left]
        self._give_back()  # what could not be kept

    def _told(
        self, scope: Scope, encoded: dict[str, tuple[str, bytes]], leases: dict[str, int], told: set[str]
    ) -> Iterator[Request]:
        """Yield what to tell the supervisor of new values, and note which those are."""
        largest = scope.host.limits.largest
        batch: dict[str, Any] = {}
        room = 0
        last = 0
        for number, (key, found) in enumerate(encoded.items()):
            lease = leases[key]
            is_large = len(found[1]) > min(_LARGE, largest // _LARGE_SHARE)
            said = self._written(scope, lease, number, *found) if is_large else _inline(*found)
            if said is None:
                continue
            size = _KEY_BYTES if is_large else len(found[1]) + _KEY_BYTES
            if batch and (size > room or lease != last):
                yield _fill(scope, last, batch)
                batch = {}
            if not batch:
                room = min(_FILL_BYTES, largest // _LARGE_SHARE)
            last = lease
            room -= size
            batch[key] = said
            told.add(key)
        if batch:
            yield _fill(scope, last, batch)

    def filled(self, answer: dict[str, Any]) -> None:
        """Take the answer to what was told: it is kept, or could not be."""
        if answer["type"] != "cached":
            raise RuntimeError(f"cache({self._name!r}): {answer.get('reason', 'denied')}")

    def _encoded(self, value: Any, key: str) -> tuple[str, bytes]:
        if type(value) is bytes:
            return "bytes", value
        problem = _wire.find_inexact(value, "value")
        if problem is None:
            try:
                text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
            except ValueError as error:  # an integer of more digits than Python makes text of
                problem = ("value", str(error))
            else:
                return "json", text.encode("utf-8", "surrogatepass")
        of = f"the value of key {self._keys[key]!r:.80}"
        raise TypeError(f"cache({self._name!r}): {of}: {': '.join(problem)}; compute JSON values or bytes")

    def _written(self, scope: Scope, lease: int, number: int, kind: str, data: bytes) -> dict[str, Any] | None:
        """Write a large value to a file of its own; returns None when that cannot be."""
        if self._folder is None or not lease:
            return None
        name = f"{scope.fence}-{lease}-{number}.value"
        path = os.path.join(self._folder, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        try:
            with open(os.open(path, flags, 0o600), "wb") as file:
                file.write(data)
        except OSError as error:
            try:
                os.unlink(path)  # the disk may be full: not a byte is to be wasted
            except OSError:
                pass
            self._problem = f"{type(error).__name__}: {error}"
            return None
        found = hashlib.sha256(f"{kind}\0".encode())
        found.update(data)
        return {"file": name, "kind": kind, "size": len(data), "sha256": found.hexdigest()}

    _problem = ""

    def _give_back(self) -> None:
        """Tell the supervisor that what it gave to compute, and what is still asked, is given up."""
        questions, self._questions = self._questions, []
        for question in questions:
            if question.number is not None and self._scope is not None:
                question.forget()
                frame = {"type": "cache", "op": "drop", "fence": self._scope.fence, "lease": question.number}
                if self._problem:
                    frame["problem"] = self._problem
                self._scope.host.write(_wire.encode(frame))

    def result(self) -> list[Any]:
        """Return the values in the order in which their keys were given."""
        return [self._values[key] for key in self._order]


class _Computing:
    """While it lasts, what is asked is asked on behalf of these questions."""

    def __init__(self, missing: list[Any], inside: tuple[int, ...]) -> None:
        self._missing = missing
        self._value = inside

    def __enter__(self) -> list[Any]:
        self._token = _inside.set(self._value)
        return self._missing

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _inside.reset(self._token)


def _fill(scope: Scope, lease: int, values: dict[str, Any]) -> Request:
    frame = {"type": "cache", "op": "fill", "lease": lease, "keys": list(values), "values": list(values.values())}
    return Request(scope, frame)


def _inline(kind: str, data: bytes) -> dict[str, Any]:
    if kind == "json":
        return {"json": data.decode("utf-8", "surrogatepass")}
    return {"bytes": binascii.b2a_base64(data, newline=False).decode("ascii")}


def _received(said: dict[str, Any]) -> Any:
    """Return the value of an answer.

    Raises:
        OSError: If it is in a file that is gone.
    """
    if "json" in said:
        return _wire.decode_json(said["json"])
    if "bytes" in said:
        return binascii.a2b_base64(said["bytes"])
    with open(said["file"], "rb") as file:
        data = file.read()
    if len(data) != said["size"]:
        raise OSError(f"{said['file']} has {len(data)} bytes, not {said['size']}")
    return _decode(said["kind"], data)


def _decode(kind: str, data: bytes) -> Any:
    return data if kind == "bytes" else _wire.decode_json(data.decode("utf-8", "surrogatepass"))


def _plain(value: Any) -> Any:
    """Return what a sync function returned, if that is a value."""
    if hasattr(value, "__await__"):
        close = getattr(value, "close", None)
        if close is not None:
            close()
        raise TypeError(
            "the function returned an awaitable: give the cache an `async def` function, and await the cache"
        )
    return value


def _is_async(fn: Any) -> bool:
    """Return whether a callable is known to be async."""
    if not callable(fn):
        raise TypeError(f"the cache takes a function that computes what is missing, not {type(fn).__name__}")
    functools = sys.modules.get("functools")
    while functools is not None and isinstance(fn, functools.partial):
        fn = fn.func
    code = getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)
    return code is not None and bool(code.co_flags & _CO_COROUTINE)
