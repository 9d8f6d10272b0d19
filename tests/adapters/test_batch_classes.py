"""Which failure class an error has, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from orchestrator_adapters.batch._classes import failure_of
from orchestrator_adapters.batch._errors import BatchError
from orchestrator_adapters.batch._judge import import_failure
from orchestrator_adapters.batch._retries import LEAST_BUDGET, MOST_THROTTLES, Retries
from orchestrator_adapters.batch._target import check_named

from orchestrator.exceptions import (
    JobCrashed,
    JobExpired,
    JobFailed,
    JobQuarantined,
    JobTimedOut,
    PayloadError,
)


class Record:
    """What an ErrorRecord is to a reader."""

    def __init__(self, type: str, data: dict[str, Any], bases: tuple[str, ...] = (), traceback: str = "") -> None:
        self.type, self.data, self.bases, self.traceback = type, data, bases, traceback
        self.message = "text"


def failed(type: str = "ValueError", *bases: str, traceback: str = "", **data: Any) -> JobFailed:
    return JobFailed("job failed", error=Record(type, data, bases, traceback))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (failed(), "permanent"),
        (failed(code=429), "throttled"),
        (failed(status_code=429, code="rate_limited"), "throttled"),
        (failed(code=400), "permanent"),
        (failed(code=404), "permanent"),
        (failed(code=408), "transient"),
        (failed(code=409), "transient"),
        (failed(code=425), "transient"),
        (failed(code=500), "transient"),
        (failed(code=599), "transient"),
        (failed(code=1), "permanent"),  # of SystemExit, or of an errno
        (failed(code=True), "permanent"),
        (failed(code=429, failure_class="transient"), "transient"),
        (failed(failure_class="no such class", code=503), "transient"),
        (failed("ConnectionResetError", "ConnectionResetError", "ConnectionError", "OSError"), "transient"),
        (failed("httpx.ReadTimeout", "httpx.ReadTimeout", "httpx.TimeoutException"), "transient"),
        (failed("requests.exceptions.ConnectTimeout", "requests.exceptions.Timeout"), "transient"),
        (failed("TimeoutError", "TimeoutError", "OSError"), "transient"),
        (failed("FileNotFoundError", "FileNotFoundError", "OSError"), "permanent"),
        (JobTimedOut("slow", timeout=1.0), "timeout"),
        (JobCrashed("died", certificate=None), "crash"),  # type: ignore[arg-type]
        (JobQuarantined("died", certificate=None), "poison"),  # type: ignore[arg-type]
        (PayloadError("args[0].when", "is no date"), "invalid"),
        (PayloadError("parameter 'question'", "does not fit"), "invalid"),
        (PayloadError("result.x", "is a set"), "permanent"),
        (JobExpired("late"), "permanent"),
    ],
)
def test_classes(error: Exception, kind: str) -> None:
    assert failure_of(error).kind == kind


def test_what_a_service_says_of_later() -> None:
    failure = failure_of(failed(code=429, retry_after=7, quota_scope="day"))
    assert (failure.retry_after, failure.quota_scope, failure.is_exhausted) == (7.0, "day", True)
    assert failure_of(failed(code=429, quota_scope="spend")).is_exhausted
    for nonsense in (-1, "soon", float("nan"), float("inf"), True, None):
        assert failure_of(failed(code=429, retry_after=nonsense)).retry_after is None
    assert not failure_of(failed(code=429, quota_scope="minute")).is_exhausted


def test_classify_is_asked_first_and_held_to_the_classes() -> None:
    assert failure_of(failed(code=429), lambda error: "permanent").kind == "permanent"
    assert failure_of(failed(code=429), lambda error: None).kind == "throttled"
    with pytest.raises(BatchError, match="returned 'x'"):
        failure_of(failed(), lambda error: "x")
    with pytest.raises(BatchError, match="raised ZeroDivisionError"):
        failure_of(failed(), lambda error: str(1 // 0))


def test_long_messages_are_shortened() -> None:
    error = failed()
    error.error.message = "x" * 100_000  # type: ignore[misc]
    assert len(failure_of(error).message) < 5000


def decide(kind: Any, charged: int = 0, throttles: int = 0, left: int = 99, made: int = 1, **more: Any) -> Any:
    failure = failure_of(failed(failure_class=kind, **more))
    return Retries(attempts=3, share=0.2).decide(
        failure, made=made, charged=charged, throttles=throttles, budget_left=left, jitter=1.0
    )


def test_what_is_tried_again_and_when() -> None:
    for kind in ("permanent", "invalid", "crash", "poison"):
        assert decide(kind) is None
    first, second = decide("transient"), decide("transient", charged=1)
    assert (first.delay, first.charged, second.delay, second.charged) == (0.5, 1, 1.0, 2)
    assert decide("transient", charged=2) is None and decide("timeout", made=3) is None
    assert decide("transient", left=0) is None and first.spends
    assert decide("transient", retry_after=30).delay == 30 and not first.pause


def test_being_throttled_is_free_pauses_all_and_ends_somewhen() -> None:
    again = decide("throttled", charged=2, retry_after=20, left=0)
    assert again.charged == 2 and again.pause == 20 and 20 < again.delay <= 22 and not again.spends
    assert decide("throttled", throttles=3).pause == 8.0
    assert decide("throttled", throttles=MOST_THROTTLES - 1) is not None
    assert decide("throttled", throttles=MOST_THROTTLES) is None
    # Of several attempts the last one was throttled; the others were crashes.
    assert decide("throttled", made=3).charged == 2


def test_retry_budget() -> None:
    retries = Retries(share=0.2)
    assert retries.budget(0) == retries.budget(50) == LEAST_BUDGET and retries.budget(1000) == 200


def test_failures_of_the_import_are_told_from_those_of_the_handler() -> None:
    trace = 'Traceback (most recent call last):\n  File "h.py", line 1, in {}\n    import x\nModuleNotFoundError: text'
    broken = import_failure(failed("ModuleNotFoundError", traceback=trace.format("<module>")))
    assert broken is not None and "ModuleNotFoundError: text" in broken and '"h.py", line 1' in broken
    assert import_failure(failed("ModuleNotFoundError", traceback=trace.format("work"))) is None
    assert import_failure(failed()) is None and import_failure(JobExpired("late")) is None


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def work(record): ...", None),
        ("async def work(record, more=1, *, flag=False): ...", None),
        ("def work(*records): ...", None),
        ("def other(record): ...\nwork = other", None),
        ("from other import work", None),
        ("from other import *", None),
        ("def __getattr__(name): ...", None),
        ("if True:\n    def work(record): ...", None),
        ("@decorated\ndef work(): ...", None),
        ("class work:\n    def __init__(self, record): ...", None),
        ("def wrok(record): ...", "did you mean 'wrok'"),
        ("x = 1", "has no function 'work'"),
        ("def work(record, other): ...", "also needs other"),
        ("def work(record, *, flag): ...", "also needs flag"),
        ("def work(): ...", "takes no argument"),
        ("def work(record:", "line 1"),
    ],
)
def test_named_handlers_are_looked_up_without_importing(
    source: str, problem: str | None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "looked_up.py").write_text(f"{source}\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    if problem is None:
        check_named("looked_up:work")
    else:
        with pytest.raises(BatchError, match=problem):
            check_named("looked_up:work")
    check_named("no_such_module_at_all:work")  # the supervisor tells
