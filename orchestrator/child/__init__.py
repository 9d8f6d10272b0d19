"""What job code may import: progress, logs, items, artefacts, effects, permits, cache and resources of the running job.

Outside a child every function is a no-op or a local equivalent, so job code runs and is tested without a supervisor.
"""

from __future__ import annotations

from orchestrator.child import _scope
from orchestrator.child._scope import JobCancelled, current, local_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import Any, TypeVar

    from orchestrator.child._cache import Cache
    from orchestrator.child._effect import Effect
    from orchestrator.child._fixture import Call
    from orchestrator.child._permit import Permit

    T = TypeVar("T")

__all__ = (
    "Call",
    "JobCancelled",
    "artifact",
    "cache",
    "effect_begin",
    "effect_done",
    "emit",
    "load_main",
    "log",
    "params",
    "permit",
    "progress",
    "ready",
    "resource",
    "stop_requested",
    "usage",
)


def __getattr__(name: str) -> object:
    if name != "Call":
        raise AttributeError(f"module 'orchestrator.child' has no attribute {name!r}")
    from orchestrator.child._fixture import Call

    return Call


def progress(done: float, total: float | None = None, text: str = "") -> None:
    """Report how far the job is; cheap enough for tight loops: at most 20 reports a second leave, the latest always.

    Args:
        done: Units done so far.
        total: Units in all, if known.
        text: What is being done.
    """
    scope = current()
    if scope is not None:
        scope.progress(done, total, str(text))


def log(text: str, level: str = "info", **fields: Any) -> None:
    """Send one structured log event of this job; `fields` are JSON values (others are sent as their `repr`)."""
    scope = current() or _scope.service
    if scope is not None:
        scope.log(str(text), level, fields)


def emit(value: Any) -> None:
    """Send one item to whoever reads the job's events; waits while 16 items are unread.

    Raises:
        TypeError: If JSON cannot carry the value exactly, or it is larger than `max_message_bytes`.
    """
    scope = current()
    if scope is not None:
        scope.emit(value)


def load_main() -> None:
    """Load the program's main script (or `-m` module) here, once, as `__mp_main__`; `__main__` is that one then.

    A job whose target is in it finds it loaded. Others need this before they rebuild a value that names `__main__`.
    Outside a child there is nothing to do.

    Raises:
        ImportError: If it cannot be loaded a second time: there is none, or it is a page, a notebook or a frozen app.
    """
    scope = current()
    host = _scope.host if scope is None else scope.host
    if host is not None:
        host.load_main()


def artifact(path: str | PathLike[str], name: str | None = None) -> None:
    """Name a file that the job made, or a folder that it will fill; see `Outcome.artifacts`.

    It must lie outside the child's temporary folder, which is deleted. What is in a folder counts when the attempt has
    ended, however it ended, crashed and killed included.

    Args:
        path: The file or folder.
        name: How users shall know it: instead of a file's own name, or in front of the names of files in a folder
            (`shots` makes `shots/1.png`).

    Raises:
        FileNotFoundError: If there is no such file or folder.
    """
    scope = current()
    if scope is not None:
        scope.artifact(path, name)


def cache(name: str) -> Cache:
    """Return the cache `name`, which all jobs of the supervisor share: see `get_or_compute` and `get_many`.

    Outside a child it is a dictionary of the process.
    """
    from orchestrator.child._cache import Cache

    return Cache(name)


def effect_begin(key: str) -> Effect:
    """Say that an outside effect (a post, a payment) begins; returns when the supervisor has noted it.

    For jobs with `effects="external"`: one that dies before `effect_done` is not simply run again, for nobody knows
    whether the effect happened. In an async job, `await child.effect_begin(key)`.

    Args:
        key: Name of the effect within the job, the same in every attempt.

    Returns:
        An object whose `done` is true when the effect happened in an earlier attempt (leave it out then), with the
        `ref` of that time.
    """
    from orchestrator.child._effect import begin

    return begin(current(), key)


def effect_done(key: str, ref: Any = None) -> None:
    """Say that the effect has happened; `ref`, a JSON value, is given to later attempts (an id, say).

    Raises:
        TypeError: If JSON cannot carry `ref` exactly.
    """
    from orchestrator.child._effect import done

    done(current(), key, ref)


def params() -> dict[str, Any]:
    """Return what the supervisor was given as `params`, a copy; outside a child an empty dictionary."""
    scope = current()
    return (_scope.local_params if scope is None else scope.host.params).read()


def permit(name: str, weight: float = 1, *, timeout: float | None = None, **units: float) -> Permit:
    """Return a context manager, `with` or `async with`, that holds a permit of the supervisor's limit `name`.

    Args:
        name: The limit.
        weight: Units of it.
        timeout: Seconds. If the permit cannot be had by then, entering raises `TimeoutError`, as soon as that is known.
        units: Of the limit's dimensions, as far as they can be estimated (`tokens=500`); `report` corrects them.
    """
    from orchestrator.child._permit import Permit

    return Permit(current(), name, weight, timeout, units)


def ready() -> None:
    """Say that this service is ready, if it was declared with `ready="message"`; it may be said again."""
    if _scope.service is not None:
        _scope.service.host.write(b'{"type":"serving"}\n')


def resource(name: str, factory: Callable[[], T]) -> T:
    """Return the child's resource `name`, made by `factory` at first use and kept for the child's life.

    What it returns is closed (`aclose` or `close`) when the child stops as planned. For an async factory the result
    is an awaitable. Outside a child it is kept for the life of the process.
    """
    scope = current()
    resources = local_resources if scope is None else scope.host.resources
    from orchestrator.child._resource import obtain

    made: T = obtain(resources, name, factory)
    return made


def usage(**counts: float) -> None:
    """Add to what this job has used, such as `prompt=120, output=30` tokens; see `Outcome.usage`.

    It is told at once, so what an attempt used counts even if its child dies before it is done.

    Raises:
        TypeError: If one is no number.
        ValueError: If one is infinite, `nan`, or so large that nobody could add it up.
    """
    scope = current()
    if scope is not None:
        scope.usage(counts)


def stop_requested() -> bool:
    """Return whether the job, or the service, was asked to end: by a cancel, a timeout, or a supervisor that stops."""
    scope = current() or _scope.service
    return scope is not None and scope.stop_requested()
