"""A child that runs somebody else's program: no protocol, and what it prints is all that is heard of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from orchestrator import _launch
from orchestrator._child_process import Child
from orchestrator._killset import now
from orchestrator._recipe import Birth
from orchestrator._stderr import StderrReader
from orchestrator.exceptions import LaunchError

if TYPE_CHECKING:
    from anyio.abc import Process

    from orchestrator._handshake import Trial
    from orchestrator._pipes import Pipes
    from orchestrator._recipe import Recipe

# No process has this number, on any system: what is expected is known by its marker alone.
_NOBODY = 2**30


class ForeignChild(Child):
    """A program, its two pipes, its temp folder and its kill set.

    It runs from its first moment on, so those who empty its kill set when this process dies hear of it before that.

    Args:
        name: Label of its temp folder.
        recipe: What it is started with; `command` is the program with its arguments.
        owner: Hears of it.
    """

    def __init__(self, name: str, recipe: Recipe, owner: Any) -> None:
        super().__init__(name, recipe, owner)
        self._stdout = StderrReader(lambda lines, dropped: owner.printed(self, lines, dropped, "stdout"))
        self._expected: Birth | None = None

    def _describe(self) -> _launch.Launch:
        words = [*(self._recipe.command or ())]
        path = find_program(words[0], self._recipe.env, self._recipe.cwd)
        if path is None:
            raise LaunchError(f"there is no program {words[0]!r}")
        return _launch.Launch([path, *words[1:]], "a service names this program")

    def _make_pipes(self) -> Pipes:
        pipes = super()._make_pipes()
        pipes.arguments["stdin"] = subprocess.DEVNULL
        return pipes

    async def _read_secrets(self) -> dict[str, str]:
        # It has no pipe to get them through, and its environment block can be read from outside.
        return {}

    def _flush(self) -> None:
        self._stdout.flush()
        super()._flush()

    async def _prepare(self, marker: str) -> None:
        witness = self._recipe.witness
        if witness is not None:
            owner = self._owner
            birth = Birth(self.name, owner.name, owner.generation, _NOBODY, now(), marker, self.temp)
            self._expected = birth
            if not await self._told(witness.expect(birth)):
                self._came()
                raise LaunchError("it was stopped before it was started")

    async def _begin(self, process: Process, marker: str, trial: Trial | None) -> None:
        assert self._pipes is not None
        self._hold(process, marker)
        self._pipes.attach(process, self._stdout.feed, lambda: None, self.stderr.feed)
        await self._announce(marker)
        self._came()

    async def start(self) -> None:
        """Spawn the process.

        Raises:
            NoSpawn: If this loop cannot spawn.
            LaunchError: If the program cannot be run, or there is no folder for the child.
        """
        try:
            await super().start()
        except BaseException:
            self._came()
            raise

    async def live(self) -> None:
        """Wait for the process to end, then empty its kill set and remove its temp folder."""
        self._came()
        await super().live()

    def _came(self) -> None:
        """What was expected is there, or will not be."""
        if self._expected is not None and self._recipe.witness is not None:
            self._recipe.witness.forget(self._expected)
            self._expected = None


def find_program(program: str, env: Any = None, cwd: str | os.PathLike[str] | None = None) -> str | None:
    """Return the path of a program, from the folder and with the PATH that it will be started with."""
    if os.path.dirname(program):
        program = os.path.join(os.path.abspath(cwd or os.curdir), program)
    path = (env or {}).get("PATH", os.environ.get("PATH"))
    return shutil.which(program, path=path)
