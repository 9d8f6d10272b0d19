"""What every child of one supervisor is started with, and who is told of its birth and its burial."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator._jobobject import JobObjects
from orchestrator._secrets import Secrets
from orchestrator._targets import main_of_host
from orchestrator.exceptions import LaunchError, TargetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator._logs import Logger
    from orchestrator._options import Options

InThread = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Birth:
    """What another process must know to empty a child's kill set.

    Attributes:
        name: The child's label.
        worker: Name of its worker.
        generation: Which child of that worker it is, from 1.
        pid: Its process id.
        started: When it started, on the clock of `_killset.now`.
        marker: What its kill set is known by.
        temp: Its temp folder.
    """

    name: str
    worker: str
    generation: int
    pid: int
    started: float
    marker: str
    temp: str


class Witness(Protocol):
    """Who must know of every child, so that it is not left behind when the supervisor dies.

    Attributes:
        guards: Whether somebody will empty the kill sets when the supervisor is gone; asked after `born`.
    """

    @property
    def guards(self) -> bool: ...

    async def expect(self, birth: Birth) -> None:
        """Take note of a program that is about to be started, and runs at once; its marker is all that is known.

        `forget` takes that back, when it was born or could not be started.
        """

    def forget(self, birth: Birth) -> None:
        """Forget what was expected."""

    async def born(self, birth: Birth) -> None:
        """Take note of a child; awaited after the spawn, before its init frame: until then it runs no user code.

        What this raises ends the child, and is the reason why it did not start.
        """

    def buried(self, birth: Birth) -> None:
        """Forget a child: its kill set is empty, or as empty as it gets, and its temp folder is removed."""


@dataclass(slots=True)
class Recipe:
    """All that every child of a supervisor is started with.

    Attributes:
        init: Members of the init frame, but for secrets.
        secrets: Reads these.
        folder: Makes the supervisor's temp folder, and returns its path.
        in_thread: Runs a blocking function in a thread and returns what it returns.
        start_timeout: Seconds that a start of a frozen app has for saying that it is a child.
        inline: Whether children are to be had without a process; the only thing that changes, once and for all.
        trace: Logs launches and frames, for debugging.
        abandoned: Inline children that were given up, and of which something still runs.
        witness: Is told of every child that is a process.
        job_objects: Makes the Job Objects of children, on Windows.
    """

    command: Sequence[str] | None
    env: Mapping[str, str | None] | None
    env_allow: Sequence[str] | None
    cwd: str | None
    init: Mapping[str, Any]
    secrets: Secrets
    folder: Callable[[], str]
    in_thread: InThread
    start_timeout: float = 60.0
    inline: bool = False
    trace: Callable[..., None] | None = None
    abandoned: set[object] = field(default_factory=set)
    witness: Witness | None = None
    job_objects: JobObjects | None = None

    def make_folder(self, name: str) -> str:
        """Make the temp folder of a child, and return its path.

        Raises:
            LaunchError: If that is not possible.
        """
        try:
            path = os.path.join(self.folder(), name)
            os.mkdir(path, 0o700)
        except OSError as error:
            raise LaunchError(
                f"cannot make a folder for a child: {error}; set TMPDIR to a folder that can be written"
            ) from error
        return path


def main_module() -> dict[str, str] | None:
    """Return how children load this program's main module, or None where they can't."""
    try:
        return main_of_host("")
    except TargetError:
        return None


def recipe_of(
    options: Options,
    folder: Callable[[], str],
    in_thread: InThread,
    logger: Logger,
    witness: Witness | None = None,
) -> Recipe:
    """Return the recipe that a supervisor's options ask for."""
    main = main_module()
    init: dict[str, Any] = {
        "argv": list(sys.argv),
        "max_message_bytes": options.max_message_bytes,
        "preload": list(options.preload),
    }
    if options.params:
        init["params"] = options.params
    if main is not None:
        init["main"] = main
    return Recipe(
        command=options.command,
        env=options.env,
        env_allow=options.env_allow,
        cwd=None if options.cwd is None else os.fspath(options.cwd),
        init=init,
        secrets=Secrets(options.secrets, logger.log, options.start_timeout),  # type: ignore[arg-type]
        folder=folder,
        in_thread=in_thread,
        start_timeout=options.start_timeout,  # type: ignore[arg-type]
        inline=options.isolation == "inline",
        trace=logger.debug if logger.debugging else None,
        witness=witness,
        job_objects=JobObjects(logger.log),
    )
