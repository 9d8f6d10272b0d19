"""The supervisor for code that has no event loop, or one that must not know: Streamlit, Jupyter, Qt, Flask, scripts."""

from __future__ import annotations

import atexit
import concurrent.futures
import os
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, Unpack

from orchestrator import _launch
from orchestrator._blocking_handle import PIECE, BlockingHandle
from orchestrator._blocking_map import BlockingItems, BlockingOutcomes
from orchestrator._child_process import NoSpawn
from orchestrator._link import EngineThread
from orchestrator._models import Job, Statistics, whole
from orchestrator._submission import Submission, Submitter
from orchestrator._supervisor import options_of
from orchestrator.exceptions import ConfigurationError, LaunchError, SupervisorClosed, WrongContext

if TYPE_CHECKING:
    from types import TracebackType

    from orchestrator._options import OptionsDict

__all__ = ("BlockingHandle", "BlockingItems", "BlockingOutcomes", "BlockingSupervisor")

Target = Callable[..., Any] | str


class BlockingSupervisor:
    """`Supervisor` for sync code; takes the same options.

    Its engine runs on a daemon thread. Every method may be called from any thread. Use it in a `with` statement, or
    call `open` and `close`; one that is still open when the program ends is closed then, and cancels its jobs.
    """

    _thread: EngineThread | None = None  # also of one whose options were refused: `__del__` looks

    def __init__(self, workers: int | None = None, **options: Unpack[OptionsDict]) -> None:
        self._options = options_of(workers, options)
        self._submitter = Submitter(self._options)
        self._pid = 0
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "new" if self._thread is None else self._thread.engine.state
        return f"<BlockingSupervisor {self._options.name!r} {state} workers={self._options.workers}>"

    # Opening and closing

    def open(self) -> Self:
        """Open the supervisor; returns itself.

        Raises:
            LaunchError: If no child can be started here; the message names the remedy.
            SelfSpawnError: If a child would run the program itself again.
        """
        with self._lock:
            if self._thread is not None or self._closed:
                raise SupervisorClosed(f"supervisor {self._options.name!r} was opened already; make a new one")
            _launch.check_host()
            thread = EngineThread(self._options)
            thread.start()
            try:
                thread.wait_opened()
            except NoSpawn as error:
                raise LaunchError(f"no event loop can start processes here: {error}") from error
            self._pid = os.getpid()
            self._thread = thread
            atexit.register(self._close_at_exit)
        return self

    def close(self) -> None:
        """Close the supervisor as leaving its `with` statement normally does."""
        self._close(cancel=self._options.on_exit == "cancel")

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(cancel=kind is not None or self._options.on_exit == "cancel")

    def _close(self, *, cancel: bool) -> None:
        with self._lock:
            thread = self._thread
            if thread is None or self._closed:
                self._closed = True
                return
            if os.getpid() != self._pid:
                raise WrongContext("this process is a forked copy of the one that opened the supervisor")
            self._closed = True
        engine = thread.engine

        async def close() -> None:
            await engine.close(cancel=cancel)

        closing = thread.submit(close)
        try:
            _wait(closing)
        except BaseException:
            # Ctrl-C while jobs were being waited for: they end now, and nothing stays behind.
            thread.call(engine.hurry)
            _wait(closing)
            raise
        finally:
            thread.finish()
            atexit.unregister(self._close_at_exit)

    def _close_at_exit(self) -> None:
        if os.getpid() == self._pid:
            self._close(cancel=True)

    def __del__(self) -> None:
        # The registration at exit keeps an open one alive; what gets here was never opened, or was closed.
        if self._thread is not None and not self._closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)

    # Reaching the engine

    @property
    def _engine(self) -> Any:
        assert self._thread is not None
        return self._thread.engine

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        assert self._thread is not None
        try:
            self._thread.call(function, *args)
        except SupervisorClosed:
            return  # it settled every job when it closed

    def _check_open(self) -> EngineThread:
        thread = self._thread
        if thread is None or self._closed:
            state = "is closed" if self._closed else "is not open; use `with`, or call open() first"
            raise SupervisorClosed(f"supervisor {self._options.name!r} {state}")
        if os.getpid() != self._pid:
            raise WrongContext("this process is a forked copy of the one that opened the supervisor; open one here")
        if threading.get_ident() == thread.ident:
            raise WrongContext("called on the supervisor's own thread, which would wait for itself")
        thread.engine.check_open()
        return thread

    # Jobs

    def run(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> Any:
        """Run a target in a child and return what it returns; see `Supervisor.run`.

        Callbacks are called on this thread. Ctrl-C (or any exception that arrives here) cancels the job, and is raised
        when that has ended.
        """
        handle = self._submit(self._submitter.make(target, args, kwargs))
        return handle.result_or_cancel()

    def submit(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> BlockingHandle:
        """Hand a job over and return its handle; waits while `queue_size` jobs are waiting."""
        return self._submit(self._submitter.make(target, args, kwargs))

    def _submit(
        self,
        submission: Submission,
        handle: BlockingHandle | None = None,
        *,
        read: bool = False,
        place: Any = (None, None),
    ) -> BlockingHandle:
        thread = self._check_open()
        payload = submission.encode()
        while not thread.has_space:
            _wait(thread.submit(thread.engine.wait_for_space))
            thread.engine.check_open()
        handle = handle or BlockingHandle(self, submission.public_job())
        record = self._submitter.record(submission, payload, handle)
        record.index, record.item = place
        if read:
            record.read, record.gather = True, False
            handle._reading = True
        handle._record = record
        handle.id = record.id
        thread.accept(record)
        return handle

    def map(
        self, target: Target | Job | Iterable[Job], items: Any = None, *, ordered: bool = False
    ) -> BlockingOutcomes:
        """Run a target for each item, or each of many jobs; an iterator of outcomes. See `Supervisor.map`."""
        self._check_open()
        if isinstance(target, Job | str) or callable(target):
            if items is None:
                raise ConfigurationError("items", "are missing; map takes a target and items, or an iterable of jobs")
            template = target if isinstance(target, Job) else Job(target)
            if template.args:
                raise ConfigurationError("target.args", "must be empty: each item is the one positional argument")
            return BlockingOutcomes(self, template, items, ordered=ordered)
        if items is not None:
            raise ConfigurationError("target", f"must be a function, a name or a Job, not {type(target).__name__}")
        return BlockingOutcomes(self, None, target, ordered=ordered)

    def stream(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> BlockingItems:
        """Run a generator target; an iterator of what it yields. See `Supervisor.stream`."""
        return BlockingItems(self._submit(self._submitter.make(target, args, kwargs), read=True))

    # The supervisor itself

    def statistics(self) -> Statistics:
        """Return a snapshot of jobs, workers and limits."""
        if self._thread is None:
            raise SupervisorClosed(f"supervisor {self._options.name!r} is not open")
        engine = self._thread.engine
        if self._closed:
            return engine.statistics()

        async def look() -> Statistics:
            return engine.statistics()

        found: Statistics = _wait(self._thread.submit(look))
        return found

    def scale(self, workers: int) -> None:
        """Change how many workers there are; those that are too many finish their jobs first."""
        thread = self._check_open()
        _wait(thread.submit(thread.engine.scale, whole(workers, "workers", minimum=1)))

    def drain(self) -> None:
        """Take no more jobs, and return when every accepted one has its outcome."""
        thread = self._check_open()
        _wait(thread.submit(thread.engine.drain))


def _wait(future: Any) -> Any:
    """Wait for a `concurrent.futures.Future`, open to Ctrl-C."""
    while True:
        done, _ = concurrent.futures.wait([future], timeout=PIECE)
        if done:
            return future.result()
