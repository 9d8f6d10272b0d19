"""Logins by name: storage states as files that only their owner can read, kept when the job that made them succeeds."""

from __future__ import annotations

import json
import os
import tempfile
from contextvars import ContextVar

from orchestrator_adapters.playwright._errors import StateMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ("save_state",)


class Keeper:
    """What one attempt wants to keep; only a job that succeeds leaves a new state.

    Args:
        folder: Where named states are.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._waiting: list[tuple[str, str]] = []

    def add(self, path: str, state: Any) -> None:
        """Write a state beside where it will be."""
        self._waiting.append((_write_beside(path, state), path))

    def commit(self) -> None:
        """Put what was written in its place."""
        for written, path in self._waiting:
            os.replace(written, path)
        self._waiting.clear()

    def drop(self) -> None:
        """Forget what was written."""
        for written, _ in self._waiting:
            os.unlink(written)
        self._waiting.clear()


running: ContextVar[Keeper | None] = ContextVar("orchestrator_browser_states", default=None)


def path_of(name: str, folder: str) -> str:
    """Return the file of a named state; a path is that already."""
    if os.path.dirname(name) or name.endswith(".json"):
        return os.path.abspath(name)
    return os.path.join(folder, f"{name}.json")


def load(name: str, folder: str) -> dict[str, Any]:
    """Return a storage state.

    Raises:
        StateMissing: If there is none, or the file is none.
    """
    path = path_of(name, folder)
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        problem = "run a job that logs in and calls save_state(context, name) first"
        raise StateMissing(f"there is no storage state {path!r}: {problem}") from None
    except (OSError, ValueError) as error:
        raise StateMissing(f"the storage state {path!r} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise StateMissing(f"{path!r} is no storage state")
    return found


def save_state(source: Any, name: str, folder: str | os.PathLike[str] | None = None) -> Any:
    """Keep the login of a context, under a name that `BrowserOptions(storage_state=…)` gives to other jobs.

    The file is readable by its owner only. In a browser job it takes its place when the job succeeds, so that a
    login that failed halfway never replaces one that works.

    Args:
        source: A page or context, of the sync or the async API; with the latter, await what this returns.
        name: A name, or the path of a file.
        folder: Where named states are; by default that of the job's `BrowserOptions`.

    Returns:
        The path of the file.
    """
    context = getattr(source, "context", source)
    keeper = running.get()
    place = os.fspath(folder) if folder is not None else keeper.folder if keeper is not None else "states"
    path = path_of(name, os.path.abspath(place))
    state = context.storage_state()
    if hasattr(state, "__await__"):
        return _save_later(state, path, keeper)
    return _save(state, path, keeper)


async def _save_later(state: Any, path: str, keeper: Keeper | None) -> str:
    return _save(await state, path, keeper)


def _save(state: Any, path: str, keeper: Keeper | None) -> str:
    if keeper is not None:
        keeper.add(path, state)
    else:
        os.replace(_write_beside(path, state), path)
    return path


def _write_beside(path: str, state: Any) -> str:
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    # mkstemp gives 0600 from the first moment: a file that is made tighter later was open for a while.
    descriptor, written = tempfile.mkstemp(prefix=f".{os.path.basename(path)}-", dir=folder)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(descriptor)
    return written
