"""Outside effects: never repeated silently, given to later attempts, reconciled when nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import effecting
import pytest

from orchestrator import Job, RetryPolicy, Supervisor, child
from orchestrator._models import Status
from orchestrator.exceptions import ConfigurationError, JobIndeterminate, TargetError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator import Outcome

ON_CRASH = RetryPolicy(attempts=3, on="any", backoff=0.01)


async def _outcome(job: Job, **options: str) -> Outcome:
    async with Supervisor(workers=1, **options) as supervisor:  # type: ignore[arg-type]
        return await (await supervisor.submit(job)).outcome()


def _post(path: Path, die: str, **options: object) -> Job:
    return Job(effecting.post, args=(str(path), die), effects="external", **options)  # type: ignore[arg-type]


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("die", ["open", "late"])
async def test_a_death_within_an_effect_is_indeterminate(tmp_path: Path, die: str) -> None:
    path = tmp_path / "board"
    outcome = await _outcome(_post(path, die, retry=ON_CRASH))
    assert outcome.status is Status.INDETERMINATE
    assert isinstance(outcome.error, JobIndeterminate)
    assert outcome.error.effect == "line"
    assert "effect_begin('line')" in str(outcome.error)
    assert _lines(tmp_path / "board.begun") == 1, "it ran again"


@pytest.mark.parametrize(
    ("effects", "remedy"),
    [("pure", "effects='external' can have reconcile="), ("idempotent", "can have"), ("at_most_once", "Look it up")],
)
async def test_an_open_effect_counts_whatever_the_job_declares(tmp_path: Path, effects: str, remedy: str) -> None:
    retry = None if effects == "at_most_once" else ON_CRASH
    job = Job(effecting.post, args=(str(tmp_path / "board"), "late"), effects=effects, retry=retry)  # type: ignore[arg-type]
    outcome = await _outcome(job)
    assert outcome.status is Status.INDETERMINATE
    assert remedy in str(outcome.error)
    assert _lines(tmp_path / "board.begun") == 1, "it ran again"


async def test_an_effect_that_is_done_is_given_to_the_next_attempt(tmp_path: Path) -> None:
    path = tmp_path / "board"
    outcome = await _outcome(_post(path, "after", retry=ON_CRASH))
    assert outcome.value == "was there: {'at': 1}"
    assert _lines(path) == 1


async def test_a_death_before_any_effect_is_for_the_retry_policy(tmp_path: Path) -> None:
    assert (await _outcome(_post(tmp_path / "a", "before", retry=ON_CRASH))).value == "added"
    assert (await _outcome(_post(tmp_path / "b", "before"))).status is Status.CRASHED


async def test_an_error_within_an_effect_is_indeterminate(tmp_path: Path) -> None:
    job = Job(effecting.post_and_raise, args=(str(tmp_path / "board"),), effects="external", retry=ON_CRASH)
    outcome = await _outcome(job)
    assert outcome.status is Status.INDETERMINATE
    assert "ConnectionError: no answer" in str(outcome.error)


@pytest.mark.parametrize(("die", "value"), [("open", None), ("late", "was there: None")])
async def test_a_reconcile_function_decides(tmp_path: Path, die: str, value: str | None) -> None:
    path = tmp_path / "board"
    outcome = await _outcome(_post(path, die, reconcile=effecting.is_there))
    if value is None:
        # It did not happen, so the job runs again, and dies again in the same place until it is given up.
        assert outcome.status in (Status.QUARANTINED, Status.INDETERMINATE)
        assert _lines(path) == 0
    else:
        assert outcome.value == value
        assert _lines(path) == 1


async def test_a_reconcile_function_whose_child_dies_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "board"
    outcome = await _outcome(_post(path, "late", reconcile=effecting.dies_and_looks))
    assert outcome.value == "was there: None"
    assert (_lines(path), _lines(tmp_path / "board.asked")) == (1, 2)


async def test_a_reconcile_function_that_kills_its_children_is_given_up(tmp_path: Path) -> None:
    outcome = await _outcome(_post(tmp_path / "board", "late", reconcile=effecting.dies))
    assert outcome.status is Status.INDETERMINATE
    assert "its reconcile function crashed" in str(outcome.error)
    assert _lines(tmp_path / "board.asked") == 2, "three deaths in all"


@pytest.mark.parametrize(
    ("function", "problem"),
    [(effecting.cannot_tell, "could not tell"), (effecting.breaks, "LookupError: the board is down")],
)
async def test_a_reconcile_function_that_knows_nothing(tmp_path: Path, function: object, problem: str) -> None:
    outcome = await _outcome(_post(tmp_path / "board", "late", reconcile=function))
    assert outcome.status is Status.INDETERMINATE
    assert problem in str(outcome.error)


async def test_at_most_once_is_never_run_twice(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    outcome = await _outcome(Job(effecting.at_most_once, args=(str(path),), effects="at_most_once"))
    assert outcome.status is Status.INDETERMINATE
    assert _lines(path) == 1


@pytest.mark.parametrize("isolation", ["process", "inline"])
async def test_effects_of_async_jobs(tmp_path: Path, isolation: str) -> None:
    path = tmp_path / "board"
    job = Job(effecting.post_async, args=(str(path),), effects="external")
    outcome = await _outcome(job, isolation=isolation)
    assert outcome.value is False
    assert _lines(path) == 1


def test_outside_a_child_effects_simply_happen() -> None:
    assert not child.effect_begin("line").done
    child.effect_done("line", 1)
    with pytest.raises(TypeError, match="ref"):
        child.effect_done("line", object())


def test_options_that_contradict_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="reconcile"):
        Job(effecting.post, reconcile=effecting.is_there)
    with pytest.raises(ConfigurationError, match="at_most_once"):
        Job(effecting.post, effects="at_most_once", retry=ON_CRASH)


async def test_a_reconcile_function_that_no_child_can_have_is_refused_by_name() -> None:
    async with Supervisor(workers=1) as supervisor:
        with pytest.raises(TargetError, match=r"^job\.reconcile: a lambda"):
            await supervisor.submit(Job(effecting.post, effects="external", reconcile=lambda key: True))
