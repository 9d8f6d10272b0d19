"""What gives a job its first argument and stays around its call: made by an adapter, held while the job runs."""

from __future__ import annotations

from _thread import allocate_lock

from orchestrator.child import _target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from orchestrator.child._scope import Scope


class Call:
    """What a fixture's function is told of the attempt that it is for.

    It returns a context manager; the target is called within it, with what `__enter__` (`__aenter__` if `is_async`)
    returned as its first argument, and a generator is drained within it. What `__exit__` raises is the job's error. Of
    a sync job, the manager may have two methods more:

    - `may_interrupt(frame)` is asked in the main thread, which is at that frame, before `JobCancelled` is raised there;
      False means not here, and it is asked again.
    - `interrupt()` is called in another thread when the attempt is to end, and again every 50 ms until it is over: it
      ends what the library waits for. It must not wait for the main thread, which waits for it.

    Attributes:
        function: What will be called: the target, bound if it is a method.
        options: Those of the fixture.
        job: The supervisor's number of the job.
        key: The job's key, or None.
        attempt: Which attempt this is, from 1.
        is_async: The target is an async function or generator, and the manager must be an asynchronous one.
    """

    __slots__ = ("_scope", "attempt", "function", "is_async", "job", "key", "options")

    def __init__(self, frame: dict[str, Any], function: Callable[..., Any], scope: Scope, *, is_async: bool) -> None:
        self.function = function
        self.options: dict[str, Any] = frame["fixture"].get("options") or {}
        self.job: int = frame.get("job", 0)
        self.key: str | None = frame.get("key")
        self.attempt: int = frame.get("attempt", 1)
        self.is_async = is_async
        self._scope = scope

    @property
    def ended_by(self) -> str | None:
        """Why the attempt was asked to end: `cancel`, `timeout`, or None as long as it was not."""
        return self._scope.ended_by


class Hold:
    """A fixture's manager as those see it who are to end the attempt of a sync job."""

    def __init__(self, manager: Any, report: Callable[[str], None]) -> None:
        self._may = getattr(manager, "may_interrupt", None)
        self._interrupt = getattr(manager, "interrupt", None)
        self._report = report
        self._lock = allocate_lock()
        self._over = False

    def may_interrupt(self, frame: FrameType | None) -> bool:
        """Return whether an exception may be raised at a frame of the main thread."""
        if self._may is None or self._over:
            return True
        try:
            return bool(self._may(frame))
        except Exception as error:
            self._complain("may_interrupt", error)
            return False

    def interrupt(self) -> None:
        """End what the library waits for, unless the attempt is over."""
        if self._interrupt is not None:
            with self._lock:
                if not self._over:
                    try:
                        self._interrupt()
                    except Exception as error:
                        self._complain("interrupt", error)

    def _complain(self, what: str, error: Exception) -> None:
        report, self._report = self._report, _nothing
        report(f"the fixture's {what} failed: {type(error).__name__}: {error}")

    def end(self) -> None:
        """Let no interrupt go on, or come, from here on: the next job's must not be hit."""
        with self._lock:
            self._over = True


def _nothing(text: str) -> None:
    pass


def make(frame: dict[str, Any], function: Callable[..., Any], scope: Scope, *, is_async: bool) -> Any:
    """Return the context manager for an attempt."""
    fixture = _target.find(frame["fixture"]["function"]).function
    return fixture(Call(frame, function, scope, is_async=is_async))
