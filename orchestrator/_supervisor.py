"""The supervisor as async code uses it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import warnings
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from orchestrator import _launch, _remedies, _wire
from orchestrator._engine import Engine
from orchestrator._handle import JobHandle, Receipt
from orchestrator._link import Link, SameLoop, open_elsewhere
from orchestrator._map import Outcomes
from orchestrator._models import Job, Limit, RestartPolicy, Seconds, whole
from orchestrator._options import CACHE_BYTES, Options
from orchestrator._persist import outlast
from orchestrator._spawn import NoSpawn, is_capable
from orchestrator._stream import Items
from orchestrator._submission import Submission, Submitter, read_map
from orchestrator.exceptions import ConfigurationError, LaunchError, SupervisorClosed, WrongContext

if TYPE_CHECKING:
    from types import TracebackType

    from orchestrator._codec import Payload
    from orchestrator._journal import Journal
    from orchestrator._record import Listener, Record
    from orchestrator._service import ServiceHandle
    from orchestrator._service_spec import Service
    from orchestrator._statistics import Statistics

__all__ = ("JobHandle", "Supervisor")

Target = Callable[..., Any] | str

# Jobs that one task may submit before the loop gets a turn: about two milliseconds.
_LOT = 64


class Supervisor:
    """Runs jobs in supervised child interpreters; an async context manager.

    Args:
        workers: How many children there may be; by default one per CPU. The first starts at once, the others when
            there is work for them. With 0 there are services only, and jobs are refused.
        name: Appears in logs.
        concurrency: Jobs at once in a child that runs async targets.
        limits: Bounds that all children keep together.
        max_permits: So many permits, of whichever limits, may be held at the same time by all children together. A job
            that holds none counts as one while it runs, until it asks for its first.
        isolation: `"process"`, or `"inline"` where children can't be had: the same jobs, in threads of this process.
        fallback: `"inline"`: where no child can be started, at the beginning or when the pool breaks later, go on as
            `isolation="inline"` does, with the same queue, limits, journal and counts, and say so in the log. By
            default that is an error.
        queue_size: Jobs that may wait; `submit` and `run` wait when there are more.
        command: The command of a Python interpreter to use instead of this one.
        env: Environment variables to set (or, with None, to remove) in children.
        env_allow: If given, only these variables are inherited.
        secrets: Environment variables that children get over their pipe, not in their environment block: names of
            variables that are set here; or values by name, or functions that return them, which are called in a thread
            each time a child is started. Where jobs print, log, report or raise a value stands `[secret NAME]`.
        cwd: Working directory of children.
        preload: Modules, or `"module:function"` to call, before a child counts as ready.
        params: JSON values, such as the parameters of a run, that jobs read with `child.params()`.
        max_jobs: Replace a child after so many jobs.
        max_age: Replace a child between two jobs after so many seconds, ten percent more or less.
        max_rss: Replace a child between two jobs when it and its descendants have more bytes of memory than this.
        memory_limit: Kill a child when it and its descendants have more bytes of memory than this; its job crashed.
        hang_timeout: Kill a child that has been silent for so many seconds, a minute say: stopped, or stuck in C code
            that holds the interpreter's lock. By default it only gets no more jobs.
        spares: Children that are kept ready beyond those in use, to take the place of one that dies or is replaced.
        journal: Where jobs are kept, so that none is lost when this process dies: `Journal(path)`.
        cache: File in which `child.cache` keeps values beyond the life of this process; by default in memory.
        cache_bytes: Bound of what the cache keeps; what was used longest ago goes first.
        cache_age: Seconds after which a value in the cache is computed anew.
        restart: When a worker's child is started again.
        grace: Seconds a cancelled or timed-out job has for ending by itself before its child is killed.
        start_timeout: Seconds a child has for becoming ready.
        on_exit: What leaving `async with` does to jobs that are not done; with an exception it always cancels them.
        max_message_bytes: Largest arguments or result, encoded.

    Raises:
        ConfigurationError: If an option has a value that it cannot have.
    """

    _link: Link | None = None  # also of one whose options were refused: `__del__` looks

    def __init__(
        self,
        workers: int | None = None,
        *,
        name: str = "supervisor",
        concurrency: int = 1,
        limits: Iterable[Limit] = (),
        max_permits: int | None = None,
        isolation: Literal["process", "inline"] = "process",
        fallback: Literal["inline"] | None = None,
        queue_size: int = 10_000,
        command: Sequence[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        env_allow: Sequence[str] | None = None,
        secrets: Sequence[str] | Mapping[str, str | Callable[[], str]] = (),
        cwd: str | os.PathLike[str] | None = None,
        preload: Sequence[str] = (),
        params: Mapping[str, Any] | None = None,
        max_jobs: int | None = None,
        max_age: Seconds | None = None,
        max_rss: int | None = None,
        memory_limit: int | None = None,
        hang_timeout: Seconds | None = None,
        spares: int = 0,
        journal: Journal | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int = CACHE_BYTES,
        cache_age: Seconds | None = None,
        restart: RestartPolicy | None = None,
        grace: Seconds = 2.0,
        start_timeout: Seconds = 60.0,
        on_exit: Literal["drain", "cancel"] = "drain",
        max_message_bytes: int = _wire.MAX_MESSAGE_BYTES,
    ) -> None:
        self._options = Options(
            workers=workers,
            name=name,
            concurrency=concurrency,
            limits=limits,
            max_permits=max_permits,
            isolation=isolation,
            fallback=fallback,
            queue_size=queue_size,
            command=command,
            env=env,
            env_allow=env_allow,
            secrets=secrets,
            cwd=cwd,
            preload=preload,
            params=params,
            max_jobs=max_jobs,
            max_age=max_age,
            max_rss=max_rss,
            memory_limit=memory_limit,
            hang_timeout=hang_timeout,
            spares=spares,
            journal=journal,
            cache=cache,
            cache_bytes=cache_bytes,
            cache_age=cache_age,
            restart=RestartPolicy() if restart is None else restart,
            grace=grace,
            start_timeout=start_timeout,
            on_exit=on_exit,
            max_message_bytes=max_message_bytes,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._submitter = Submitter(self._options)
        self._closing: asyncio.Future[None] | None = None
        self._unbroken = 0  # jobs accepted since the loop was last given a turn
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "new" if self._link is None else self._link.engine.state
        return f"<Supervisor {self._options.name!r} {state} workers={self._options.workers}>"

    # Opening and closing

    async def __aenter__(self) -> Self:
        """Open the supervisor: start its engine and its first child.

        Raises:
            LaunchError: If no child can be started here, and there is no `fallback`; the message names the remedy.
            SelfSpawnError: If a child would run the program itself again.
            JournalError: If the journal cannot be opened, or another supervisor uses it.
            CacheError: If the file of the cache cannot be opened, or another supervisor uses it.
            WrongContext: Outside asyncio, for example under trio.
        """
        if self._link is not None or self._closed:
            raise SupervisorClosed(f"supervisor {self._options.name!r} was opened already; make a new one")
        _require_asyncio()
        _launch.check_host(children=self._options.fallback is None)
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        engine = Engine(self._options)
        with _remedies.noting(LaunchError):
            try:
                if not self._options.workers and not is_capable(self._loop):
                    raise NoSpawn("it is of a kind that may not be able to, and there is no worker to try it with")
                await engine.open()
            except NoSpawn as problem:
                self._link = await open_elsewhere(self._options, problem)
            else:
                self._link = SameLoop(engine)
        self._submitter.start_after(self._link.engine.last_job)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(cancel=kind is not None or self._options.on_exit == "cancel")

    async def aclose(self) -> None:
        """Close the supervisor as leaving `async with` normally does."""
        await self._close(cancel=self._options.on_exit == "cancel")

    async def _close(self, *, cancel: bool) -> None:
        if self._link is None:
            self._closed = True
            return
        self._check_context()
        link = self._link
        if self._closing is None:
            self._closing = asyncio.ensure_future(link.close(cancel=cancel))
        elif cancel and not self._closing.done():
            link.call(link.engine.hurry)
        closing = self._closing
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            # Cancelled while jobs were being waited for: they end now, and nothing stays behind.
            with contextlib.suppress(SupervisorClosed):
                link.call(link.engine.hurry)
            await outlast(closing)
            raise
        finally:
            self._closed = True

    def _kill_now(self) -> None:
        """Kill all children with everything they started: for a process that is about to end by `os._exit`."""
        if self._link is not None:
            self._link.engine.kill_now()

    def __del__(self) -> None:
        if self._link is not None and not self._closed and os.getpid() == self._pid:
            if self._loop is not None and self._loop.is_closed():
                self._link.abandon()
            warnings.warn(f"{self!r} was never closed; use `async with`", ResourceWarning, source=self, stacklevel=2)

    def _check_context(self) -> Link:
        link = self._link
        if link is None:
            raise SupervisorClosed(f"supervisor {self._options.name!r} is not open; enter it with `async with` first")
        self._check_process()
        if asyncio._get_running_loop() is not self._loop:
            raise WrongContext(
                "the supervisor belongs to another event loop or thread; call it there, or use BlockingSupervisor"
            )
        return link

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise WrongContext("this process is a forked copy of the one that opened the supervisor; open one here")

    def _open_link(self) -> Link:
        link = self._check_context()
        link.engine.check_open()
        return link

    # Jobs

    async def run(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> Any:
        """Run a target in a child and return what it returns.

        Cancelling this cancels the job, and returns when that has ended.

        Args:
            target: A function, its name as `"package.module:function"`, or a `Job` with everything in it.
            args: Positional arguments of the target.
            kwargs: Keyword arguments of the target; options of the job live on `Job`.

        Raises:
            TargetError: If the target cannot be run in a child or the arguments do not fit.
            PayloadError: If an argument or the result cannot travel exactly.
            JobError: When the job did not succeed; see `orchestrator.exceptions`.
        """
        link = self._open_link()
        submission = self._submitter.make(target, args, kwargs)
        receipt = Receipt(link)
        record = await self._accept(link, submission, receipt)
        await receipt.wait_or_cancel(record)
        return receipt.value()

    async def submit(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> JobHandle:
        """Hand a job over and return its handle as soon as it is accepted.

        Waits while `queue_size` jobs are waiting. Raises like `run`, but for what ends the job.
        """
        link = self._open_link()
        submission = self._submitter.make(target, args, kwargs)
        handle = JobHandle(link, submission)
        record = await self._accept(link, submission, handle)
        if self._options.journal is not None:
            try:
                await link.ask(link.engine.jobs.taken, record)
            except asyncio.CancelledError:
                handle.cancel()  # nobody would have the handle
                raise
        return handle

    def submit_nowait(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> JobHandle:
        """Hand a job over if the queue has room for it: for callbacks, and for servers that rather refuse than wait.

        The arguments are encoded here and now, however large they are.

        Raises:
            QueueFull: If `queue_size` jobs are waiting; the job was not accepted.
            ConfigurationError: If there is a journal: `submit` waits until it has the job.
        """
        link = self._open_link()
        submission = self._submitter.make(target, args, kwargs)
        self._submitter.check_nowait()
        handle = JobHandle(link, submission)
        payload = submission.encode()
        if link.is_full():
            raise self._submitter.queue_full()
        self._hand_over(link, submission, payload, handle)
        return handle

    async def _submit_stream(self, submission: Submission) -> JobHandle:
        """Submit a job whose items have a reader from the start."""
        link = self._open_link()
        handle = JobHandle(link, submission)
        await self._accept(link, submission, handle, read=True)
        return handle

    def _prepare(self, template: Job | None, item: Any, index: int) -> tuple[Link, Submission]:
        """Check one job of a map: an item of a template, or a job."""
        return self._open_link(), self._submitter.from_item(template, item, index)

    def _describe_run(self, key: str, text: str) -> None:
        """Have the journal say what this run is of; recorded before any job that is accepted later."""
        link = self._open_link()
        link.call(link.engine.describe_run, key, text)

    def _slots(self) -> int:
        """How many jobs can run at once."""
        return (self._options.workers or 1) * self._options.concurrency

    async def _accept(self, link: Link, submission: Submission, receipt: Listener, **place: Any) -> Record:
        """Encode a job, wait for room, and hand it over with what `_hand_over` is to note of it."""
        engine = link.engine
        self._unbroken += 1
        if self._unbroken >= _LOT:
            # Nothing below need wait, so a loop of submits would stop all else; here nothing has been accepted yet.
            self._unbroken = 0
            await asyncio.sleep(0)
            engine.check_open()
        if submission.is_large:
            payload = await link.ask(engine.in_thread, submission.encode)
        else:
            payload = submission.encode()
            self._unbroken += len(payload.body) // 4096
        while not link.has_space:  # on another thread somebody else may have been quicker
            await link.ask(engine.wait_for_space)
            engine.check_open()
        return self._hand_over(link, submission, payload, receipt, **place)

    def _hand_over(
        self,
        link: Link,
        submission: Submission,
        payload: Payload,
        receipt: Listener,
        *,
        read: bool = False,
        index: int | None = None,
        item: Any = None,
        identity: str | None = None,
    ) -> Record:
        """Give the engine a job for which there is room."""
        if payload.callbacks and isinstance(receipt, Receipt):
            receipt.hold_context()
        record = self._submitter.record(submission, payload, link.relay(receipt))
        record.index, record.item = index, item
        record.identity = identity or record.identity
        if read:
            record.read, record.gather = True, False
        if isinstance(receipt, JobHandle):
            receipt._attach(record)
        link.accept(record)
        return record

    def map(
        self, target: Target | Job | Iterable[Job] | AsyncIterable[Job], items: Any = None, *, ordered: bool = False
    ) -> Outcomes:
        """Run a target for each item, or each of many jobs; outcomes come as they are done, or in order.

        Items are taken as outcomes are: memory stays bounded, however many there are. Use it as an async context
        manager: leaving it early cancels what is not done.

        Args:
            target: What gets each item as its one positional argument (a `Job` is a template); without `items`, jobs.
            items: An iterable or async iterable.
            ordered: Whether outcomes come in the order of the items.
        """
        self._check_context()
        template, source = read_map(target, items)
        return Outcomes(self, template, source, ordered=ordered)

    def stream(self, target: Target | Job, /, *args: Any, **kwargs: Any) -> Items:
        """Run a generator target and return an async iterator of what it yields.

        At most 16 values are ahead of the reader. Use it as an async context manager: leaving it early cancels the
        job. A job that fails raises its error after the last value.
        """
        self._open_link()
        return Items(self, self._submitter.make(target, args, kwargs))

    # Services

    def service(self, spec: Service) -> ServiceHandle:
        """Return a service as an async context manager: entering begins it, leaving stops it.

        ```python
        async with supervisor.service(Service("ui", target=serve)) as ui:
            await ui.wait_ready()
            print(ui.url)
        ```

        Raises:
            ConfigurationError: If its script is not there or is no Python; entering also looks at its name.
            TargetError: If the target cannot be run in a child, or the arguments do not fit.
            PayloadError: If an argument cannot travel exactly.
        """
        link = self._check_context()
        link.engine.check_state()
        from orchestrator._service import ServiceHandle

        return ServiceHandle(link, self._submitter.plan(spec))

    # The supervisor itself

    def statistics(self) -> Statistics:
        """Return a snapshot of jobs, workers and limits."""
        if self._link is None:
            raise SupervisorClosed(f"supervisor {self._options.name!r} has not been entered")
        self._check_process()
        return self._link.statistics()

    async def scale(self, workers: int) -> None:
        """Change how many workers there are; those that are too many finish their jobs first."""
        link = self._check_context()
        link.engine.check_state()
        await link.ask(link.engine.scale, whole(workers, "workers", minimum=1))

    async def set_limit(self, limit: Limit) -> None:
        """Change the limit of that name from now on; no window sees more than the new rate, as far as is known.

        Dimensions cannot be added or removed. What the other side's refusals have taken off, stays off. Requests and
        jobs that want more than is ever granted now are refused.

        Raises:
            ConfigurationError: If there is no limit of that name, or it has other dimensions.
        """
        link = self._check_context()
        if not isinstance(limit, Limit):
            raise ConfigurationError("limit", f"must be a Limit, not {limit!r:.100}")
        link.engine.check_state()
        await link.ask(link.engine.set_limit, limit)
        self._submitter.catalogue.change(limit)

    async def drain(self) -> None:
        """Take no more jobs, and return when every accepted one has its outcome."""
        link = self._check_context()
        await link.ask(link.engine.drain)


def options_of(workers: int | None, options: Mapping[str, Any]) -> Options:
    """Return checked options for a class with the signature of `Supervisor`.

    Raises:
        TypeError: If there is no such option.
        ConfigurationError: If an option has a value that it cannot have.
    """
    unknown = [name for name in options if name not in Options.__dataclass_fields__ or name == "workers"]
    if unknown:
        known = ", ".join(name for name in Options.__dataclass_fields__)
        raise TypeError(f"there is no option {unknown[0]!r}; there are {known}")
    given = dict(options)
    if given.get("restart") is None:
        given.pop("restart", None)
    return Options(workers=workers, **given)


def _require_asyncio() -> None:
    if asyncio._get_running_loop() is None or asyncio.current_task() is None:
        problem = "trio runs here" if "trio" in sys.modules else "no event loop runs here"
        raise WrongContext(
            f"Supervisor needs asyncio (or uvloop), and {problem}; use BlockingSupervisor, under trio in a thread"
        )
