"""The executor itself: the interface of `concurrent.futures.ProcessPoolExecutor`."""

from __future__ import annotations

import itertools
import multiprocessing.reduction  # noqa: F401  calls are pickled with its reducers, as multiprocessing's pools do
import os
import time
import weakref
from collections import deque
from concurrent.futures import Executor
from multiprocessing.process import current_process
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator import RestartPolicy
from orchestrator_adapters.executor import _child, _messages
from orchestrator_adapters.executor._call import Call
from orchestrator_adapters.executor._pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")

# Results of any size: pickles that are large go through files, and this is far beyond what memory holds.
_LARGEST = 2**40
# An initializer runs in each child before that counts as ready. It may load a model; and one that kills its child does
# so each time, while callers wait: they are told after six children and three seconds.
_PREPARE = f"{_child.__name__}:{_child.prepare.__name__}"
_TO_INITIALIZE = 600.0
_RESTART = RestartPolicy(backoff=0.1)
_RESERVED = ("workers", "max_jobs", "params", "journal", "isolation", "fallback", "concurrency", "on_exit")


class OrchestratorExecutor(Executor):
    """Runs calls in children that survive each other's crashes; stands in for `ProcessPoolExecutor`.

    A child that dies breaks the future of the call that it ran, and no other. Functions, arguments and results are
    pickled: use it for what you would run yourself.

    Args:
        max_workers: How many children there may be; by default one per CPU. They start when there is work for them.
        mp_context: Accepted and ignored: children are always started anew, never forked.
        initializer: Called in each child before its first call; if it raises, the executor is broken.
        initargs: Its arguments.
        max_tasks_per_child: Replace a child after so many calls; a chunk of `map` counts as one.
        kill_running: `future.cancel()` also ends a call that runs: it has the option `grace` for ending by itself, then
            its child is killed with all that it started. At the end of the program, calls are killed instead of waited
            for.
        options: Options of `Supervisor`, such as `env`, `memory_limit`, `hang_timeout` or `grace`.

    Raises:
        ValueError: If a number is not positive, or an option has a value that it cannot have.
        TypeError: If an argument is of the wrong kind, or there is no such option.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        kill_running: bool = False,
        **options: Any,
    ) -> None:
        if max_workers is None:
            max_workers = os.cpu_count() or 1
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        for name in _RESERVED:
            if name in options:
                raise TypeError(f"{name!r} is not for an executor; use a supervisor")
        given = {"authkey": bytes(current_process().authkey).hex()}
        defaults: dict[str, Any] = {"name": "executor", "max_message_bytes": _LARGEST, "queue_size": 2**31}
        if initializer is not None:
            given["initializer"] = _messages.dumps((initializer, tuple(initargs)))
            defaults |= {"start_timeout": _TO_INITIALIZE, "restart": _RESTART}
            before = options.get("preload", ())
            if isinstance(before, (list, tuple)):  # what else it is the supervisor refuses
                options["preload"] = (*before, _PREPARE)
        options = {**defaults, **options}
        options |= {"max_jobs": max_tasks_per_child, "params": {_child.PARAMS: given}}
        self._max_workers = max_workers
        self._pool = Pool(max_workers, options, kill_running=bool(kill_running))
        # Whoever drops an executor without a shutdown has its calls done all the same.
        self._dropped = weakref.finalize(self, self._pool.shutdown, wait=False)
        self._dropped.atexit = False

    @property
    def _broken(self) -> str | bool:
        """Why it is broken, or False; so called where the standard library's is asked."""
        return self._pool.broken or False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have `fn(*args, **kwargs)` called in a child; from any thread, also from callbacks of futures.

        What cannot be pickled is told by the future.

        Raises:
            BrokenProcessPool: If the initializer has failed.
            RuntimeError: If the executor is shut down.
        """
        call = Call(self._pool, getattr(fn, "__qualname__", "") or type(fn).__qualname__)
        self._pool.submit(call, fn, args, kwargs)
        return call

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator of the results of `fn` for each tuple of the iterables' items, in their order.

        Args:
            fn: The function.
            iterables: Taken from at once, as far as `buffersize` allows.
            timeout: Seconds, from now, until the last result must be there.
            chunksize: Items that make one call in a child. If that crashes, the chunk's results are lost.
            buffersize: Most calls whose results have not been taken yet; None for any number.

        Raises:
            TimeoutError: From the iterator, if a result is not there in time.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        items = zip(*iterables)  # noqa: B905  the shortest ends it, as in the standard library
        if chunksize == 1:
            return _results(_Calls(self, fn, items, buffersize), end)
        chunks = _Calls(self, _child.call_chunk, _chunks(fn, items, chunksize), buffersize)
        return _flattened(_results(chunks, end))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and free everything when those that were taken are done.

        Args:
            wait: Return only then. Not heeded in the callback of a future, which would wait for itself.
            cancel_futures: Cancel all that have not been handed to a child.
        """
        self._pool.shutdown(wait=wait, cancel=cancel_futures)

    def kill_workers(self) -> None:
        """End all children now; what runs or waits raises BrokenProcessPool. The executor is shut down."""
        self._pool.break_now("the workers of the executor were killed")
        self._pool.shutdown(wait=True)

    def terminate_workers(self) -> None:
        """Do the same as `kill_workers`: a child is asked first, and killed after the option `grace`."""
        self.kill_workers()


class _Calls:
    """The futures of a map, in order; taking one makes room for the next."""

    def __init__(
        self,
        executor: OrchestratorExecutor,
        function: Callable[..., Any],
        items: Iterator[tuple[Any, ...]],
        most: int | None,
    ) -> None:
        # An iterator that nobody reads to its end is not to keep the executor.
        self._executor = weakref.ref(executor)
        self._function = function
        self._items: Iterator[tuple[Any, ...]] | None = items
        self.futures: deque[Future[Any]] = deque()
        while self._items is not None and (most is None or len(self.futures) < most):
            self._submit_next(executor)

    def _submit_next(self, executor: OrchestratorExecutor) -> None:
        """Submit one more, if there is one; who says once that there is none is not asked again."""
        assert self._items is not None
        for args in self._items:
            self.futures.append(executor.submit(self._function, *args))
            return
        self._items = None

    def take(self) -> Future[Any]:
        """Return the first future, after submitting one more."""
        executor = self._executor()
        if executor is not None and self._items is not None:
            self._submit_next(executor)
        return self.futures.popleft()


def _results(calls: _Calls, end: float | None) -> Iterator[Any]:
    try:
        while calls.futures:
            # No name is given to a result here: it would live on until the next one is asked for.
            yield _result_or_cancel(calls.take(), None if end is None else end - time.monotonic())
    finally:
        for future in calls.futures:
            future.cancel()


def _result_or_cancel(future: Future[Any], timeout: float | None) -> Any:
    try:
        return future.result(timeout)
    finally:
        future.cancel()
        del future  # the traceback of what it raised would hold it


def _chunks(
    function: Callable[..., Any], items: Iterator[tuple[Any, ...]], size: int
) -> Iterator[tuple[Callable[..., Any], list[tuple[Any, ...]]]]:
    while chunk := list(itertools.islice(items, size)):
        yield function, chunk


def _flattened(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
