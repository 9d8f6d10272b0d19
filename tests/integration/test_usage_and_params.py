"""What jobs use, where they ran, what all of them are told, and what their exceptions say of how to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import using

from orchestrator import BlockingSupervisor, Job, Journal, RetryPolicy, Supervisor
from orchestrator.exceptions import ConfigurationError, JobFailed

BOTH = pytest.mark.parametrize("isolation", ["process", "inline"])
AGAIN = RetryPolicy(attempts=3, on="crash", backoff=0.01)


async def outcome_of(supervisor: Supervisor, job: Any, **kwargs: Any) -> Any:
    return await (await supervisor.submit(job, **kwargs)).outcome()


@BOTH
async def test_usage_is_added_up(isolation: Any) -> None:
    async with Supervisor(workers=1, isolation=isolation) as supervisor:
        done = await outcome_of(supervisor, using.spend, prompt=12, output=0.5)
        assert (done.value, done.usage, done.isolation) == (1, {"prompt": 12, "output": 0.5}, isolation)
        assert type(done.usage["prompt"]) is int
        assert (await outcome_of(supervisor, using.spend_often, times=500)).usage == {"requests": 500}
        assert (await outcome_of(supervisor, using.spend_async, prompt=2)).usage == {"prompt": 2}
        failed = await outcome_of(supervisor, using.spend_and_fail)
        assert (failed.status, failed.usage) == ("failed", {"prompt": 5})
        none = await outcome_of(supervisor, using.spend)
        assert none.usage == {}
        for bad in ("ten", True, None, float("nan")):
            refused = await outcome_of(supervisor, using.spend, **cast("Any", {"prompt": bad}))
            assert refused.status == "failed", bad


async def test_a_job_that_never_ran_has_neither() -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(using.spend)
        handle.cancel()
        outcome = await handle.outcome()
    if outcome.attempts == 0:
        assert (outcome.usage, outcome.isolation) == ({}, None)


async def test_usage_of_attempts_that_crashed_counts(tmp_path: Path) -> None:
    marks = str(tmp_path / "marks")
    async with Supervisor(workers=1) as supervisor:
        outcome = await outcome_of(supervisor, Job(using.spend_and_die, args=(marks, 2), retry=AGAIN))
        assert (outcome.value, outcome.attempts, outcome.usage) == ("done", 3, {"prompt": 9})
        crashed = await outcome_of(supervisor, Job(using.spend_and_die, args=(str(tmp_path / "more"), 1)))
    assert (crashed.status, crashed.usage) == ("crashed", {"prompt": 3})


@BOTH
async def test_a_journal_keeps_usage_with_the_outcome(tmp_path: Path, isolation: Any) -> None:
    journal = Journal(tmp_path / "j.db")
    jobs = [Job(using.spend, kwargs={"prompt": n}, key=f"k{n}") for n in range(1, 4)]
    jobs.append(Job(using.spend, key="nothing"))
    async with Supervisor(workers=1, isolation=isolation, journal=journal) as supervisor:
        first = [await outcome_of(supervisor, job) for job in jobs]
    async with Supervisor(workers=1, journal=journal) as supervisor:
        again = [await outcome_of(supervisor, job) for job in jobs]
        assert supervisor.statistics().restarts == 0
    assert [o.usage for o in again] == [o.usage for o in first] == [{"prompt": 1}, {"prompt": 2}, {"prompt": 3}, {}]
    assert {o.isolation for o in again} == {isolation}


@BOTH
async def test_params(isolation: Any) -> None:
    params: dict[str, Any] = {"model": {"name": "ünï", "sizes": [1, 2]}, "none": None}
    async with Supervisor(workers=1, isolation=isolation, params=params) as supervisor:
        params["model"]["name"] = "changed after"
        expected = {"model": {"name": "ünï", "sizes": [1, 2]}, "none": None}
        for _ in range(2):
            assert await supervisor.run(using.told) == expected
        assert await supervisor.run(using.told_async) == expected
    async with Supervisor(workers=1, isolation=isolation) as supervisor:
        assert await supervisor.run(using.told) == {}


def test_params_are_there_when_modules_are_preloaded() -> None:
    with BlockingSupervisor(workers=1, params={"a": 1}, preload=["using"]) as supervisor:
        assert supervisor.run("using:told_early") == {"a": 1}
    assert using.told() == {}  # outside a child


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ([], "must be a mapping"),
        ({"a": {"b": object()}}, "params.a.b"),
        ({1: 2}, "keys are strings"),
        ({"a": "x" * 2000}, "max_message_bytes"),
    ],
)
def test_params_that_cannot_travel(params: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Supervisor(params=params, max_message_bytes=1024)


@BOTH
async def test_exceptions_say_how_to_go_on(isolation: Any) -> None:
    said = {"code": 429, "status_code": "THROTTLED", "retry_after": 2.5, "failure_class": "throttled"}
    said["quota_scope"] = "day"
    async with Supervisor(workers=1, isolation=isolation) as supervisor:
        with pytest.raises(JobFailed) as failed:
            await supervisor.run(using.refuse, **said)
        assert failed.value.error.data == said
        with pytest.raises(JobFailed) as failed:
            await supervisor.run(using.refuse, code=True, retry_after="soon", failure_class=3, quota_scope=[])
        assert failed.value.error.data == {}
        with pytest.raises(JobFailed, match="still told") as failed:
            await supervisor.run(using.refuse_hostile)
        assert failed.value.error.data == {}
        assert "using.Hostile" in failed.value.error.bases
