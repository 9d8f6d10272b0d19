"""Start a process on the running loop; the only caller of `open_process`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from orchestrator.exceptions import LaunchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator._pipes import Pipes


class NoSpawn(Exception):
    """Raised when the running loop cannot start processes at all, whatever the command."""


async def spawn(
    command: Sequence[str], pipes: Pipes, *, env: Mapping[str, str], cwd: str | None = None
) -> anyio.abc.Process:
    """Start a process in a session of its own, on the other ends of `pipes`.

    Raises:
        NoSpawn: If this loop cannot spawn.
        LaunchError: If the command cannot be run.
    """
    try:
        return await anyio.open_process(
            command, cwd=cwd, env=env, start_new_session=os.name == "posix", **pipes.arguments
        )
    except OSError as error:
        raise LaunchError(f"cannot start {command[0]}: {error}") from error
    except (NotImplementedError, RuntimeError, ValueError) as error:
        # An old loop's child watcher raises RuntimeError off the main thread, winloop ValueError.
        raise NoSpawn(f"{type(error).__name__}: {error}") from error
