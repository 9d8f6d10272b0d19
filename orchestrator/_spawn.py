"""Start a process on the running loop; the only caller of `open_process`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from anyio import open_process

from orchestrator.exceptions import LaunchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyio.abc import Process

    from orchestrator._pipes import Pipes


# A group and a console of its own, so that the host's Ctrl+C is the host's alone, and no window for it that pops up.
# Not DETACHED_PROCESS: what stands between us and the child, a venv's python.exe, would open a console for it.
_CREATION_FLAGS = 0
if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW


class NoSpawn(Exception):
    """Raised when the running loop cannot start processes at all, whatever the command."""


def is_capable(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop is of a kind that is known to start processes, for who cannot wait for a first try."""
    kind = type(loop)
    if sys.platform == "win32":
        return kind is asyncio.ProactorEventLoop or kind.__module__.partition(".")[0] == "winloop"
    return kind is asyncio.SelectorEventLoop or kind.__module__.partition(".")[0] == "uvloop"


async def spawn(command: Sequence[str], pipes: Pipes, *, env: Mapping[str, str], cwd: str | None = None) -> Process:
    """Start a process in a session of its own (on Windows a process group), on the other ends of `pipes`.

    Raises:
        NoSpawn: If this loop cannot spawn.
        LaunchError: If the command cannot be run.
    """
    try:
        return await open_process(
            command,
            cwd=cwd,
            env=env,
            start_new_session=os.name == "posix",
            creationflags=_CREATION_FLAGS,
            **pipes.arguments,
        )
    except OSError as error:
        raise LaunchError(f"cannot start {command[0]}: {error}") from error
    except (NotImplementedError, RuntimeError, ValueError) as error:
        # An old loop's child watcher raises RuntimeError off the main thread, winloop ValueError.
        raise NoSpawn(f"{type(error).__name__}: {error}") from error
