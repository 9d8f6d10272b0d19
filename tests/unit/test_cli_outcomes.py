"""Lines of outcomes, and the summary that groups failures."""

from __future__ import annotations

import datetime
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from orchestrator._events import Progress
from orchestrator._models import DeathCertificate, ErrorRecord, Status
from orchestrator._progress import ProgressMeter
from orchestrator.cli._outcomes import Report, report_problem, report_settled
from orchestrator.cli._rows import InvalidLine
from orchestrator.cli._summary import KINDS_KEPT, RunSummary, duration
from orchestrator.exceptions import JobCancelled, JobCrashed, JobFailed, JobTimedOut, OrchestratorError, PayloadError

if TYPE_CHECKING:
    from orchestrator._record import Record

CERTIFICATE = DeathCertificate(
    worker="run-1",
    generation=2,
    pid=77,
    reason="signal",
    signal="SIGKILL",
    uptime=1.5,
    stderr=("a", "b"),
    last_progress=Progress(done=1, total=2, text="half"),
)


def written(report: Report) -> dict[str, Any]:
    data = report.encode()
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    loaded = json.loads(data)
    assert isinstance(loaded, dict)
    return loaded


def settled(
    status: Status,
    *,
    value: Any = None,
    error: OrchestratorError | None = None,
    key: str | None = None,
    attempts: int = 1,
) -> Record:
    job = SimpleNamespace(key=key)
    return cast(
        "Record",
        SimpleNamespace(
            number=1, job=job, status=status, value=value, error=error, attempts=attempts, run_seconds=0.0123456789
        ),
    )


def failed(error: OrchestratorError, status: Status = Status.FAILED) -> Record:
    return settled(status, error=error, key="k", attempts=2)


@pytest.mark.parametrize(
    "value", [None, True, 3, 2**80, -0.5, "é\n\u2028", [1, {"a": []}], {"b": None}, "\ud800", 1e300]
)
def test_values_are_written_exactly(value: Any) -> None:
    assert written(report_settled(3, settled(Status.SUCCEEDED, value=value))) == {
        "line": 3, "key": None, "status": "succeeded", "value": value, "attempts": 1, "seconds": 0.012346,
    }  # fmt: skip


def test_rebuilt_values_are_written_as_json() -> None:
    assert (
        written(report_settled(1, settled(Status.SUCCEEDED, value=datetime.date(2024, 2, 29))))["value"] == "2024-02-29"
    )


def test_error_of_the_target() -> None:
    record = ErrorRecord(type="shop.Bad", message="no\nprice", traceback="File x", notes=("n",), data={"code": 4})
    report = report_settled(9, failed(JobFailed("shop.Bad: no price", error=record)))
    assert written(report) == {
        "line": 9, "key": "k", "status": "failed", "attempts": 2, "seconds": 0.012346,
        "error": {
            "type": "shop.Bad", "message": "no\nprice", "traceback": "File x", "notes": ["n"], "data": {"code": 4},
        },
    }  # fmt: skip
    assert (report.kind, report.message, report.succeeded) == ("shop.Bad", "no", False)


def test_crash_tells_all_that_is_known() -> None:
    report = report_settled(9, failed(JobCrashed("it died", certificate=CERTIFICATE), Status.CRASHED))
    error = written(report)["error"]
    assert error == {
        "type": "JobCrashed", "message": "it died", "traceback": "", "reason": "signal", "exit_code": None,
        "signal": "SIGKILL", "pid": 77, "worker": "run-1", "generation": 2, "uptime": 1.5, "stderr": ["a", "b"],
        "last_progress": {"done": 1, "total": 2, "text": "half"},
    }  # fmt: skip
    assert report.kind == "crashed (SIGKILL)"


def test_timeout_shows_where_it_hung() -> None:
    report = report_settled(9, failed(JobTimedOut("too long", timeout=2.0, stack="File x"), Status.TIMED_OUT))
    assert written(report)["error"] == {
        "type": "JobTimedOut", "message": "too long", "traceback": "File x", "timeout": 2.0,
    }  # fmt: skip
    assert report.kind == "timed out"


def test_a_job_is_named_by_its_line_and_not_by_the_number_that_the_engine_gave_it() -> None:
    died = JobCrashed("job 1 (shop:buy) crashed: child 1 of job 1", certificate=CERTIFICATE)
    assert report_settled(9, failed(died, Status.CRASHED)).message == "line 9 (shop:buy) crashed: child 1 of job 1"
    raised = ErrorRecord(type="ValueError", message="job 1 (mine) is odd", traceback="")
    assert report_settled(9, failed(JobFailed("…", error=raised))).message == "job 1 (mine) is odd"


def test_failure_without_an_exception_of_the_target_is_grouped_by_its_type() -> None:
    assert report_settled(2, failed(PayloadError("args[0]", "is a set"))).kind == "PayloadError"


def test_line_that_is_no_job() -> None:
    assert written(report_problem(4, InvalidLine("key: must be a string"))) == {
        "line": 4, "key": None, "status": "failed", "attempts": 0, "seconds": 0.0,
        "error": {"type": "InvalidLine", "message": "key: must be a string", "traceback": ""},
    }  # fmt: skip


def report(line: int, status: str = "succeeded", kind: str = "", message: str = "") -> Report:
    return Report(line, status, kind, message, {})


def summarise(summary: RunSummary) -> list[str]:
    return summary.text(ProgressMeter(0.0).snapshot(39.04, final=True)).splitlines()


def test_summary_of_a_good_run() -> None:
    summary = RunSummary()
    for line in range(1_234):
        summary.add(report(line))
    assert summarise(summary) == ["1,234 jobs in 39 s: 1,234 succeeded"]
    assert summary.exit_code == 0


def test_summary_of_nothing() -> None:
    summary = RunSummary()
    assert summarise(summary) == ["0 jobs in 39 s"]
    assert summary.exit_code == 0


def test_summary_groups_failures_with_their_first_lines() -> None:
    summary = RunSummary(restarts=1, retries=2)
    summary.add(report(1))
    for line in (2, 5, 6, 9):
        summary.add(report(line, "failed", "ValueError", "bad row"))
    summary.add(report(7, "crashed", "crashed (SIGKILL)", "the child died"))
    assert summarise(summary) == [
        "6 jobs in 39 s: 1 succeeded, 4 failed, 1 crashed, 2 retries, 1 restart",
        "  4 × ValueError: bad row (lines 2, 5, 6, …)",
        "  1 × crashed (SIGKILL): the child died (line 7)",
    ]
    assert (summary.exit_code, summary.failed) == (1, 5)


def test_summary_does_not_grow_with_the_run() -> None:
    summary = RunSummary()
    for line in range(10_000):
        summary.add(report(line, "failed", f"Error{line}", "x" * 100))
    assert len(summary.failures) == KINDS_KEPT + 1
    assert len(summarise(summary)) < 20
    assert summarise(summary)[-1].endswith("other kinds")


def test_summary_of_a_run_that_was_stopped() -> None:
    summary = RunSummary(stopped="3 jobs did not succeed (--max-failures 3).", not_run=1_000)
    summary.add(report(1, "failed", "ValueError", "bad"))
    summary.add(Report(2, "cancelled", "cancelled", "…", {"attempts": 1}))
    summary.add(Report(3, "cancelled", "cancelled", "…", {"attempts": 0}))
    assert summarise(summary) == [
        "3 jobs in 39 s: 1 failed, 2 cancelled",
        "Stopped early: 3 jobs did not succeed (--max-failures 3).",
        "1,001 lines of the input were not run.",
        "  1 × ValueError: bad (line 1)",
    ]
    assert summary.exit_code == 1


@pytest.mark.parametrize(
    ("not_run", "said"),
    [(None, "The rest of the input was not run."), (1, "1 line of the input was not run."), (0, None)],
)
def test_interrupted_is_130_even_when_all_succeeded(not_run: int | None, said: str | None) -> None:
    summary = RunSummary(interrupted="SIGINT", not_run=not_run)
    summary.add(report(1))
    expected = ["1 job in 39 s: 1 succeeded", "Interrupted by SIGINT."]
    assert summarise(summary) == [*expected, *([said] if said else [])]
    assert summary.exit_code == 130


def test_a_cancelled_job_is_no_success() -> None:
    summary = RunSummary()
    summary.add(report_settled(1, settled(Status.CANCELLED, error=JobCancelled("cancelled"))))
    assert (summary.exit_code, summary.failed, summary.cancelled) == (1, 0, 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.84, "0.8 s"), (42.4, "42 s"), (187, "3:07 min"), (3599.6, "1:00:00 h"), (7800, "2:10:00 h")],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
