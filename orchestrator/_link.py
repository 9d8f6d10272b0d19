"""How callers reach the engine: on their own loop, or on a private thread whose loop can start processes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from orchestrator._engine import Engine
from orchestrator._spawn_loop import new_loop
from orchestrator.exceptions import SupervisorClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import Future

    from orchestrator._models import Event
    from orchestrator._options import Options
    from orchestrator._record import Listener, Record

T = TypeVar("T")


class Link(Protocol):
    """Both ways to reach an engine."""

    engine: Engine

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function run on the engine's loop, at once or soon, in order."""

    async def ask(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a coroutine function on the engine's loop and return what it returns."""
        ...

    def relay(self, listener: Listener) -> Listener:
        """Return a listener for the engine that tells `listener` on the caller's loop."""
        ...

    async def close(self, *, cancel: bool) -> None:
        """Close the engine, and what it runs on."""


class SameLoop:
    """The engine lives on the caller's loop: calls are calls."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def call(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    async def ask(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        return await function(*args)

    def relay(self, listener: Listener) -> Listener:
        return listener

    async def close(self, *, cancel: bool) -> None:
        await self.engine.close(cancel=cancel)


class EngineThread:
    """A daemon thread with an event loop that can start processes, for one engine.

    Args:
        options: The supervisor's options.
    """

    def __init__(self, options: Options) -> None:
        self.engine = Engine(options)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._opened = threading.Event()
        self._problem: BaseException | None = None
        self._finish: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name=f"orchestrator {options.name}", daemon=True)

    @property
    def ident(self) -> int | None:
        """Number of the thread, as `threading.get_ident` gives it."""
        return self._thread.ident

    def start(self) -> None:
        """Start the thread; `wait_opened` waits for the engine."""
        self._thread.start()

    def wait_opened(self) -> None:
        """Wait until the engine is open.

        Raises:
            NoSpawn: If not even the private loop can start processes.
            LaunchError: If no child can be started here.
        """
        self._opened.wait()
        if self._problem is not None:
            self._thread.join()
            raise self._problem

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(self._live())
        except BaseException as error:
            self._problem = error
        finally:
            self._opened.set()

    async def _live(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._finish = asyncio.Event()
        await self.engine.open()
        self._opened.set()
        await self._finish.wait()

    def submit(self, function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:
        """Run a coroutine function on the engine's loop; returns a future for any thread."""
        assert self.loop is not None

        async def body() -> T:
            return await function(*args)

        return asyncio.run_coroutine_threadsafe(body(), self.loop)

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function run on the engine's loop soon."""
        assert self.loop is not None
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            raise SupervisorClosed("the supervisor is closed") from None

    def finish(self) -> None:
        """End the thread; the engine is closed already."""
        if self._finish is not None and self._thread.is_alive():
            with contextlib.suppress(SupervisorClosed):
                self.call(self._finish.set)
        self._thread.join()


class OtherLoop:
    """The engine lives on a thread of its own, its callers on one event loop elsewhere."""

    def __init__(self, thread: EngineThread) -> None:
        self.engine = thread.engine
        self._thread = thread
        self._loop = asyncio.get_running_loop()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        self._thread.call(function, *args)

    async def ask(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        return await asyncio.wrap_future(self._thread.submit(function, *args))

    def relay(self, listener: Listener) -> Listener:
        return _Relay(listener, self._loop)

    async def close(self, *, cancel: bool) -> None:
        async def close() -> None:
            await self.engine.close(cancel=cancel)

        await self.ask(close)
        await self._loop.run_in_executor(None, self._thread.finish)


class _Relay:
    """Tells a listener on its own loop; a loop that is closed does not want to hear any more."""

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        self._listener = listener
        self._loop = loop
        self.wants_events = listener.wants_events

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def settled(self, record: Record) -> None:
        self._tell(self._listener.settled, record)

    def event(self, record: Record, event: Event) -> None:
        self._tell(self._listener.event, record, event)

    def called(self, record: Record, index: int, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        self._tell(self._listener.called, record, index, args, kwargs)
