"""Let a frozen app start one child of its own until that has proved to be a child, and no other when it was none.

Whatever else goes wrong, the app does not multiply: its first start is on trial, and while it is, no process of the
same app, this one or the one that it started by mistake, starts another. What is locked for that is the app's own file.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from typing import Any

from orchestrator import _frozen
from orchestrator.exceptions import SelfSpawnError

__all__ = ("Trial", "begin")

# A child says hello within 100 ms, so two apps that are started at the same time hardly notice each other. One that is
# known to look for children goes on after this; another one has nothing to go on with.
_LONGEST_WAIT = 10.0
# The system tells nobody that a file was unlocked, but those who block a thread for it.
_ASK_AGAIN = 0.05
# Windows locks bytes, and keeps others from reading them: beyond the end of any file.
_BEYOND = 0x7FFF_FFF0


class _Proof:
    """What this process knows of its own starts; one for all its supervisors, on whatever threads.

    Attributes:
        proved: A start of this app has been a child.
        failure: Why there will be no other; empty if there may be.
        on_trial: One is being watched.
        waiting: Who wants to be next.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        self.proved = False
        self.failure = ""
        self.on_trial = False
        self.waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []


_proof = _Proof()


class Trial:
    """The right to start this app while nobody else does; `end` it in any case."""

    def __init__(self) -> None:
        self._file: Any = None
        self._ended = False

    def passed(self) -> None:
        """The start has proved to be a child: from now on all may be started."""
        _proof.proved = True
        self.end()

    def failed(self, problem: str) -> SelfSpawnError:
        """Have no other start in this process, and return the error that says why."""
        text = (
            f"{_frozen.executable()!r} was started as a child of its own, and was none: {problem.rstrip()}\nDoes "
            "something before freeze_support() end the program, print, or read its arguments? Make it the first line "
            "of main: `from orchestrator import freeze_support; freeze_support()`"
        )
        if "handshake" in _frozen.GUARDS:
            _proof.failure = text
        return SelfSpawnError(text)

    def end(self) -> None:
        """Let the next one be tried; safe to call twice."""
        if self._ended:
            return
        self._ended = True
        if self._file is not None:
            _unlock(self._file)
        with _proof.lock:
            _proof.on_trial = False
            waiting, _proof.waiting = _proof.waiting, []
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # that loop has ended meanwhile
                loop.call_soon_threadsafe(_wake, future)

    async def lock(self) -> None:
        """Wait until no other process of this app has a start on trial.

        Raises:
            SelfSpawnError: If one has for so long that it will not end well.
        """
        if "handshake" not in _frozen.GUARDS:
            return
        try:
            self._file = _open(_frozen.executable())
        except OSError as error:
            _go_on_without(f"{_frozen.executable()!r} cannot be opened: {error}")
            return
        waited = 0.0
        while not _lock(self._file):
            if waited >= _LONGEST_WAIT:
                _go_on_without("another process of this app is starting its first child, and does not get it")
                return
            await asyncio.sleep(_ASK_AGAIN)
            waited += _ASK_AGAIN


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _go_on_without(problem: str) -> None:
    """Go on without the lock if the app is known to look for children; then it cannot be started again by mistake."""
    if not _frozen.armed():
        raise SelfSpawnError(
            f"{problem}: this may be what that one started by mistake. Make the first line of the app's main "
            "`from orchestrator import freeze_support; freeze_support()`, before other imports"
        )


async def begin() -> Trial | None:
    """Return the right to start this frozen app, or None if it has proved before that its starts are children.

    Waits while another start is on trial, in this process or in another of the same app.

    Raises:
        SelfSpawnError: If a start was none: no other is made.
    """
    while not (_proof.proved or _frozen.is_child()):
        with _proof.lock:
            if _proof.failure:
                raise SelfSpawnError(_proof.failure)
            if not _proof.on_trial:
                _proof.on_trial = True
                break
            loop = asyncio.get_running_loop()
            turn: asyncio.Future[None] = loop.create_future()
            _proof.waiting.append((loop, turn))
        await turn
    else:
        return None
    trial = Trial()
    try:
        await trial.lock()
    except BaseException:
        trial.end()
        raise
    return trial


def _open(path: str) -> Any:
    return open(path, "rb", buffering=0)


def _lock(file: Any) -> bool:
    """Lock a file if nobody else has; True also where that cannot be had."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(_BEYOND)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # Some network file systems have no locks, or none for a file that is only read.
        _go_on_without(f"{_frozen.executable()!r} cannot be locked: {error}")
    return True


def _unlock(file: Any) -> None:
    if sys.platform != "win32":
        import fcntl

        # Said outright: a process that was forked meanwhile shares the lock, and would keep it.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
    file.close()
