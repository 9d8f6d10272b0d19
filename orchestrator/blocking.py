"""The supervisor for code that has no event loop, or one that must not know: Streamlit, Jupyter, Qt, Flask, scripts."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack

from orchestrator import _launch, _remedies
from orchestrator._blocking_handle import BlockingEvents, BlockingHandle
from orchestrator._blocking_map import BlockingItems, BlockingOutcomes
from orchestrator._link import EngineThread
from orchestrator._models import Job, Limit, whole
from orchestrator._spawn import NoSpawn
from orchestrator._submission import Submission, Submitter, read_map
from orchestrator._supervisor import options_of
from orchestrator.exceptions import ConfigurationError, LaunchError, SupervisorClosed

if TYPE_CHECKING:
    from types import TracebackType

    from orchestrator._blocking_service import BlockingService
    from orchestrator._options import OptionsDict
    from orchestrator._record import Record
    from orchestrator._service_spec import Service
    from orchestrator._statistics import Statistics

__all__ = (
    "BlockingEvents",
    "BlockingHandle",
    "BlockingItems",
    "BlockingOutcomes",
    "BlockingSupervisor",
)

Target = Callable[..., Any] | str


class BlockingSupervisor:
    """`Supervisor` for sync code; takes the same options.

    Its engine runs on a daemon thread. Every method may be called from any thread. Use it in a `with` statement, or
    call `open` and `close`; one that is still open when the program ends is closed then, and cancels its jobs.
    """

    def __init__(self, workers: int | None = None, **options: Unpack[OptionsDict]) -> None:
        self._options = options_of(workers, options)
        self._submitter = Submitter(self._options)
        self._thread: EngineThread | None = None
        self._closed = False
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "new" if self._thread is None else self._thread.engine.state
        return f"<BlockingSupervisor {self._options.name!r} {state} workers={self._options.workers}>"

    # Opening and closing

    def open(self) -> Self:
        """Open the supervisor; returns itself.

        Raises:
            LaunchError: If no child can be started here, and there is no `fallback`; the message names the remedy.
            SelfSpawnError: If a child would run the program itself again.
        """
        with self._opening:
            if self._thread is not None or self._closed:
                raise SupervisorClosed(f"supervisor {self._options.name!r} was opened already; make a new one")
            _launch.check_host(children=self._options.fallback is None)
            thread = EngineThread(self._options)
            try:
                thread.start()
                thread.wait_opened()
                self._submitter.start_after(thread.engine.last_job)
                # It holds on to the supervisor: whoever drops an open one has it until the program ends.
                atexit.register(self._close_at_exit, os.getpid())
                self._thread = thread
            except LaunchError as error:
                _remedies.note(str(error))
                raise
            except NoSpawn as error:
                raise LaunchError(f"no event loop can start processes here: {error}") from error
            finally:
                if self._thread is None:
                    thread.finish()
        return self

    def close(self) -> None:
        """Close the supervisor as leaving its `with` statement normally does; returns when it is closed."""
        self._close(cancel=self._options.on_exit == "cancel")

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(cancel=kind is not None or self._options.on_exit == "cancel")

    def _close(self, *, cancel: bool) -> None:
        if self._thread is not None:
            self._thread.check_caller()
        with self._opening:  # one that is being opened meanwhile is closed too
            thread, self._closed = self._thread, True
        if thread is None:
            return
        try:
            with contextlib.suppress(SupervisorClosed):  # by another thread meanwhile
                thread.wait(partial(thread.engine.close, cancel=cancel))
        finally:
            # After Ctrl-C jobs are not waited for any more: they are cancelled now, and nothing stays behind.
            thread.finish()
        atexit.unregister(self._close_at_exit)

    def _close_at_exit(self, pid: int) -> None:
        if os.getpid() == pid:
            self._close(cancel=True)

    # Reaching the engine

    def _check_open(self) -> EngineThread:
        thread = self._thread
        if thread is None or self._closed:
            state = "is closed" if self._closed else "is not open; use `with`, or call open() first"
            raise SupervisorClosed(f"supervisor {self._options.name!r} {state}")
        thread.check_caller()
        return thread

    def _slots(self) -> int:
        """How many jobs can run at once."""
        return (self._options.workers or 1) * self._options.concurrency

    # Jobs

    def run(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> Any:
        """Run a target in a child and return what it returns; see `Supervisor.run`.

        Callbacks are called on this thread. Ctrl-C (or any exception that arrives here) cancels the job, and is raised
        when that has ended.
        """
        submission = self._submitter.make(target, args, kwargs)
        handle = BlockingHandle(self._check_open(), submission.public_job())
        try:
            self._hand_over(submission, handle)
            handle._wait_end()
        except BaseException:
            handle._cancel_and_wait()
            raise
        return handle.result()

    def submit(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> BlockingHandle:
        """Hand a job over and return its handle; waits while `queue_size` jobs are waiting."""
        submission = self._submitter.make(target, args, kwargs)
        handle = BlockingHandle(self._check_open(), submission.public_job())
        try:
            record = self._hand_over(submission, handle)
            if self._options.journal is not None:
                thread = self._check_open()
                thread.wait(thread.engine.jobs.taken, record)
            return handle
        except BaseException:
            handle._cancel_and_wait()  # nobody would have the handle
            raise

    def submit_nowait(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> BlockingHandle:
        """Hand a job over if the queue has room for it. See `Supervisor.submit_nowait`."""
        submission = self._submitter.make(target, args, kwargs)
        thread = self._check_open()
        self._submitter.check_nowait()
        handle = BlockingHandle(thread, submission.public_job())
        try:
            self._hand_over(submission, handle, wait=False)
            return handle
        except BaseException:
            handle._cancel_and_wait()  # nobody would have the handle
            raise

    def _hand_over(
        self,
        submission: Submission,
        handle: BlockingHandle,
        *,
        read: bool = False,
        place: Any = (None, None),
        identity: str | None = None,
        wait: bool = True,
    ) -> Record:
        """Wait for room in the queue, unless that must not be, and give the engine the job."""
        thread = self._check_open()
        thread.engine.check_open()
        payload = submission.encode()
        record = self._submitter.record(submission, payload, handle)
        record.index, record.item = place
        record.identity = identity or record.identity
        record.read, record.gather = read, not read
        handle._record = record
        while not thread.offer(record):
            if not wait:
                if thread.is_full():
                    handle._record = None
                    raise self._submitter.queue_full()
                continue
            thread.wait(thread.engine.wait_for_space)
            thread.engine.check_open()
        return record

    def map(
        self, target: Target | Job | Iterable[Job], items: Any = None, *, ordered: bool = False
    ) -> BlockingOutcomes:
        """Run a target for each item, or each of many jobs; an iterator of outcomes. See `Supervisor.map`."""
        self._check_open()
        template, source = read_map(target, items)
        return BlockingOutcomes(self, template, source, ordered=ordered)

    def stream(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> BlockingItems:
        """Run a generator target; an iterator of what it yields. See `Supervisor.stream`."""
        submission = self._submitter.make(target, args, kwargs)
        handle = BlockingHandle(self._check_open(), submission.public_job())
        try:
            self._hand_over(submission, handle, read=True)
            return BlockingItems(handle)
        except BaseException:
            handle._cancel_and_wait()  # it would wait for a reader
            raise

    # Services

    def service(self, spec: Service) -> BlockingService:
        """Return a service as a context manager: entering begins it, leaving stops it. See `Supervisor.service`."""
        thread = self._check_open()
        thread.engine.check_state()
        from orchestrator._blocking_service import BlockingService

        return BlockingService(thread, self._submitter.plan(spec))

    # The supervisor itself

    def statistics(self) -> Statistics:
        """Return a snapshot of jobs, workers and limits; also of a supervisor that was closed."""
        thread = self._thread
        if thread is None:
            raise SupervisorClosed(f"supervisor {self._options.name!r} is not open")
        return thread.statistics()

    def scale(self, workers: int) -> None:
        """Change how many workers there are; those that are too many finish their jobs first."""
        thread = self._check_open()
        thread.engine.check_state()
        thread.wait(thread.engine.scale, whole(workers, "workers", minimum=1))

    def set_limit(self, limit: Limit) -> None:
        """Change the limit of that name from now on. See `Supervisor.set_limit`."""
        thread = self._check_open()
        if not isinstance(limit, Limit):
            raise ConfigurationError("limit", f"must be a Limit, not {limit!r:.100}")
        thread.engine.check_state()
        thread.wait(thread.engine.set_limit, limit)
        self._submitter.catalogue.change(limit)

    def drain(self) -> None:
        """Take no more jobs, and return when every accepted one has its outcome."""
        thread = self._check_open()
        thread.wait(thread.engine.drain)
