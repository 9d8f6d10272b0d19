"""Call a job's target with what its frame says, and make the frame that answers."""

from __future__ import annotations

import os
import sys
import time

from orchestrator import _wire
from orchestrator.child import _errors, _fork
from orchestrator.child._scope import JobCancelled, scope_variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from orchestrator.child._scope import Scope
    from orchestrator.child._target import Target

    Call = tuple[Callable[..., Any], list[Any], dict[str, Any]]


class Limits:
    """How large answers may be, and where large ones go.

    Args:
        folder: The child's temp folder, or None when answers never travel as files.
        largest: Largest encoded value in bytes.
    """

    def __init__(self, folder: str | None, largest: int) -> None:
        self.folder = folder
        self.largest = largest


class BadArgument(TypeError):
    """An argument does not fit the annotation of its parameter."""


def prepare(frame: dict[str, Any], target: Target, scope: Scope) -> Call:
    """Return the function and its arguments as they are to be called."""
    if "file" in frame:
        with open(frame["file"], "rb") as file:
            payload = _wire.decode_json(str(file.read(), "utf-8"))
        os.unlink(frame["file"])
    else:
        payload = frame
    args: list[Any] = payload.get("args") or []
    kwargs: dict[str, Any] = payload.get("kwargs") or {}
    convert = frame.get("convert")
    if convert is not None:
        _convert_all(args, kwargs, target, strict=convert != "text")
    typed = payload.get("typed")
    if typed is not None:
        _rebuild(args, kwargs, typed, target)
    callbacks = frame.get("callbacks")
    if callbacks is not None:
        for index, (place, latest) in enumerate(callbacks):
            stand_in = _stand_in(scope, index, latest)
            if place.isdigit():
                args[int(place)] = stand_in
            elif place.startswith("init."):
                frame["init"][place[len("init.") :]] = stand_in
            else:
                kwargs[place] = stand_in
    if target.owner is not None:
        instance = target.owner(**(frame.get("init") or {}))
        return getattr(instance, target.name), args, kwargs
    return target.function, args, kwargs


def _rebuild(args: list[Any], kwargs: dict[str, Any], typed: dict[str, str], target: Target) -> None:
    from orchestrator.child._typed import from_text

    for place, text in typed.items():
        try:
            if place.isdigit():
                args[int(place)] = from_text(text, target.hint_at(int(place)))
            else:
                kwargs[place] = from_text(text, target.hint_for(place))
        except Exception as error:  # also what user code raises that validates on the way in
            raise BadArgument(f"parameter {place}: {type(error).__name__}: {error}") from error


def _convert_all(args: list[Any], kwargs: dict[str, Any], target: Target, *, strict: bool) -> None:
    if not target.hints:
        return
    from orchestrator.child._typed import from_form, is_plain

    def converted(value: Any, hint: Any, name: object) -> Any:
        if hint is None or (strict and is_plain(hint)):
            return value
        try:
            return from_form(value, hint, strict=strict)
        except TypeError as error:
            raise BadArgument(f"parameter {name!r}: {error}") from None

    names = target.parameter_names()
    for index, value in enumerate(args):
        args[index] = converted(value, target.hint_at(index), names[index] if index < len(names) else index)
    for name, value in kwargs.items():
        kwargs[name] = converted(value, target.hint_for(name), name)


def _stand_in(scope: Scope, index: int, latest: bool) -> Callable[..., None]:
    """Return what the job gets in place of the caller's function."""

    def call(*args: Any, **kwargs: Any) -> None:
        scope.call_back(index, args, kwargs, latest=latest)

    return call


def result_line(scope: Scope, value: Any, target: Target, started: float, limits: Limits) -> bytes:
    """Return the frame that says what the target returned, or why that cannot travel."""
    milliseconds = (time.perf_counter() - started) * 1e3
    name = "value"
    try:
        problem = _wire.find_inexact(value, "result")
        typed = None
        if problem is not None or ("return" in target.hints and _wire.has_tuple(value)):
            typed = _typed_result(value, target, problem)
        if typed is not None:
            text, name = _wire.encode_json(typed), "typed"
        else:
            text = _wire.encode_json(value)
        if len(text) > limits.largest:
            largest = f"{len(text)} bytes are more than max_message_bytes={limits.largest}; hand over a file instead"
            return error_line(scope, TypeError(f"result: {largest}"), started, payload="result_too_large")
        if limits.folder is not None and len(text) > _wire.SPILL_BYTES:
            path = os.path.join(limits.folder, f"result-{scope.fence}")
            with open(path, "w", encoding="ascii") as file:
                file.write(text)
            text, name = _wire.encode_json(path), f"{name}_file"
        kept = _kept(scope)
        keep = "" if kept is None else f',"keep":{_wire.encode_json(kept)}'
        return f'{{"type":"result","fence":{scope.fence},"ms":{milliseconds:.3f},"{name}":{text}{keep}}}\n'.encode(
            "ascii"
        )
    except BaseException as error:  # what is in the value may be user code; a full disk or no memory may be the reason
        return error_line(scope, error, started, payload="result")


def _typed_result(value: Any, target: Target, problem: tuple[str, str] | None) -> str | None:
    """Return a value as its annotation carries it; None for a tuple that none carries, which arrives as a list."""
    from orchestrator.child._typed import is_plain, to_text

    hint = target.hints.get("return")
    if problem is None:
        try:
            return to_text(value, hint, "result")
        except TypeError:
            return None
    if hint is None or is_plain(hint):
        where, what = problem
        raise TypeError(f"{where}: {what}; annotate what the target returns, or return JSON values")
    return to_text(value, hint, "result")


def error_line(scope: Scope, error: BaseException, started: float | None, *, payload: str | None = None) -> bytes:
    """Return the frame that says what the target raised, or None for `started` if it never did start."""
    frame: dict[str, Any] = {
        "type": "error",
        "fence": scope.fence,
        "ms": 0.0 if started is None else round((time.perf_counter() - started) * 1e3, 3),
    }
    if scope.cancelled and _is_cancel(error):
        frame["cancelled"] = True
        # Where it was is known from the stack that a cancel can ask for; a traceback would cost 10 ms of imports.
        frame["error"] = _errors.brief(error)
    else:
        frame["error"] = _errors.record(error)
    if scope.host.redactor is not None:
        frame["error"] = scope.host.redactor.value(frame["error"])
    kept = _kept(scope)
    if kept is not None:
        frame["keep"] = kept
    if issubclass(type(error), BadArgument):
        payload = "argument"
    if payload is not None:
        frame["payload"] = payload
    try:
        return _wire.encode(frame)
    except MemoryError:
        head = f'{{"type":"error","fence":{scope.fence},"error":{{"type":"MemoryError",'
        return f'{head}"message":"and none left to say more"}}}}\n'.encode("ascii")


def _is_cancel(error: BaseException) -> bool:
    # By its type: isinstance would ask the exception, which may be hostile.
    kind = type(error)
    if issubclass(kind, JobCancelled):
        return True
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and issubclass(kind, asyncio.CancelledError)


def _kept(scope: Scope) -> list[int] | None:
    """Return which processes must stay when those are killed that a cancelled job started; None when there are none."""
    if not scope.cancelled or not scope.host.resources.roots:
        return None
    from orchestrator.child._resource import living

    return living(scope.host.resources)


def run_sync(
    frame: dict[str, Any], find: Callable[[dict[str, Any]], Target], scope: Scope, limits: Limits
) -> bytes | None:
    """Run a sync or generator target; return the frame that answers, or None when the target turns out to be async.

    Only a child's death lets anything escape.
    """
    started = time.perf_counter()
    token = scope_variable.set(scope)
    try:
        try:
            scope.in_user_code = True
            if scope.cancelled:  # the cancel came before the handler could act on it
                scope.raised = True
                raise JobCancelled("cancelled before it started")
            target = find(frame)
            if target.is_async:
                return None
            if "fixture" in frame:
                target = target.beside_fixture
                value = _call_beside(frame, target, scope)
            else:
                function, args, kwargs = prepare(frame, target, scope)
                if "tell" in frame:
                    scope.host.write(_called(scope))
                started = time.perf_counter()
                value = function(*args, **kwargs)
                if target.kind == "generator":
                    value = _drain(value, scope)
                elif hasattr(value, "__await__"):
                    import asyncio

                    value = asyncio.run(_awaited(value))
        finally:
            scope.in_user_code = False
    except BaseException as error:
        # A cancel may have been raised in the line above, and only there: this makes it the last one.
        scope.in_user_code = False
        if scope.host.copied:
            _fork.end_copy(error)
        return error_line(scope, error, started)
    finally:
        if scope.hold is not None:
            scope.hold.end()
        scope_variable.reset(token)
    if scope.host.copied:
        _fork.end_copy()
    return result_line(scope, value, target, started, limits)


def _call_beside(frame: dict[str, Any], target: Target, scope: Scope) -> Any:
    """Call a sync or generator target within its fixture."""
    from orchestrator.child._fixture import Hold, make

    function, args, kwargs = prepare(frame, target, scope)
    value = None
    manager = make(frame, function, scope, is_async=False)
    scope.hold = Hold(manager, scope.host.report)
    with manager as first:
        if "tell" in frame:
            scope.host.write(_called(scope))
        value = function(first, *args, **kwargs)
        if target.kind == "generator":
            value = _drain(value, scope)
        elif hasattr(value, "__await__"):
            if hasattr(value, "close"):
                value.close()
            raise TypeError("the target returned an awaitable, and is no async function: what decorates it must be one")
    return value


async def _call_beside_async(frame: dict[str, Any], target: Target, scope: Scope) -> Any:
    """Call an async or async-generator target within its fixture."""
    from orchestrator.child._fixture import make

    function, args, kwargs = prepare(frame, target, scope)
    value = None
    async with make(frame, function, scope, is_async=True) as first:
        if "tell" in frame:
            scope.host.write(_called(scope))
        if target.kind == "async_generator":
            await _drain_async(function(first, *args, **kwargs), scope)
        else:
            value = await function(first, *args, **kwargs)
    return value


async def _drain_async(items: Any, scope: Scope) -> None:
    scope.generator = items
    try:
        async for item in items:
            await scope.emit_async(item)
    finally:
        await items.aclose()


def _called(scope: Scope) -> bytes:
    """Return the frame that says that the target is called now: its limits count from here, not from an import."""
    return b'{"type":"started","fence":%d,"called":true}\n' % scope.fence


def _drain(generator: Any, scope: Scope) -> Any:
    try:
        while True:
            try:
                item = next(generator)
            except StopIteration as end:
                return end.value
            scope.emit(item)
    finally:
        generator.close()


async def _awaited(value: Any) -> Any:
    return await value


async def run_async(
    frame: dict[str, Any], find: Callable[[dict[str, Any]], Target], scope: Scope, limits: Limits
) -> bytes | None:
    """Run an async or async-generator target in the current task; return the answer, or None when it is a sync one."""
    started = time.perf_counter()
    scope_variable.set(scope)
    try:
        target = find(frame)
        if not target.is_async:
            return None
        if "fixture" in frame:
            target = target.beside_fixture
            value = await _call_beside_async(frame, target, scope)
        else:
            function, args, kwargs = prepare(frame, target, scope)
            if "tell" in frame:
                scope.host.write(_called(scope))
            started = time.perf_counter()
            value = None
            if target.kind == "async_generator":
                await _drain_async(function(*args, **kwargs), scope)
            else:
                value = await function(*args, **kwargs)
    except BaseException as error:
        if scope.host.copied:
            _fork.end_copy(error)
        return error_line(scope, error, started)
    if scope.host.copied:
        _fork.end_copy()
    return result_line(scope, value, target, started, limits)
