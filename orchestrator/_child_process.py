"""One child process from spawn to burial."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from anyio import CancelScope

from orchestrator import _handshake, _launch, _wire
from orchestrator._child_files import open_file
from orchestrator._first_start import FirstStart
from orchestrator._killset import KillSet
from orchestrator._pipes import Pipes, make_pipes
from orchestrator._recipe import Birth
from orchestrator._spawn import spawn
from orchestrator._stderr import StderrReader
from orchestrator.child._redact import Redactor
from orchestrator.exceptions import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from anyio.abc import Process

    from orchestrator._recipe import Recipe

# A child that closed its side of the protocol has this long to be seen dead before it is made so.
_EOF_TO_EXIT = 1.0
# A killed process that waits for a disk or a network drive may stay for ever; nobody waits for it longer than this.
_KILL_TO_EXIT = 1.5
# How long the burial may take: promise 3 gives grace + 2 s in all.
_SWEEP = 1.5
_LOOK_AGAIN = 0.05

# Bytes of a frame that a debug log shows.
_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended, as the system says.

    Attributes:
        code: What it passed to exit, or None.
        signal: Name of the signal that ended it, or None.
    """

    code: int | None
    signal: str | None


class Burial(asyncio.Event):
    """Is set when a dead child's kill set is empty, or as empty as it gets.

    Attributes:
        survivors: Processes of the set that could not be killed.
    """

    survivors: tuple[int, ...] = ()


class ChildOwner(Protocol):
    """Who runs a child and hears of its life, on the loop.

    Attributes:
        name: The worker's name.
        generation: Which child of the worker this is.
    """

    name: str
    generation: int

    def received(self, child: Any, lines: list[bytes], oversized: list[bytes]) -> None:
        """The child wrote lines of the protocol."""

    def printed(self, child: Any, lines: list[str], dropped: int) -> None:
        """Lines came through the stderr pipe."""

    def died(self, child: Any, end: Exit) -> None:
        """The process is gone, and all that it wrote on the protocol was handed over."""

    def is_freed(self) -> None:
        """Nothing of an inline child that was given up runs any more."""


class Child:
    """A process, its pipes, its temp folder and its kill set.

    Args:
        name: Label that `ps` shows.
        recipe: What it is started with.
        owner: Hears of it.

    Attributes:
        closed_early: It closed the protocol although it lived on, and was killed for it.
    """

    def __init__(self, name: str, recipe: Recipe, owner: ChildOwner) -> None:
        self.name = name
        self.pid: int | None = None
        self.temp = ""
        self.nonce = secrets.token_hex(16)
        self.born = time.monotonic()
        self.closed_early = False
        self.killset: KillSet | None = None
        self.survivors: tuple[int, ...] = ()
        self.gone = asyncio.Event()  # the process was seen dead
        self.buried = Burial()  # … and so was everything it started
        self._recipe = recipe
        self._owner = owner
        self._trace = recipe.trace
        self._pipes: Pipes | None = None
        self._lines = _wire.Lines(2 * max(recipe.init["max_message_bytes"], _wire.MAX_MESSAGE_BYTES))
        self.stderr = StderrReader(lambda lines, dropped: owner.printed(self, lines, dropped))
        self._eof_timer: asyncio.TimerHandle | None = None
        self._process: Process | None = None
        self._birth: Birth | None = None
        self._held_back: list[bytes] | None = None  # frames, until it said hello
        self._announcing: asyncio.Future[None] | None = None
        self._killing: asyncio.Event | None = None  # set when the thread that kills strays is done
        self._kill_after = False
        self._give_up_timer: asyncio.TimerHandle | None = None
        self._waiting: CancelScope | None = None
        self._addressed = False  # its first bytes are written: frames may follow
        self._cancelled: asyncio.CancelledError | None = None
        self._secrets: dict[str, str] = {}
        self._reading: asyncio.Future[dict[str, str]] | None = None
        self._redactor = Redactor({})
        self._turn: asyncio.Future[_handshake.Trial | None] | None = None
        self._first: FirstStart | None = None  # it is the first start of this frozen app, and watched

    @property
    def unsent(self) -> int:
        return 0 if self._pipes is None else self._pipes.unsent

    async def start(self) -> None:
        """Spawn the process and send it the first bytes.

        Raises:
            NoSpawn: If this loop cannot spawn.
            LaunchError: If the command cannot be run, or there is no folder for the child.
        """
        launch = self._describe()
        trial = await self._await_turn() if launch.is_app else None
        try:
            await self._start(launch, trial)
        finally:
            if trial is not None:
                trial.end()

    async def _await_turn(self) -> _handshake.Trial | None:
        """Wait until this app may be started, while others of its starts are on trial."""
        self._turn = asyncio.ensure_future(_handshake.begin())
        try:
            return await self._turn
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise LaunchError("it was stopped before it was its turn") from None
        finally:
            self._turn = None

    async def _start(self, launch: _launch.Launch, trial: _handshake.Trial | None) -> None:
        self._secrets = await self._read_secrets()
        self._redactor = self._recipe.secrets.redactor(self._secrets)
        self.stderr.redact = self._redactor.text
        if self._trace is not None:
            self._trace("child.launched", command=launch.command, reason=launch.reason)
        self.temp = self._recipe.make_folder(self.name)
        marker = secrets.token_hex(8)
        env = _launch.environment(self._recipe.env, self._recipe.env_allow, marker, command=self._recipe.command)
        for name in self._recipe.secrets.names:
            if name not in (self._recipe.env or {}):
                env.pop(name, None)  # it goes over the pipe: an environment block can be read from outside
        for name in ("TMPDIR", "TEMP", "TMP"):
            if name not in (self._recipe.env or {}):
                env[name] = self.temp
        try:
            self._pipes = self._make_pipes()
            await self._prepare(marker)
            self._process = await spawn(launch.command, self._pipes, env=env, cwd=self._recipe.cwd)
        except BaseException:
            if self._pipes is not None:
                await self._pipes.aclose()
            shutil.rmtree(self.temp, ignore_errors=True)
            raise
        try:
            await self._begin(self._process, marker, trial)
        except asyncio.CancelledError as error:
            # `live` is next; it ends with the child's death, and then raises this.
            self._cancelled = error
            self.kill()
        except Exception as error:
            if self.killset is None:
                self._process.kill()
            self.kill()
            await self._end()
            if isinstance(error, LaunchError):
                raise
            raise LaunchError(f"cannot start a child: {type(error).__name__}: {error}") from error

    # What another kind of child does otherwise

    def _describe(self) -> _launch.Launch:
        return _launch.describe(self._recipe.command)

    def _make_pipes(self) -> Pipes:
        return make_pipes()

    def _flush(self) -> None:
        """Pass on what it wrote last."""
        self.stderr.flush()

    async def _prepare(self, marker: str) -> None:
        """Do what has to be done right before the spawn."""

    async def _read_secrets(self) -> dict[str, str]:
        self._reading = asyncio.ensure_future(self._recipe.secrets.read())
        try:
            return await self._reading
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise LaunchError("it was stopped before its secrets were read") from None
        finally:
            self._reading = None

    async def _begin(self, process: Process, marker: str, trial: _handshake.Trial | None) -> None:
        """Send the first bytes; user code runs only when everybody who must know of this process knows."""
        assert self._pipes is not None
        killset = self._hold(process, marker)
        if killset.job_object is not None:
            self._held_back = []
        self._pipes.attach(process, self._received, self._ended, self.stderr.feed)
        self._pipes.write(_launch.preamble(self.nonce, own=self._recipe.command is None))
        self._addressed = True
        if trial is not None:
            self._first = FirstStart(trial, self._recipe.start_timeout)
            if not await self._first.watch(process, self._pipes, self.stderr):
                return  # killed before it could say hello
        if not await self._announce(marker):
            return
        witness = self._recipe.witness
        init: dict[str, Any] = {"type": "init", "version": _wire.VERSION, "temp": self.temp}
        if self._secrets:
            init["secrets"] = self._secrets
        init |= self._recipe.init
        if killset.job_object is None and (witness is None or not witness.guards):
            init["parent"] = os.getpid()
        self.send(init)

    def _hold(self, process: Process, marker: str) -> KillSet:
        """Know the process, and all that it will start."""
        self.pid = process.pid
        objects = self._recipe.job_objects
        self.killset = KillSet(self.pid, marker, job_object=None if objects is None else objects.hold(self.pid))
        return self.killset

    async def _announce(self, marker: str) -> bool:
        """Have everybody know of the process who must; False when it was killed before that."""
        witness = self._recipe.witness
        if witness is None:
            return True
        assert self.killset is not None
        root, owner = self.killset.root, self._owner
        self._birth = Birth(self.name, owner.name, owner.generation, root.pid, root.started, marker, self.temp)
        return await self._told(witness.born(self._birth))

    async def _told(self, telling: Coroutine[Any, Any, None]) -> bool:
        """Wait until a witness knows something; False when this was killed before: it may wait for a full disk."""
        self._announcing = asyncio.ensure_future(telling)
        try:
            await self._announcing
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            return False
        return True

    def said_hello(self, pid: int) -> None:
        """Send what it was not to get before all that runs user code is in the job.

        A venv's `python.exe` on Windows, or the program of a frozen app, starts another one that is the child. It may
        have done so before it was put into the job itself; then the other one is put in now.
        """
        if self._first is not None:
            self._first.said_hello()
        if self._held_back is None:
            return
        assert self.killset is not None
        try:
            if pid != self.pid:
                self.killset.adopt(pid)
        except OSError as error:
            if self._recipe.job_objects is not None:
                self._recipe.job_objects.refused(error)
        frames, self._held_back = self._held_back, None
        for data in frames:
            self.deliver(data)

    async def live(self) -> None:
        """Wait for the process to end, then empty its kill set and remove its temp folder."""
        await self._end(lambda end: self._owner.died(self, end))
        if self._cancelled is not None:
            raise self._cancelled

    async def _end(self, died: Callable[[Exit], None] = lambda end: None) -> None:
        assert self._pipes is not None
        code = await self._exit_code()
        for timer in (self._eof_timer, self._give_up_timer):
            if timer is not None:
                timer.cancel()
        await self._pipes.drain()
        self._flush()
        self.gone.set()
        died(Exit(None, None) if code is None else _read_code(code))
        try:
            if self._killing is not None:
                await self._killing.wait()
            # The sweep has seen those again that were found before.
            self.survivors = self.buried.survivors = await self._recipe.in_thread(self._bury)
        finally:
            await self._pipes.aclose()
            if self.killset is not None:
                self.killset.close()
            if self._birth is not None and self._recipe.witness is not None:
                self._recipe.witness.buried(self._birth)
            self.buried.set()

    async def _exit_code(self) -> int | None:
        """Wait for the exit; None when the process cannot be killed."""
        assert self._process is not None
        while True:
            try:
                with CancelScope(shield=True) as self._waiting:
                    return await self._process.wait()
                return None
            except asyncio.CancelledError as error:
                # The engine is being torn down: nothing may be left behind, so this ends with the child's death.
                self._cancelled = error
                self.kill()

    def _give_up(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def _bury(self) -> tuple[int, ...]:
        survivors: tuple[int, ...] = ()
        end = time.monotonic() + _SWEEP
        while self.killset is not None:
            try:
                survivors = self.killset.sweep(max(0.0, end - time.monotonic()))
                break
            except OSError:
                # The host has no file descriptor left to look with, for now perhaps: the next one may be ours.
                if time.monotonic() >= end:
                    break
                time.sleep(_LOOK_AGAIN)
        shutil.rmtree(self.temp, ignore_errors=True)
        return survivors

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame."""
        self.deliver(_wire.encode(frame))

    def deliver(self, data: bytes) -> None:
        """Send whole frames, encoded; nobody can have anything to say to a child that is not there yet."""
        # An answer for the one before it, say, that came late: it would stand before the first bytes.
        if not self._addressed:
            return
        if self._held_back is not None:
            self._held_back.append(data)
            return
        if self._trace is not None:
            self._trace("child.frames_sent", child=self.name, frames=self._readable(data))
        if self._pipes is not None:
            self._pipes.write(data)

    def end_input(self) -> None:
        """Close its stdin: a child takes that for the end of its parent and leaves."""
        if self._pipes is not None:
            self._pipes.end_input()

    def kill(self) -> None:
        """Kill the process and what it started; `buried` tells when all is gone."""
        if self._reading is not None:
            self._reading.cancel()
        for waiting in (self._turn, self._first, self._announcing):
            if waiting is not None:
                waiting.cancel()
        if self._killing:
            self._kill_after = True  # a thread has the kill set; it is back soon
        elif self.killset is not None and not self.gone.is_set():
            self.killset.kill_now()
            if self._give_up_timer is None:
                self._give_up_timer = asyncio.get_running_loop().call_later(_KILL_TO_EXIT, self._give_up)

    async def kill_started_since(self, moment: float, keep: Collection[int], timeout: float) -> tuple[int, ...]:
        """Kill the descendants that were started since a moment, except some; the process itself lives on.

        Returns:
            Those that could not be killed.
        """
        if self.killset is None or self.gone.is_set():
            return ()
        self._killing = asyncio.Event()
        try:
            left: tuple[int, ...] = await self._recipe.in_thread(self.killset.kill_started_since, moment, keep, timeout)
            self.survivors = tuple({*self.survivors, *left})
            return left
        finally:
            killing, self._killing = self._killing, None
            killing.set()
            if self._kill_after:
                self.kill()

    def terminate(self) -> None:
        """Ask the process, and its group, to end."""
        if self.killset is not None and not self.gone.is_set():
            self.killset.terminate()

    def stack_path(self) -> str:
        """Where the child's stack goes when `dump_stack` is called."""
        return os.path.join(self.temp, _wire.STACK_FILE)

    def dump_stack(self) -> None:
        """Have the interpreter write its stack to `stack_path`, by a C handler: also when it holds the GIL."""
        if sys.platform == "win32" or self.killset is None or not os.path.exists(self.stack_path()):
            return  # one of another kind, which may not know the signal, and would die of it
        if self.killset.root_lives():
            # It is ours to reap, and the reaper is this process: no other can have its pid now.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.killset.root.pid, signal.SIGUSR2)

    def running_fence(self) -> int | None:
        """Return the fence of the last attempt that a dead plain child began, 0 for none, None if it kept no note."""
        try:
            with open_file(os.path.join(self.temp, _wire.RUNNING_FILE)) as file:
                text = file.read(32).split(b"\n", 1)[0]
        except OSError:
            return None
        return int(text) if text.strip().isdigit() else 0

    def _received(self, data: bytes) -> None:
        if self._first is not None and self._first.is_foreign(data):
            return
        lines, oversized = self._lines.feed(data)
        if self._trace is not None:
            for line in lines:
                self._trace("child.frame_received", child=self.name, frame=self._readable(line))
        if lines or oversized:
            self._owner.received(self, lines, oversized)

    def _readable(self, data: bytes) -> str:
        """Return the beginning of what travels, for a log: without secrets."""
        text = self._redactor.text(data[: 8 * _SHOWN].decode("utf-8", "backslashreplace"))
        return text if len(data) <= _SHOWN else f"{text[:_SHOWN]}… ({len(data)} bytes)"

    def _ended(self) -> None:
        """Its side of the protocol is closed: it is dying, or user code closed what is not its own."""
        self._eof_timer = asyncio.get_running_loop().call_later(_EOF_TO_EXIT, self._kill_the_silent)

    def _kill_the_silent(self) -> None:
        self.closed_early = True
        self.kill()


def _is_cancelled() -> bool:
    """Return whether the running task itself was cancelled, and not what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _read_code(code: int) -> Exit:
    if code >= 0:
        return Exit(code, None)
    try:
        return Exit(None, signal.Signals(-code).name)
    except ValueError:
        return Exit(None, f"signal {-code}")
