"""One adapter for each measured pool, so that every line can ask the same of all of them."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import multiprocessing
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar

import _bench_jobs

Target = Callable[..., Any]


class Peer:
    """A pool of `workers` processes, used the way its own documentation shows.

    The modules of a peer are imported by `load`, outside of what is timed.

    Attributes:
        name: What the tables call it.
        backend: The event loop it runs on.
        cancels: Whether cancelling `call` stops a job that runs.
        reports_end: Whether a cancelled `call` returns only when the job is known to have ended, its process living on.
        runs_async: Whether a target may be a coroutine function.
        how: How jobs are submitted, in a few words, for the legend below the table.
    """

    name: ClassVar[str]
    how: ClassVar[str]
    backend: ClassVar[str] = "asyncio"
    use_uvloop: ClassVar[bool] = False
    cancels: ClassVar[bool] = False
    reports_end: ClassVar[bool] = False
    runs_async: ClassVar[bool] = False

    def __init__(self, workers: int, **options: Any) -> None:
        self.workers = workers
        self.options = options
        self.load()

    def load(self) -> None:
        """Import what the peer needs."""

    async def open(self) -> None:
        """Make the pool."""

    async def close(self) -> None:
        """End the pool and its processes."""

    async def call(self, target: Target, *args: Any) -> Any:
        """Run one job and wait for its result."""
        return await (await self.start(target, *args))

    async def start(self, target: Target, *args: Any) -> Awaitable[Any]:
        """Submit one job; the awaitable that comes back is its result."""
        return asyncio.ensure_future(self.call(target, *args))

    async def burst(self, target: Target, count: int, window: int) -> None:
        """Run `count` jobs, each awaited by itself in order, with up to `window` of them in flight."""
        pending: deque[Awaitable[Any]] = deque()
        for number in range(count):
            if len(pending) >= window:
                await pending.popleft()
            pending.append(await self.start(target, number))
        while pending:
            await pending.popleft()

    def is_fatal(self, error: Exception) -> bool:
        """Tell whether the whole pool is lost, so that a user would have to make a new one."""
        return False


class _Futures(Peer):
    """Pools whose `submit` gives a `concurrent.futures.Future`."""

    how = "submit(), asyncio.wrap_future"
    pool: Any

    async def start(self, target: Target, *args: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(self.pool.submit(target, *args))


class Stdlib(_Futures):
    """concurrent.futures, with the start method that is safe beside threads and loops."""

    name = "PPE(spawn)"

    def load(self) -> None:
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool

        self.make, self.broken = ProcessPoolExecutor, BrokenProcessPool

    async def open(self) -> None:
        self.pool = self.make(self.workers, mp_context=multiprocessing.get_context("spawn"))

    async def close(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def is_fatal(self, error: Exception) -> bool:
        return isinstance(error, self.broken)


class Loky(_Futures):
    """The executor of joblib."""

    name = "loky"

    def load(self) -> None:
        self.module: Any = importlib.import_module("loky")
        self.broken: Any = importlib.import_module("loky.process_executor").BrokenProcessPool

    async def open(self) -> None:
        self.pool = self.module.ProcessPoolExecutor(self.workers)

    async def close(self) -> None:
        self.pool.shutdown(wait=True, kill_workers=True)

    def is_fatal(self, error: Exception) -> bool:
        return isinstance(error, self.broken)


class Pebble(_Futures):
    """The pool that can stop a job that runs: it terminates the process, after three seconds it kills it."""

    name = "pebble"
    how = "schedule(), asyncio.wrap_future"
    cancels = True

    def load(self) -> None:
        self.module: Any = importlib.import_module("pebble")

    async def open(self) -> None:
        self.pool = self.module.ProcessPool(self.workers, context=multiprocessing.get_context("spawn"))

    async def close(self) -> None:
        self.pool.stop()
        self.pool.join()

    async def start(self, target: Target, *args: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(self.pool.schedule(target, args=args))

    def is_fatal(self, error: Exception) -> bool:
        return not self.pool.active  # a child that dies idle takes the pool with it


class Anyio(Peer):
    """anyio's own worker processes; each call is a task, a limiter bounds the processes."""

    name = "anyio.to_process"
    how = "a task for each run_sync(cancellable=True, limiter=…)"
    cancels = True

    def load(self) -> None:
        from anyio import CapacityLimiter, to_process

        self.limiter_type, self.run_sync = CapacityLimiter, to_process.run_sync

    async def open(self) -> None:
        self.limiter = self.limiter_type(self.workers)

    async def call(self, target: Target, *args: Any) -> Any:
        return await self.run_sync(target, *args, cancellable=True, limiter=self.limiter)


class Aiomultiprocess(Peer):
    """Processes that each run many coroutines; queues are polled every five milliseconds."""

    name = "aiomultiprocess"
    how = "a task for each pool.apply() of a coroutine function around the job"
    runs_async = True
    pool: Any

    def load(self) -> None:
        self.module: Any = importlib.import_module("aiomultiprocess")

    async def open(self) -> None:
        self.pool = self.module.Pool(processes=self.workers)

    async def close(self) -> None:
        self.pool.terminate()
        await self.pool.join()

    async def call(self, target: Target, *args: Any) -> Any:
        if inspect.iscoroutinefunction(target):
            return await self.pool.apply(target, args)
        return await self.pool.apply(_bench_jobs.as_coroutine, (target.__name__, *args))


class TrioParallel(Peer):
    """The worker processes of the trio world, on a trio loop."""

    name = "trio-parallel"
    how = "a trio task for each run_sync(kill_on_cancel=True, limiter=…)"
    backend = "trio"
    cancels = True
    context: Any

    def load(self) -> None:
        self.trio: Any = importlib.import_module("trio")
        self.module: Any = importlib.import_module("trio_parallel")

    async def open(self) -> None:
        self.limiter = self.trio.CapacityLimiter(self.workers)
        self.manager = self.module.open_worker_context()
        self.context = await self.manager.__aenter__()

    async def close(self) -> None:
        await self.manager.__aexit__(None, None, None)

    async def call(self, target: Target, *args: Any) -> Any:
        return await self.context.run_sync(target, *args, kill_on_cancel=True, limiter=self.limiter)

    async def burst(self, target: Target, count: int, window: int) -> None:
        pending: deque[Any] = deque()

        async def one(number: int, done: Any) -> None:
            await self.call(target, number)
            done.set()

        async with self.trio.open_nursery() as nursery:
            for number in range(count):
                if len(pending) >= window:
                    await pending.popleft().wait()
                done = self.trio.Event()
                nursery.start_soon(one, number, done)
                pending.append(done)
            while pending:
                await pending.popleft().wait()


class Ours(Peer):
    """This project."""

    name = "ours"
    how = "handle = await submit(), await handle.result()"
    cancels = True
    reports_end = True
    runs_async = True
    supervisor: Any

    def load(self) -> None:
        from orchestrator import Job, Supervisor

        self.make, self.job = Supervisor, Job

    async def open(self) -> None:
        self.supervisor = await self.make(self.workers, **self.options).__aenter__()

    async def close(self) -> None:
        await self.supervisor.__aexit__(None, None, None)

    async def call(self, target: Target, *args: Any) -> Any:
        return await self.supervisor.run(target, *args)

    async def start(self, target: Target, *args: Any) -> Awaitable[Any]:
        result: Coroutine[Any, Any, Any] = (await self.supervisor.submit(target, *args)).result()
        return result


class OursRun(Ours):
    """This project, with a task for each awaited `run`."""

    name = "ours: run()"
    how = "a task for each await run()"

    async def start(self, target: Target, *args: Any) -> Awaitable[Any]:
        return asyncio.create_task(self.supervisor.run(target, *args))


class OursMap(Ours):
    """This project, through `map`."""

    name = "ours: map()"
    how = "async for outcome in map()"

    async def burst(self, target: Target, count: int, window: int) -> None:
        async with self.supervisor.map(self.job(target), range(count)) as outcomes:
            async for outcome in outcomes:
                outcome.result()


class OursUvloop(Ours):
    """This project on uvloop."""

    name = "ours: uvloop"
    use_uvloop = True


class OursExecutor(_Futures):
    """This project, in the place of the standard library's pool."""

    name = "ours: executor"
    pool: Any

    def load(self) -> None:
        from orchestrator_adapters.executor import OrchestratorExecutor

        self.make = OrchestratorExecutor

    async def open(self) -> None:
        self.pool = self.make(self.workers, **self.options)

    async def close(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


EVERYBODY: tuple[type[Peer], ...] = (Ours, Stdlib, Loky, Pebble, Anyio, Aiomultiprocess, TrioParallel)
VARIANTS: tuple[type[Peer], ...] = (OursRun, OursMap, OursUvloop, OursExecutor)
PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in EVERYBODY + VARIANTS}
