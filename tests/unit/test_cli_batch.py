"""A run against a scripted supervisor: every record settles once, in order if asked, within bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel
import pytest

from orchestrator._models import Job, Status
from orchestrator._progress import ProgressMeter
from orchestrator.cli._batch import MOST_PER_WORKER, ORDERED_FACTOR, BatchRun, Reorder, Window
from orchestrator.cli._options import RunOptions
from orchestrator.cli._outcomes import Report
from orchestrator.cli._rows import JobBuilder
from orchestrator.cli._sink import Sink
from orchestrator.cli._source import RecordSource
from orchestrator.cli._summary import RunSummary
from orchestrator.exceptions import JobCancelled, OrchestratorError, PayloadError, PoolBroken, TargetError

if TYPE_CHECKING:
    from orchestrator._supervisor import Supervisor


class ScriptedJob:
    """What a supervisor knows of a job that it accepted, as far as a run asks."""

    def __init__(self, number: int, job: Job, listener: Any) -> None:
        self.id = self.number = number
        self.job = job
        self.listener = listener
        self.status: Status | None = None
        self.value: Any = None
        self.error: OrchestratorError | None = None
        self.attempts = 0
        self.run_seconds = 0.0
        self.replayed = self.kept = False

    def succeed(self) -> None:
        self._settle(Status.SUCCEEDED, value=self.job.args[0], attempts=1)

    def cancel(self) -> None:
        self._settle(Status.CANCELLED, error=JobCancelled("cancelled"))

    def refuse(self, error: OrchestratorError) -> None:
        self._settle(Status.FAILED, error=error)

    def _settle(self, status: Status, **fields: Any) -> None:
        if self.status is None:
            self.status = status
            vars(self).update(fields)
            self.listener.settled(self)


class ScriptedSupervisor:
    """Settles a job when `on_submit` says so, at once or later."""

    def __init__(self, on_submit: Callable[[ScriptedJob], None]) -> None:
        self.on_submit = on_submit
        self.jobs: list[ScriptedJob] = []
        self.most = 0
        # The way to the engine, which cancels.
        self.engine = SimpleNamespace(jobs=SimpleNamespace(cancel=ScriptedJob.cancel))

    def call(self, function: Callable[[ScriptedJob], None], job: ScriptedJob) -> None:
        function(job)

    def _prepare(self, template: None, job: Job, index: int) -> tuple[ScriptedSupervisor, SimpleNamespace]:
        return self, SimpleNamespace(job=job, args=job.args, kwargs=job.kwargs)

    async def _accept(
        self, link: ScriptedSupervisor, submission: SimpleNamespace, listener: Any, **_: Any
    ) -> ScriptedJob:
        job = replace(submission.job, args=submission.args, kwargs=submission.kwargs)
        accepted = ScriptedJob(len(self.jobs) + 1, job, listener)
        self.jobs.append(accepted)
        self.most = max(self.most, sum(job.status is None for job in self.jobs[-1_000:]))
        self.on_submit(accepted)
        return accepted


async def always_ready() -> None:
    """Outcomes are written as fast as they come."""


class Run(SimpleNamespace):
    batch: BatchRun
    source: RecordSource
    summary: RunSummary
    meter: ProgressMeter
    reports: list[Report]

    def lines(self) -> list[int]:
        return [report.line for report in self.reports]


def make_run(
    tmp_path: Path,
    supervisor: ScriptedSupervisor,
    lines: list[Any],
    *,
    ordered: bool = False,
    max_failures: int | None = None,
    window: int = 4,
) -> Run:
    path = tmp_path / "input.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    options = RunOptions(source=path, target="a:b")
    source = RecordSource(options)
    source.start()
    reports: list[Report] = []
    summary, meter = RunSummary(), ProgressMeter(0.0)
    batch = BatchRun(
        cast("Supervisor", supervisor),
        source,
        JobBuilder(options),
        report=reports.append,
        output=cast("Sink", SimpleNamespace(is_full=False, ready=always_ready)),
        meter=meter,
        summary=summary,
        ordered=ordered,
        max_failures=max_failures,
        window=cast("Window", SimpleNamespace(size=window, settled=lambda _now: None)),
    )
    return Run(batch=batch, source=source, summary=summary, meter=meter, reports=reports)


async def finish(run: Run) -> None:
    with anyio.fail_after(10):
        await run.batch.run()
        assert await run.source.count() is not None
        while not run.source.ended and not run.source._stopped:
            await run.source.wait()


async def test_each_record_settles_once(tmp_path: Path) -> None:
    supervisor = ScriptedSupervisor(ScriptedJob.succeed)
    run = make_run(tmp_path, supervisor, list(range(5_000)))
    await finish(run)
    assert sorted(run.lines()) == list(range(1, 5_001))
    assert (run.meter.successful, run.meter.failed) == (5_000, 0)
    assert run.source.total == run.source.taken == 5_000


async def test_no_more_than_the_window_is_in_flight(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    supervisor = ScriptedSupervisor(lambda job: cast("None", loop.call_soon(job.succeed)))
    run = make_run(tmp_path, supervisor, list(range(500)), window=7)
    await finish(run)
    assert supervisor.most == 7
    assert len(run.reports) == 500


async def test_lines_that_are_no_jobs_fail_and_the_run_goes_on(tmp_path: Path) -> None:
    def refuse_some(job: ScriptedJob) -> None:
        if job.job.args[0] == 2:
            raise PayloadError("args[0]", "is too deep")
        if job.job.args[0] == 3:
            raise TargetError("no such target")
        job.succeed()

    run = make_run(tmp_path, ScriptedSupervisor(refuse_some), ["nonsense", "", 1, 2, 3, 4], ordered=True)
    await finish(run)
    assert [(report.line, report.kind) for report in run.reports] == [
        (1, "InvalidLine"), (3, ""), (4, "PayloadError"), (5, "TargetError"), (6, ""),
    ]  # fmt: skip
    assert (run.meter.successful, run.meter.failed, run.summary.exit_code) == (2, 3, 1)


async def test_ordered_keeps_the_order_of_the_input_and_its_memory_is_bounded(tmp_path: Path) -> None:
    """The first job ends last: what waits for it is bounded, and comes out after it in order."""
    window = 4
    stuck = anyio.Event()

    def hold_the_first(job: ScriptedJob) -> None:
        if job.job.args[0] == 0:
            return
        job.succeed()
        if job.job.args[0] == window * ORDERED_FACTOR - 1:
            stuck.set()

    supervisor = ScriptedSupervisor(hold_the_first)
    run = make_run(tmp_path, supervisor, list(range(100)), ordered=True, window=window)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(finish, run)
        with anyio.fail_after(10):
            await stuck.wait()
        await anyio.wait_all_tasks_blocked()
        assert len(supervisor.jobs) == window * ORDERED_FACTOR
        assert run.reports == []
        supervisor.jobs[0].succeed()
    assert run.lines() == list(range(1, 101))


@pytest.mark.parametrize("ordered", [False, True])
async def test_max_failures_cancels_the_rest_and_settles_all_that_was_read(tmp_path: Path, ordered: bool) -> None:
    supervisor = ScriptedSupervisor(lambda job: None)
    run = make_run(tmp_path, supervisor, [1, 2, "bad", "bad", *range(1_000)], max_failures=2, ordered=ordered)
    await finish(run)
    assert [(report.line, report.status) for report in sorted(run.reports, key=lambda report: report.line)] == [
        (1, "cancelled"), (2, "cancelled"), (3, "failed"), (4, "failed"),
    ]  # fmt: skip
    assert run.summary.stopped == "2 jobs did not succeed (--max-failures 2)."
    assert run.source.taken == 4
    assert await run.source.count() == 1_004


async def test_drain_runs_what_was_read_and_stop_cancels_it(tmp_path: Path) -> None:
    full = anyio.Event()

    def fill(job: ScriptedJob) -> None:
        if job.job.args[0] == 3:
            full.set()

    supervisor = ScriptedSupervisor(fill)
    run = make_run(tmp_path, supervisor, list(range(100)), window=4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(finish, run)
        with anyio.fail_after(10):
            await full.wait()
        run.batch.drain()
        for job in supervisor.jobs[:2]:
            job.succeed()
        await anyio.wait_all_tasks_blocked()
        assert len(run.reports) == 2
        run.batch.stop()
    assert [report.status for report in run.reports] == ["succeeded", "succeeded", "cancelled", "cancelled"]
    assert run.source.taken == 4


async def test_broken_pool_ends_the_run_and_says_why(tmp_path: Path) -> None:
    def break_at_2(job: ScriptedJob) -> None:
        if job.job.args[0] == 2:
            raise PoolBroken("children keep failing to start")

    run = make_run(tmp_path, ScriptedSupervisor(break_at_2), [1, 2, 3])
    await finish(run)
    assert [(report.line, report.status) for report in run.reports] == [(2, "failed"), (1, "cancelled")]
    assert run.summary.stopped == (
        "children keep failing to start. See `orchestrator doctor` for what this host lacks."
    )


def test_window_follows_the_speed_of_the_jobs() -> None:
    window = Window(slots=4, workers=2, now=0.0)
    assert window.size == 8
    for job in range(1, 301):
        window.settled(job / 100)
    assert 90 <= window.size <= 110
    for job in range(1, 100_001):
        window.settled(3 + job / 10_000)
    assert window.size == 2 * MOST_PER_WORKER
    window.settled(1_000.0)
    assert window.size == 8


def test_reorder() -> None:
    reorder: Reorder[str] = Reorder()
    assert list(reorder.put(1, "b")) == []
    assert list(reorder.put(2, "c")) == []
    assert list(reorder.put(0, "a")) == ["a", "b", "c"]
    assert list(reorder.put(3, "d")) == ["d"]
