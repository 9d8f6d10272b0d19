"""A child without a process that speaks frames in memory, word for word as a script tells it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection
from typing import Any

from orchestrator import _wire
from orchestrator._child_process import Burial, Exit
from orchestrator._stderr import StderrReader

Frame = dict[str, Any]

PID = 2**22 + 1  # no process can have it on Linux


class FakeChild:
    """What a worker needs of a child, without a process.

    Attributes:
        script: Called with the child and each frame that it gets, `init` first; a new child says hello before that.
        heard: All frames that it got.
    """

    script: Callable[[FakeChild, Frame], None]
    made: list[FakeChild]

    def __init__(self, name: str, recipe: Any, owner: Any) -> None:
        self.name = name
        self.recipe = recipe
        self.pid: int | None = PID
        self.temp = ""
        self.nonce = f"nonce of {name}"
        self.born = time.monotonic()
        self.closed_early = False
        self.killset = None
        self.survivors: tuple[int, ...] = ()
        self.unsent = 0
        self.gone = asyncio.Event()
        self.buried = Burial()
        self.heard: list[Frame] = []
        self.running: int | None = None
        self.stderr = StderrReader(lambda lines, dropped: owner.printed(self, lines, dropped))
        self._owner = owner
        self._end: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.made.append(self)

    # As a script uses it

    def say(self, *frames: Frame | bytes) -> None:
        """Write frames (or whatever bytes) in one go, soon: after what is being handled now."""
        asyncio.get_running_loop().call_soon(self.say_now, *frames)

    def say_now(self, *frames: Frame | bytes) -> None:
        if not self.gone.is_set():
            lines = [frame if isinstance(frame, bytes) else json.dumps(frame).encode() for frame in frames]
            self._owner.received(self, lines, [])

    def hello(self) -> None:
        self.say({"type": "hello", "version": _wire.VERSION, "nonce": self.nonce, "pid": PID}, {"type": "ready"})

    def end(self, code: int | None = None, signal: str | None = None) -> None:
        """Die, soon, after what was said before."""
        asyncio.get_running_loop().call_soon(self.end_now, code, signal)

    def end_now(self, code: int | None = None, signal: str | None = None) -> None:
        if not self._end.done():
            self._end.set_result(Exit(code, signal))

    # As a worker uses it

    async def start(self) -> None:
        self._hear({"type": "init"})

    def _hear(self, frame: Frame) -> None:
        if self._end.done():
            return  # the dead hear nothing, whatever is still written to them
        self.heard.append(frame)
        if frame["type"] == "stop":
            self.end(0)
        self.script(frame)

    async def live(self) -> None:
        while not self._end.done():
            try:
                await asyncio.shield(self._end)
            except asyncio.CancelledError:
                self.kill()
                await asyncio.sleep(0)
        self.gone.set()
        self._owner.died(self, self._end.result())
        self.buried.set()

    def said_hello(self, pid: int) -> None: ...

    def deliver(self, data: bytes) -> None:
        for line in data.splitlines():
            self._hear(json.loads(line))

    write = deliver

    def send(self, frame: Frame) -> None:
        self._hear(json.loads(_wire.encode(frame)))

    def end_input(self) -> None:
        self.end(_wire.EXIT_PARENT_GONE)

    def kill(self) -> None:
        self.end(signal="SIGKILL")

    def terminate(self) -> None:
        self.end(signal="SIGTERM")

    async def kill_started_since(self, moment: float, keep: Collection[int], timeout: float) -> tuple[int, ...]:
        """It has no descendants."""
        return ()

    def dump_stack(self) -> None:
        """It has no stack."""

    def stack_path(self) -> str:
        return "/nowhere"

    def running_fence(self) -> int | None:
        return self.running
