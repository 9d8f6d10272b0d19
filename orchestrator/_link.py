"""How callers reach the engine: on their own loop, or on a private thread whose loop can start processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from orchestrator._engine import Engine
from orchestrator._persist import outlast
from orchestrator._spawn import NoSpawn
from orchestrator._spawn_loop import new_loop
from orchestrator.exceptions import LaunchError, SupervisorClosed, WrongContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import Future

    from orchestrator._events import Event
    from orchestrator._options import Options
    from orchestrator._record import Listener, Record
    from orchestrator._statistics import Statistics

T = TypeVar("T")

# Ctrl-C does not end a wait for a lock on Windows, and nowhere one that begins in the moment after it: waits
# are cut into pieces, between which it is seen.
PIECE = 0.2 if sys.platform == "win32" else 1.0
# What heeds its cancel does so within milliseconds.
_TO_END = 0.5


class Link(Protocol):
    """Both ways to reach an engine."""

    engine: Engine

    @property
    def has_space(self) -> bool:
        """Whether the queue takes another job without waiting."""
        ...

    def is_full(self) -> bool:
        """Return whether the queue takes no job now; may wait for the engine's thread a moment to be sure."""
        ...

    def accept(self, record: Record) -> None:
        """Hand a job over."""

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function run on the engine's loop, at once or soon, in order."""

    async def ask(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a coroutine function on the engine's loop and return what it returns."""
        ...

    def relay(self, listener: Listener) -> Listener:
        """Return a listener for the engine that tells `listener` on the caller's loop."""
        ...

    def statistics(self) -> Statistics:
        """Return a snapshot whose numbers belong together."""
        ...

    async def close(self, *, cancel: bool) -> None:
        """Close the engine, and what it runs on."""

    def abandon(self) -> None:
        """Kill everything: the caller's loop is gone, and nobody will close the engine."""


class SameLoop:
    """The engine lives on the caller's loop: calls are calls."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.accept = engine.accept

    @property
    def has_space(self) -> bool:
        return self.engine.has_space

    def is_full(self) -> bool:
        return not self.engine.has_space

    def call(self, function: Callable[..., object], *args: Any) -> None:
        self.engine.guarded(function, *args)

    async def ask(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        return await function(*args)

    def relay(self, listener: Listener) -> Listener:
        return listener

    def statistics(self) -> Statistics:
        return self.engine.statistics()

    async def close(self, *, cancel: bool) -> None:
        await self.engine.close(cancel=cancel)

    def abandon(self) -> None:
        self.engine.kill_now()


class EngineThread:
    """A daemon thread with an event loop that can start processes, for one engine; its methods are for other threads.

    Args:
        options: The supervisor's options.
    """

    def __init__(self, options: Options) -> None:
        self.engine = Engine(options, is_last=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finish = asyncio.Event()
        # Guards the end: what was handed to the loop before it runs, what comes later is refused. Reentrant, for a
        # finaliser may call from within a call.
        self._lock = threading.RLock()
        self._finishing = self._over = False
        self._opened = threading.Event()
        self._problem: BaseException | None = None
        # Jobs that were handed over, and those of them that have arrived: what is on its way needs space too.
        self._sent = self._arrived = 0
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._main, name=f"orchestrator {options.name}", daemon=True)

    # Life

    def start(self) -> None:
        """Start the thread; `wait_opened` waits for the engine."""
        self._thread.start()

    def wait_opened(self) -> None:
        """Wait until the engine is open.

        Raises:
            NoSpawn: If not even the private loop can start processes.
            LaunchError: If no child can be started here.
        """
        while not self._opened.wait(PIECE):
            pass
        if self._problem is not None:
            self._thread.join()
            raise self._problem

    def finish(self) -> None:
        """End the thread and wait for that; an engine that is not closed yet is closed, and its jobs are cancelled."""
        with self._lock:
            self._finishing = True  # seen by a thread that has no loop yet
        with contextlib.suppress(SupervisorClosed):
            self.call(self._finish.set)
        while self._thread.is_alive():
            self._thread.join(PIECE)

    def abandon(self) -> None:
        """End the thread soon, and kill what it runs."""
        with self._lock:
            self._finishing = True
        with contextlib.suppress(SupervisorClosed):
            self.call(self.engine.kill_now)
            self.call(self._finish.set)

    def _main(self) -> None:
        try:
            loop = new_loop()
            try:
                with self._lock:
                    self._loop = loop
                loop.run_until_complete(self._live())
            finally:
                with self._lock:
                    self._over = True
                try:
                    loop.run_until_complete(_end_tasks(loop))
                finally:
                    loop.close()
        except BaseException as error:
            self._problem = error
        finally:
            self._opened.set()

    async def _live(self) -> None:
        if self._finishing:  # whoever wanted it was interrupted
            return
        await self.engine.open()
        self._opened.set()
        if not self._finishing:
            await self._finish.wait()
        await self.engine.close(cancel=True)
        with self._lock:
            self._over = True
        # Whatever was handed over before that is in the loop's line already, ahead of this task.
        await asyncio.sleep(0)

    # Reaching the engine

    @property
    def has_space(self) -> bool:
        """Whether the queue takes another job without waiting."""
        return self.engine.jobs.queued + self._sent - self._arrived < self.engine.options.queue_size

    def is_full(self) -> bool:
        """Return whether the queue takes no job now."""

        async def look() -> bool:
            return not self.has_space

        # From here a job that the engine is just taking is counted twice; on its own thread nobody is taking one.
        return not self.has_space and self.wait(look)

    def accept(self, record: Record) -> None:
        """Hand a job over.

        Raises:
            SupervisorClosed: If the thread has ended or is about to.
        """
        with self._lock:
            self.call(self._arrive, record)
            self._sent += 1

    def offer(self, record: Record) -> bool:
        """Hand a job over if the queue takes it without waiting; returns whether it did."""
        with self._lock:
            if not self.has_space:
                return False
            self.accept(record)
        return True

    def _arrive(self, record: Record) -> None:
        self.engine.accept(record)
        self._arrived += 1

    def check_caller(self) -> None:
        """Raise WrongContext where a wait for the engine would never end."""
        self.check_process()
        # Once it has ended, another thread may have its number.
        if threading.get_ident() == self._thread.ident and self._thread.is_alive():
            raise WrongContext("called on the supervisor's own thread, which would wait for itself")

    def check_process(self) -> None:
        # Before any lock is asked for: a thread that does not exist in the copy may have held it.
        if os.getpid() != self._pid:
            raise WrongContext("this process is a forked copy of the one that opened the supervisor; open one here")

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function run on the engine's loop soon, in order.

        Raises:
            SupervisorClosed: If the thread has ended or is about to; the function will not run.
        """
        self.check_process()
        with self._lock:
            self._running_loop().call_soon_threadsafe(self.engine.guarded, function, *args)

    def submit(self, function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:
        """Run a coroutine function on the engine's loop; returns a future for any thread.

        Raises:
            SupervisorClosed: If the thread has ended or is about to.
        """

        async def body() -> T:
            return await function(*args)

        with self._lock:
            loop = self._running_loop()
            return asyncio.run_coroutine_threadsafe(body(), loop)

    def wait(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a coroutine function on the engine's loop and wait for what it returns, open to Ctrl-C."""
        self.check_caller()
        # A bare lock: Ctrl-C in the midst of a future's or an event's own code could leave that locked, and the engine
        # would wait for it.
        over = threading.Lock()
        over.acquire()
        tasks: list[asyncio.Future[T]] = []

        def begin() -> None:
            tasks.append(asyncio.ensure_future(function(*args)))
            tasks[0].add_done_callback(lambda _: over.release())

        self.call(begin)
        while not over.acquire(timeout=PIECE):
            pass
        try:
            return tasks[0].result()
        except asyncio.CancelledError:
            raise SupervisorClosed("the supervisor was closed meanwhile") from None

    def statistics(self) -> Statistics:
        """Return a snapshot, also of an engine that is closed; taken on its loop, where no number changes meanwhile."""

        async def look() -> Statistics:
            return self.engine.statistics()

        try:
            return self.wait(look)
        except SupervisorClosed:
            return self.engine.statistics()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._over:
            raise SupervisorClosed("the supervisor is closed")
        return self._loop


async def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """End what is left on a loop, as far as it heeds that: an inline job may not."""
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_TO_END)
    await asyncio.wait([loop.create_task(loop.shutdown_asyncgens())], timeout=_TO_END)


class OtherLoop:
    """The engine lives on a thread of its own, its callers on one event loop elsewhere."""

    def __init__(self, thread: EngineThread) -> None:
        self.engine = thread.engine
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self.accept = thread.accept
        self._closing = False
        # Who ends a loop cancels its tasks: that is how an engine elsewhere hears of it.
        self._tie = asyncio.create_task(self._end_with_loop(), name="orchestrator tie")

    @property
    def has_space(self) -> bool:
        return self._thread.has_space

    def is_full(self) -> bool:
        return self._thread.is_full()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        self._thread.call(function, *args)

    async def ask(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        return await asyncio.wrap_future(self._thread.submit(function, *args))

    def relay(self, listener: Listener) -> Listener:
        return _Relay(listener, self._loop)

    def statistics(self) -> Statistics:
        return self._thread.statistics()

    async def _end_with_loop(self) -> None:
        try:
            await self._loop.create_future()
        except asyncio.CancelledError:
            if not self._closing:
                self.abandon()
                self._thread.finish()
            raise

    def abandon(self) -> None:
        self._thread.abandon()

    async def close(self, *, cancel: bool) -> None:
        self._closing = True
        self._tie.cancel()
        with contextlib.suppress(SupervisorClosed):  # somebody else's close was quicker
            await self.ask(partial(self.engine.close, cancel=cancel))
        await self._loop.run_in_executor(None, self._thread.finish)


async def open_elsewhere(options: Options, problem: NoSpawn) -> Link:
    """Open an engine on a thread whose loop can start processes, for the running one cannot.

    Raises:
        LaunchError: If no loop can.
    """
    thread = EngineThread(options)
    thread.start()
    opened = asyncio.get_running_loop().run_in_executor(None, thread.wait_opened)
    try:
        await outlast(opened)
    except NoSpawn as error:
        raise LaunchError(f"no event loop can start processes here: {error}") from problem
    except OSError:  # there is no other loop to be had: no file descriptor is left, say
        if options.fallback is None:
            raise
        engine = Engine(options, is_last=True)
        await engine.open()
        return SameLoop(engine)
    except asyncio.CancelledError:
        if opened.exception() is None:
            closing = asyncio.ensure_future(OtherLoop(thread).close(cancel=True))
            with contextlib.suppress(asyncio.CancelledError):  # the first one is raised
                await outlast(closing)
        raise
    thread.engine.log("supervisor.moved_to_thread", reason=f"the running loop cannot start processes: {problem}")
    return OtherLoop(thread)


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

    def event(self, record: Record, event: Event, *, owed: bool = False) -> None:
        self._tell(partial(self._listener.event, owed=owed), record, event)

    def called(self, record: Record, index: int, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        self._tell(self._listener.called, record, index, args, kwargs)
