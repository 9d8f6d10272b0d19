"""The supervisor's side of its guardian: start it beside the first child, tell it of all, replace it when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

from orchestrator import _handshake, _launch
from orchestrator._killset import Identity, KillSet
from orchestrator._persist import outlast
from orchestrator._pipes import make_pipes
from orchestrator._spawn import NoSpawn, spawn
from orchestrator.exceptions import LaunchError, SelfSpawnError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import anyio

    from orchestrator._pipes import Pipes
    from orchestrator._recipe import Birth

# It starts in 10 ms. Children wait for it, so one that a busy machine holds up for longer than this is given up.
_ARM = 5.0
# A guardian that was told goodbye has nothing to do; after this something is wrong with it.
_LEAVE = 1.0
# It reads at once whatever it is told. With a thousand births unread it is stopped or stuck, and guards nobody.
_UNREAD = 256 * 1024
# Somebody kills it again and again, or it cannot start here: try less and less often, and forget that after a while.
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0
# Of what it says when it fails: the end of a traceback.
_COMPLAINT = 2000


class Unarmed(Exception):
    """Raised when a guardian ended, or was given up, before it said that it watches."""


class Guardian:
    """Sees to it that the kill sets are emptied if this process dies, however that happens.

    While there is no guardian (it could not be started, or was killed) `guards` is False, and children that start
    then look after themselves as far as they can. The next one is told of all that live.

    Args:
        log: Logs for the supervisor.
        secrets: Names of environment variables that no other process may show.
    """

    def __init__(self, log: Callable[..., None], secrets: Iterable[str] = ()) -> None:
        self._log = log
        self._secrets = tuple(secrets)
        self._living: dict[Identity, bytes] = {}
        self._pipes: Pipes | None = None
        self._process: anyio.abc.Process | None = None
        self._said = b""
        self._complaint = b""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._settled = asyncio.Event()  # it watches, or it is clear that none does for now
        self._closing = False
        self._trial: _handshake.Trial | None = None
        self.guards = False

    @property
    def pid(self) -> int | None:
        """Its process id, while it watches."""
        return self._process.pid if self.guards and self._process is not None else None

    async def expect(self, birth: Birth) -> None:
        """Tell it of a program that will be started when this returns."""
        await self.born(birth)

    def forget(self, birth: Birth) -> None:
        """Tell it that nothing more is to be expected."""
        self.buried(birth)

    async def born(self, birth: Birth) -> None:
        """Tell it of a child; returns when it watches, or when it is clear that none does for now."""
        folder = os.fsencode(birth.temp).hex()
        line = f"born {birth.pid} {birth.started!r} {birth.marker} {folder}\n".encode()
        self._living[Identity(birth.pid, birth.started)] = line
        # Also to one that does not watch yet: what it was told at its start is not all any more.
        self._tell(line)
        if not self.guards and sys.platform != "win32" and not self._closing:
            # Right after the first child's spawn: both start at the same time, and this one is ready first.
            if self._task is None:
                self._task = asyncio.create_task(self._keep(), name="guardian")
            await self._settled.wait()

    def buried(self, birth: Birth) -> None:
        """Tell it that nothing is left of a child."""
        if self._living.pop(Identity(birth.pid, birth.started), None) is not None:
            self._tell(f"buried {birth.pid} {birth.started!r}\n".encode())

    async def aclose(self) -> None:
        """Let it go, as planned."""
        self._closing = True
        if self._task is None:
            return
        if self.guards:
            self._tell(b"bye\n")
            self._arm_timer(_LEAVE)
        else:
            self._task.cancel()
        await outlast(asyncio.ensure_future(asyncio.wait([self._task])))

    def _tell(self, line: bytes) -> None:
        if self._pipes is None:
            return
        self._pipes.write(line)
        if self._pipes.unsent > _UNREAD:
            self._kill()

    def _arm_timer(self, delay: float) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(delay, self._kill)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _keep(self) -> None:
        """Have a guardian, until the end."""
        delay = 0.0
        loop = asyncio.get_running_loop()
        while not self._closing:
            began = loop.time()
            try:
                await self._have_one()
            except (LaunchError, SelfSpawnError, NoSpawn, OSError, Unarmed) as error:
                self._log("guardian.failed", "warning", detail=str(error))
                delay = delay or _FIRST_DELAY
            except BaseException:
                self._settled.set()
                raise
            if loop.time() - began > _LONGEST_DELAY:
                delay = 0.0
            if delay or self._closing:
                self._settled.set()
            if not self._closing:
                await asyncio.sleep(delay)
                delay = min(2 * delay or _FIRST_DELAY, _LONGEST_DELAY)

    async def _have_one(self) -> None:
        """Start a guardian and stay with it to its end.

        Raises:
            LaunchError: If there is no command for it here, or it cannot be run.
            SelfSpawnError: If it would run the program itself.
            NoSpawn: If this loop cannot start processes any more.
            Unarmed: If it ended, or was given up, before it watched.
        """
        self._settled.clear()
        self._said = self._complaint = b""
        launch = _launch.describe_guardian()
        # After a first child it is never on trial; without one, where children are another Python, it is the first.
        self._trial = await _handshake.begin() if launch.is_app else None
        try:
            await self._run(launch)
        finally:
            if self._trial is not None:
                self._trial.end()

    async def _run(self, launch: _launch.Launch) -> None:
        pipes = make_pipes()
        try:
            environment = _launch.guardian_environment(self._secrets)
            # In no folder that somebody may want to unmount.
            self._process = process = await spawn(launch.command, pipes, env=environment, cwd="/")
            pipes.attach(process, self._hear, lambda: None, self._hear_complaint)
            self._pipes = pipes
            me = KillSet(os.getpid(), "").root
            pipes.write(b"".join([f"supervisor {me.pid} {me.started!r}\n".encode(), *self._living.values()]))
            self._arm_timer(_ARM)
            await self._end_of(process)
            await pipes.drain()
        finally:
            watched, self.guards = self.guards, False
            self._pipes = None
            self._settled.clear()
            self._disarm()
            await pipes.aclose()
        if self._closing:
            return
        detail = self._complaint.decode("utf-8", "replace").strip()
        if not watched:
            problem = detail or f"it ended with code {process.returncode} before it watched"
            raise Unarmed(problem) if self._trial is None else self._trial.failed(problem)
        self._log("guardian.lost", "warning", pid=process.pid, exit_code=process.returncode, detail=detail or None)

    async def _end_of(self, process: anyio.abc.Process) -> None:
        cancelled: asyncio.CancelledError | None = None
        while True:
            try:
                await process.wait()
                break
            except asyncio.CancelledError as error:
                # Nobody closes us: the loop ends. Not before this process is reaped.
                cancelled = error
                self._kill()
        if cancelled is not None:
            raise cancelled

    def _hear(self, data: bytes) -> None:
        self._said = (self._said + data)[-64:]
        if not self.guards and b"armed\n" in self._said:
            self._disarm()
            if self._trial is not None:
                self._trial.passed()
            self.guards = True
            self._settled.set()

    def _hear_complaint(self, data: bytes) -> None:
        self._complaint = (self._complaint + data)[-_COMPLAINT:]
