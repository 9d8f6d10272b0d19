"""Let a cancel end an event handler of the job, and nothing of Playwright with it.

A handler runs in a greenlet of its own. What it raises is caught there if it is an Exception; a JobCancelled would go
on into the task that reads from the driver, and end it. So these greenlets are made to keep it.
"""

from __future__ import annotations

import greenlet  # type: ignore[import-untyped]

from orchestrator.child import JobCancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

# Where Playwright calls what the job registered.
_CALLER = ("_impl_to_api_mapping.py", "wrapper_func")
_NAMES = ("EventGreenlet", "RouteGreenlet", "LocatorHandlerGreenlet", "BindingGreenlet", "WebSocketRouteGreenlet")

_guarded: tuple[type, ...] = ()


def guard() -> None:
    """Have the greenlets of handlers keep a JobCancelled; where Playwright is built otherwise, nothing happens."""
    global _guarded
    if _guarded:
        return
    try:
        from playwright._impl import _greenlets
    except ImportError:
        return
    found = [getattr(_greenlets, name, None) for name in _NAMES]
    _guarded = tuple(each for each in found if isinstance(each, type) and issubclass(each, greenlet.greenlet))
    for kind in _guarded:
        kind.__init__ = _init  # type: ignore[misc]


def _init(self: Any, run: Callable[..., Any], *more: Any) -> None:
    def kept(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except JobCancelled:
            return None  # the handler has ended; the job itself is ended by its pending call

    greenlet.greenlet.__init__(self, kept, *more)


def may_interrupt(current: Any, frame: FrameType | None, off_limits: tuple[str, ...]) -> bool:
    """Return whether a frame is of a handler's own code, with nothing of Playwright between it and the greenlet's end.

    Args:
        current: The greenlet that runs.
        frame: Where it is.
        off_limits: Folders of code that must not be interrupted.
    """
    if not isinstance(current, _guarded):
        return False
    while frame is not None and not frame.f_code.co_filename.startswith(off_limits):
        frame = frame.f_back
    if frame is None:
        return False
    file, name = _CALLER
    return frame.f_code.co_name == name and frame.f_code.co_filename.endswith(file)
