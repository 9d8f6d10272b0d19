"""Values and frames as bytes, on the supervisor's side: arguments out, frames in."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator import _wire
from orchestrator._child_files import open_file
from orchestrator._models import Job, callback
from orchestrator.child import _typed
from orchestrator.exceptions import PayloadError, PayloadTooLarge

if TYPE_CHECKING:
    from orchestrator import _frames
    from orchestrator._targets import Target

# Coding more than this takes longer than other jobs should wait for the loop: it goes to a thread.
LARGE = 256 * 1024
# Items and nested values looked at before a payload counts as large: about 200 microseconds of looking.
_LOOKED_AT = 4_000

_SHORT = 1024
_ATOMS = frozenset((str, int, bool, type(None), float))
# Of these every value travels exactly, whatever an annotation says.
_EXACT = frozenset((str, int, bool, type(None)))
_INFINITIES = (float("inf"), float("-inf"))
_encode = msgspec.json.Encoder().encode


_NO_FUNCTION = "a function cannot be sent; wrap it: callback(function), as an argument of its own"


class Payload:
    """The arguments of a job as its frames carry them; coded once, however many attempts are made.

    Attributes:
        head: Members of the job frame that always travel in line, as JSON text with a trailing comma.
        body: `"args":…` and so on, as JSON text; in line, or in a file when it is long.
        callbacks: The caller's functions, in the order of the stand-ins.
    """

    __slots__ = ("body", "callbacks", "head")

    def __init__(self, head: bytes, body: bytes, callbacks: tuple[callback, ...] = ()) -> None:
        self.head = head
        self.body = body
        self.callbacks = callbacks


def to_json(value: Any) -> bytes:
    """Encode a value that `find_inexact` found to be JSON."""
    try:
        return _encode(value)
    except (ValueError, OverflowError):
        # Lone surrogates (file names may have them) and huge numbers: the standard library's dialect knows them.
        try:
            return _wire.encode_json(value).encode("ascii")
        except ValueError as error:  # an integer of more digits than Python makes text of
            raise PayloadError("args", str(error)) from None


def is_large(value: Any) -> bool:
    """Return whether coding a value may take long; looks at a bounded part of it."""
    if type(value) is tuple:
        for item in value:
            if type(item) not in _ATOMS or (type(item) is str and len(item) > _SHORT):
                break
        else:
            return False
    room = _LOOKED_AT
    size = 0
    pending = [value]
    while pending:
        value = pending.pop()
        kind = type(value)
        if kind is str or kind is bytes:
            size += len(value)
        elif kind is list or kind is tuple or kind is dict or kind is set or kind is frozenset:
            room -= len(value)
            if room >= 0:
                pending.extend(value)
                if kind is dict:
                    pending.extend(value.values())
        elif kind not in _ATOMS:
            # Its insides are unknown: what it is made of counts, one level at a time.
            room -= 10
            inside = getattr(value, "__dict__", None)
            if inside and room >= 0:
                pending.extend(inside.values())
        if size > LARGE or room < 0:
            return True
    return False


def encode_job(job: Job, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any], largest: int) -> Payload:
    """Return a job's payload.

    Args:
        job: Its options; its own arguments are not looked at.
        target: The job's target.
        args: Positional arguments.
        kwargs: Keyword arguments.
        largest: Most bytes a payload may have.

    Raises:
        PayloadError: If a value cannot travel exactly; names its path.
        TargetError: If the arguments do not fit the target's signature.
    """
    target.check_call(args, kwargs)
    plain = job.init is None and job.key is None and job.fixture is None and not job.limits
    if plain and _is_plain(args) and _is_plain(kwargs.values()):
        try:
            body = b'"args":' + _encode(args)
            if kwargs:
                body += b',"kwargs":' + _encode(kwargs)
        except (ValueError, OverflowError):
            body = b'"args":' + to_json(args)
            if kwargs:
                body += b',"kwargs":' + to_json(kwargs)
        # Infinity compares equal to itself; msgspec writes it as null, which is the only null after a float.
        if b"null" not in body or not _has_infinity(args, kwargs):
            _check_size(body, largest)
            head = _head(target)
            if job.convert != "exact":
                head += b'"convert":"%s",' % job.convert.encode()
            return Payload(head, body)
    return _Encoder(job, target).payload(args, kwargs, largest)


def _is_plain(values: Iterable[Any]) -> bool:
    """Return whether all values are atoms that JSON carries as they are; infinities are not looked for."""
    for value in values:  # noqa: SIM110  any() would make a generator for each job
        if type(value) not in _ATOMS or value != value:
            return False
    return True


def _has_infinity(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return any(type(value) is float and value in _INFINITIES for value in (*args, *kwargs.values()))


def _check_size(body: bytes, largest: int) -> None:
    if len(body) > largest:
        raise PayloadTooLarge(
            "args",
            f"{len(body)} bytes are more than max_message_bytes={largest}; write them to a file and pass its path",
        )


def _head(target: Target) -> bytes:
    kind = b"" if target.kind is None else b',"kind":"%s"' % target.kind.encode()
    return b'"target":%s%s,' % (to_json(target.reference), kind)


class _Encoder:
    """Encodes one job whose arguments are not all plain atoms."""

    def __init__(self, job: Job, target: Target) -> None:
        self._job = job
        self._target = target
        self._callbacks: list[callback] = []
        self._places: list[tuple[str, bool]] = []
        self._typed: dict[str, str] = {}

    def payload(self, given: Sequence[Any], named: Mapping[str, Any], largest: int) -> Payload:
        job = self._job
        args = [self._argument(value, f"args[{index}]", index) for index, value in enumerate(given)]
        kwargs = {name: self._argument(value, f"kwargs.{name}", name) for name, value in named.items()}
        head = _head(self._target)
        if job.init is not None:
            init = {name: self._part_of_init(value, name) for name, value in job.init.items()}
            head += b'"init":' + to_json(init) + b","
        if job.convert != "exact":
            head += b'"convert":"%s",' % job.convert.encode()
        if job.limits:
            head += b'"tell":true,'
        if job.key is not None:
            head += b'"key":' + to_json(job.key) + b","
        if job.fixture is not None:
            fixture = {"function": job.fixture.function, "options": job.fixture.options}
            head += b'"fixture":' + to_json(fixture) + b","
            if job.fixture.flavour is not None:
                head += b'"flavour":' + to_json(job.fixture.flavour) + b","
        if self._places:
            head += b'"callbacks":' + to_json(self._places) + b","
        body = b'"args":' + to_json(args)
        if kwargs:
            body += b',"kwargs":' + to_json(kwargs)
        if self._typed:
            body += b',"typed":' + to_json(self._typed)
        _check_size(body, largest)
        return Payload(head, body, tuple(self._callbacks))

    def _argument(self, value: Any, path: str, place: int | str) -> Any:
        """Return what travels in line for an argument: itself, or None when it goes another way."""
        if type(value) in _EXACT:
            return value
        if isinstance(value, callback):
            self._places.append((str(place), value.latest))
            self._callbacks.append(value)
            return None
        found = _wire.find_inexact(value, path)
        hint = self._target.hint_of(place) if self._target.has_hints else None
        if found is None and (hint is None or not _wire.has_tuple(value)):
            return value
        where, problem = found or (path, "")
        if found is not None and (callable(value) or _holds_callable(value, where, path)):
            raise PayloadError(where, _NO_FUNCTION)
        if hint is None or _typed.is_plain(hint):
            if found is None:
                return value
            raise PayloadError(where, f"{problem}; {self._advice(place)}")
        try:
            text = _typed.to_text(value, hint, where)
        except TypeError as error:
            if found is None:
                return value  # a tuple that no annotation carries arrives as a list
            raise PayloadError(where, str(error).removeprefix(f"{where}: ")) from None
        self._typed[str(place)] = text
        return None

    def _advice(self, place: int | str) -> str:
        if self._target.function is None:
            return (
                "a target that is named by a string takes JSON values; give the function itself, whose annotations "
                'say how such a value travels, or send its JSON form with Job(convert="json")'
            )
        return f"annotate the parameter of {self._target.label} with the value's type, or send JSON values"

    def _part_of_init(self, value: Any, name: str) -> Any:
        """Return what travels for one argument of the class; it is not imported here, so nobody knows annotations."""
        path = f"init.{name}"
        if isinstance(value, callback):
            self._places.append((path, value.latest))
            self._callbacks.append(value)
            return None
        found = _wire.find_inexact(value, path)
        if found is None:
            return value
        if callable(value) or _holds_callable(value, found[0], path):
            raise PayloadError(found[0], _NO_FUNCTION)
        raise PayloadError(found[0], f"{found[1]}; the instance is built from JSON values")


def _holds_callable(value: Any, where: str, path: str) -> bool:
    """Return whether what `find_inexact` found inside a value is a function."""
    pending = [value]
    for _ in range(_LOOKED_AT):
        if not pending:
            return False
        value = pending.pop()
        if isinstance(value, callback) or (callable(value) and not isinstance(value, type)):
            return where != path
        if isinstance(value, list | tuple):
            pending.extend(value)
        elif isinstance(value, Mapping):
            pending.extend(value.values())
    return False


def decode_typed(text: str, target: Target) -> Any:
    """Rebuild a result that its annotation carried; by a target's name alone, its JSON form is what there is.

    Raises:
        TypeError: If the annotation here does not fit what the child sent.
    """
    hint = target.hints.get("return")
    return json.loads(text) if hint is None else _typed.from_text(text, hint)


def read_result(frame: _frames.Result, target: Target) -> tuple[Any, str | None]:
    """Return a large result, and its text if its annotation carried it; reads the file that it may be in."""
    if frame.value_file is not None:
        return read_value_file(frame.value_file), None
    typed = frame.typed or "" if frame.typed_file is None else read_value_file(frame.typed_file)
    return decode_typed(typed, target), typed


def write_payload(path: str, payload: Payload) -> None:
    """Write a payload to a file that a child reads."""
    with open(path, "xb") as file:  # never through a link that the child may have put there
        file.write(b"{" + payload.body + b"}")


def read_value_file(path: str) -> Any:
    """Return the JSON value in a file that a child wrote, and remove the file: the child may live for long."""
    try:
        with open_file(path) as file:
            return from_json(file.read())
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def from_json(data: bytes | str) -> Any:
    """Decode a JSON value."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _wire.decode_json(data if isinstance(data, str) else str(data, "utf-8"))
