"""`orchestrator run`: put source, supervisor, output, display and signals together and end with an exit code."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import anyio

from orchestrator._progress import ProgressMeter
from orchestrator._supervisor import Supervisor
from orchestrator.cli._batch import BatchRun, Window
from orchestrator.cli._console_log import configure_logging
from orchestrator.cli._display import BarDisplay, Display, make_display
from orchestrator.cli._journal import META
from orchestrator.cli._options import RunOptions, UsageProblem
from orchestrator.cli._rows import JobBuilder
from orchestrator.cli._signals import interrupts
from orchestrator.cli._sink import Sink
from orchestrator.cli._source import RecordSource
from orchestrator.cli._summary import RunSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from orchestrator._progress import ProgressSnapshot
    from orchestrator.cli._outcomes import Report

EXIT_INTERRUPTED = 130
# A few hundred megabytes are counted in that time; for more, the summary says that the rest was not run.
COUNT_DEADLINE = 5.0
# What is left to write at the end gets this long: a reader that is stuck must not keep us from exiting.
CLOSE_DEADLINE = 2.0


def run(options: RunOptions, watch: Callable[[Supervisor], Coroutine[Any, Any, None]] | None = None) -> int:
    """Run every job of the input and return the exit code.

    Args:
        options: What to run and how, checked.
        watch: Runs beside the jobs, and is cancelled when they have ended.

    Raises:
        UsageProblem: If the input or the output cannot be opened; nothing has been started then.
        OrchestratorError: If this host cannot run children.
    """
    make_importable(options)
    return anyio.run(_Session(options, watch).run, backend="asyncio")


def make_importable(options: RunOptions) -> None:
    """Let targets be found in the current folder, and in `--cwd`, as `python -m` would.

    Children take their `sys.path` from this process.
    """
    if sys.flags.safe_path:
        return
    folders = [os.getcwd()] if options.cwd is None else [str(options.cwd.absolute()), os.getcwd()]
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]


class _Session:
    """One call of `orchestrator run`."""

    def __init__(self, options: RunOptions, watch: Callable[[Supervisor], Coroutine[Any, Any, None]] | None) -> None:
        self._options = options
        self._watch = watch
        self._summary = RunSummary()
        self._meter = ProgressMeter(time.monotonic())
        self._supervisor: Supervisor | None = None
        self._batch: BatchRun | None = None

    async def run(self) -> int:
        options = self._options
        self._errors = Sink(2)
        self._display = make_display(options.progress, self._errors)
        configure_logging(self._display.print, options.log_level, self._line_of)
        try:
            self._source = RecordSource(options)
            with interrupts(self._interrupted, self._kill):
                self._source.start()
                builder = JobBuilder(options)
                builder.columns = await self._source.columns()
                # Opened only now: a header that is wrong must not cost earlier outcomes.
                with _output_descriptor(options) as descriptor:
                    progress = await self._run_to(descriptor, builder)
            self._errors.write(f"{self._summary.text(progress)}\n".encode())
        except BaseException:
            self._display.close(None)
            raise
        finally:
            with anyio.move_on_after(CLOSE_DEADLINE, shield=True):
                await self._errors.aclose()
        return self._summary.exit_code

    async def _run_to(self, descriptor: int, builder: JobBuilder) -> ProgressSnapshot:
        outcomes = Sink(descriptor, self._output_failed)
        try:
            await self._run_all(builder, *self._route(descriptor, outcomes))
            await self._count_rest()
            progress = self._meter.snapshot(time.monotonic(), final=True)
            self._display.close(progress)
            await outcomes.aclose()
        except BaseException:
            with anyio.move_on_after(CLOSE_DEADLINE, shield=True):
                await outcomes.aclose()
            raise
        return progress

    async def _run_all(self, builder: JobBuilder, output: Sink, report: Callable[[Report], None]) -> None:
        options = self._options
        async with self._make_supervisor() as supervisor:
            self._supervisor = supervisor
            if options.journal is not None:
                supervisor._describe_run(META, options.journal.about)
            workers = len(supervisor.statistics().workers)
            self._batch = BatchRun(
                supervisor,
                self._source,
                builder,
                report=report,
                output=output,
                meter=self._meter,
                summary=self._summary,
                ordered=options.ordered,
                max_failures=options.max_failures,
                journal=options.journal,
                window=Window(workers * options.concurrency, workers, time.monotonic()),
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._show_progress)
                if self._watch is not None:
                    tasks.start_soon(self._watch, supervisor)
                await self._batch.run()
                tasks.cancel_scope.cancel()
            last = supervisor.statistics()
        self._summary.resumable = options.journal is not None
        self._summary.restarts, self._summary.retries = last.restarts, last.retries
        if self._source.problem is not None and self._summary.stopped is None:
            self._summary.stopped = f"the input could not be read further: {self._source.problem}."

    def _make_supervisor(self) -> Supervisor:
        options = self._options
        return Supervisor(
            options.workers,
            name="run",
            concurrency=options.concurrency,
            limits=options.limits,
            command=None if options.python is None else [options.python],
            cwd=options.cwd,
            max_rss=options.max_rss,
            memory_limit=options.memory_limit,
            hang_timeout=options.hang_timeout,
            preload=options.preload,
            journal=None if options.journal is None else options.journal.journal,
        )

    def _route(self, descriptor: int, outcomes: Sink) -> tuple[Sink, Callable[[Report], None]]:
        """Return where outcomes go in the end, and what takes them."""
        if isinstance(self._display, BarDisplay) and os.isatty(descriptor):
            # Bar and outcomes share the terminal: only the display knows where the bar is.
            display: Display = self._display
            return self._errors, lambda report: display.print(report.encode().decode())
        return outcomes, lambda report: outcomes.write(report.encode())

    async def _show_progress(self) -> None:
        if isinstance(self._display, BarDisplay):
            self._show()
        due = time.monotonic()
        while True:
            due = max(due + self._display.interval, time.monotonic())
            await anyio.sleep(due - time.monotonic())
            self._show()

    def _show(self) -> None:
        assert self._supervisor is not None
        self._meter.total = self._source.total
        self._display.show(self._meter.snapshot(time.monotonic()), self._supervisor.statistics())

    async def _count_rest(self) -> None:
        total: int | None = None
        with anyio.move_on_after(COUNT_DEADLINE):
            total = await self._source.count()
        self._meter.total = total
        if total is not None:
            self._summary.not_run = max(0, total - self._source.taken)
        elif not self._source.ended or self._source.problem is not None:
            self._summary.not_run = None

    def _interrupted(self, count: int, name: str) -> None:
        self._summary.interrupted = name
        if count == 1:
            self._say(f"{name}: reading no more; finishing what was read. Again stops, a third time kills.")
            self._source.stop()
        else:
            self._say(f"{name}: stopping; running jobs are cancelled. Once more kills.")
            if self._batch is not None:
                self._batch.stop()

    def _say(self, text: str) -> None:
        self._display.print(f"{text}\n")

    def _output_failed(self, error: OSError) -> None:
        if self._summary.stopped is None:
            reader_gone = isinstance(error, BrokenPipeError)
            reason = (
                "whoever read the outcomes is gone" if reader_gone else f"outcomes cannot be written: {error.strerror}"
            )
            self._summary.stopped = f"{reason}."
        if self._batch is not None:
            self._batch.stop()
        else:
            self._source.stop()

    def _line_of(self, job: int) -> int | None:
        return None if self._batch is None else self._batch.line_of(job)

    def _kill(self) -> NoReturn:
        """Kill the children and everything they started, and leave at once; called in a signal handler."""
        try:
            if self._supervisor is not None:
                self._supervisor._kill_now()
            self._display.abandon()
        finally:
            os._exit(EXIT_INTERRUPTED)


@contextmanager
def _output_descriptor(options: RunOptions) -> Iterator[int]:
    if options.output is None:
        yield 1
        return
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | (os.O_APPEND if options.append else os.O_TRUNC)
    try:
        descriptor = os.open(options.output, flags, 0o666)
    except OSError as error:
        raise UsageProblem(f"--output: {str(options.output)!r} cannot be opened: {error.strerror}.") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
