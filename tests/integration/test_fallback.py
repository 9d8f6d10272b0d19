"""Supervisors with a fallback go on inside this process where children cannot be had, from the start or midway."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import falling
import pytest
import samples

from orchestrator import (
    BlockingSupervisor,
    Job,
    Journal,
    Limit,
    RestartPolicy,
    RetryPolicy,
    Supervisor,
    _child_process,
    _frozen,
    _launch,
    _link,
)
from orchestrator._spawn import NoSpawn
from orchestrator.child import _target
from orchestrator.exceptions import ConfigurationError, JobCrashed, LaunchError, PoolBroken, SelfSpawnError

QUICK = RestartPolicy(backoff=0.01, max_backoff=0.02, cooldown=0.05)
posix = pytest.mark.skipif(os.name == "nt", reason="signals and /bin/false")


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FALLING_HOST", str(os.getpid()))
    monkeypatch.setenv("FALLING_STARTS", str(tmp_path / "starts"))
    monkeypatch.setenv("FALLING_FLAG", str(tmp_path / "flag"))


def options(**more: Any) -> dict[str, Any]:
    return {"workers": 2, "fallback": "inline", "restart": QUICK, "grace": 0.3, **more}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the reasons of the fallbacks that were logged."""
    found = [record.orchestrator for record in caplog.records if record.getMessage().startswith("supervisor.fell_back")]  # type: ignore[attr-defined]
    return [said["reason"] for said in found]


def starts(folder: Path) -> int:
    path = folder / "starts"
    return len(path.read_bytes()) if path.exists() else 0


def spawn_fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def spawn(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(_child_process, "spawn", spawn)


def check(supervisor: Supervisor | BlockingSupervisor, reason: str, submitted: int) -> None:
    found = supervisor.statistics()
    assert (found.state, found.isolation, found.broken_reason) == ("open", "inline", None)
    assert found.fallback_reason is not None and reason in found.fallback_reason
    assert {worker.isolation for worker in found.workers} == {"inline"}
    assert (found.submitted, sum(found.settled.values())) == (submitted, submitted)


@pytest.mark.parametrize("error", [NoSpawn("not on any loop"), LaunchError("no processes here")])
async def test_no_child_at_the_beginning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    spawn_fails(monkeypatch, error)
    async with Supervisor(**options(limits=[Limit("door", concurrency=1)])) as supervisor:
        assert await supervisor.run(samples.add, 1, 2) == 3
        assert await supervisor.run(samples.add_async, 1, 2) == 3
        assert await supervisor.run(falling.permitted, 4) == 4
        outcome = await (await supervisor.submit("samples:add", 1, b=1)).outcome()
        assert (outcome.value, outcome.isolation) == (2, "inline")
        check(supervisor, str(error), 4)
    assert told(caplog) == [str(error)]


def test_no_child_at_the_beginning_of_a_blocking_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spawn_fails(monkeypatch, NoSpawn("not on any loop"))
    with BlockingSupervisor(**options()) as supervisor:
        assert supervisor.run(samples.add, 1, 2) == 3
        with supervisor.map(samples.add_async, []) as outcomes:
            assert list(outcomes) == []
        check(supervisor, "not on any loop", 1)
    assert told(caplog) == ["not on any loop"]


async def test_no_other_loop_at_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    spawn_fails(monkeypatch, NoSpawn("not on this loop"))

    def new_loop() -> NoReturn:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(_link, "new_loop", new_loop)
    async with Supervisor(**options()) as supervisor:
        assert await supervisor.run(samples.add_async, 1, 2) == 3
        check(supervisor, "not on this loop", 1)
    with pytest.raises(OSError, match="Too many"):
        await Supervisor(workers=1).__aenter__()


async def test_without_a_fallback_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    spawn_fails(monkeypatch, LaunchError("no processes here"))
    with pytest.raises(LaunchError, match="no processes here"):
        await Supervisor(workers=1).__aenter__()
    with pytest.raises(ConfigurationError, match="fallback"):
        Supervisor(fallback="processes")  # type: ignore[arg-type]


async def test_a_secret_that_cannot_be_had_is_no_reason(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> str:
        raise OSError

    with pytest.raises(LaunchError, match="the function for KEY raised OSError"):
        await Supervisor(**options(secrets={"KEY": fail})).__aenter__()
    assert told(caplog) == []


async def test_secrets_are_there_after_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    spawn_fails(monkeypatch, LaunchError("no processes here"))
    async with Supervisor(**options(secrets={"FALLING_KEY": lambda: "a-secret-value"})) as supervisor:
        assert await supervisor.run(os.getenv, "FALLING_KEY") == "a-secret-value"
    assert "FALLING_KEY" not in os.environ


async def test_frozen_app_that_is_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frozen, "is_frozen", lambda: True)
    async with Supervisor(**options()) as supervisor:
        assert await supervisor.run(samples.add, 1, 2) == 3
        check(supervisor, "freeze_support", 1)


async def test_an_import_of_the_main_script_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_target, "loading_main", True)
    with pytest.raises(SelfSpawnError):
        _launch.check_host(children=False)
    with pytest.raises(SelfSpawnError):
        await Supervisor(**options()).__aenter__()
    with pytest.raises(SelfSpawnError):
        BlockingSupervisor(**options()).open()


async def test_options_of_processes_are_said_to_be_ignored(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    given = options(command=[str(tmp_path / "none")], hang_timeout=60, memory_limit=2**30, spares=1)
    async with Supervisor(**given) as supervisor:
        assert await supervisor.run(samples.add, 1, 2) == 3
        check(supervisor, "there is no", 1)
    (ignored,) = [record.orchestrator for record in caplog.records if "options_ignored" in record.getMessage()]  # type: ignore[attr-defined]
    assert ignored["options"] == ["command", "hang_timeout", "memory_limit", "spares"]


@posix
async def test_command_that_exits(caplog: pytest.LogCaptureFixture) -> None:
    async with Supervisor(**options(command=["/bin/false"], spares=1)) as supervisor:
        async with supervisor.map(samples.fail, ["a", "b"], ordered=True) as outcomes:
            assert [str(outcome.error.error.message) async for outcome in outcomes] == ["a", "b"]
        check(supervisor, "exited with code 1", 2)
        assert len(supervisor.statistics().workers) == 2
    assert len(told(caplog)) == 1


async def test_preload_that_fails_in_children_only(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with Supervisor(**options(preload=["falling:fail_in_children"])) as supervisor:
        assert await supervisor.run(samples.add, 1, 2) == 3
        check(supervisor, "libchild.so.3 is missing", 1)
        before = starts(tmp_path)
        assert before == 6
        # No canary, however long ago the pool broke: its cooldown is over many times.
        await asyncio.sleep(0.3)
        assert await supervisor.run(samples.add, 1, 2) == 3
        assert starts(tmp_path) == before
    (record,) = [record for record in caplog.records if record.getMessage().startswith("supervisor.fell_back")]
    assert record.levelno == logging.WARNING


async def test_preload_that_fails_here_too() -> None:
    async with Supervisor(**options(preload=["falling:fail_anywhere"])) as supervisor:
        with pytest.raises(PoolBroken, match="libany"):
            await supervisor.run(samples.add, 1, 2)
        found = supervisor.statistics()
        assert (found.state, found.isolation) == ("broken", "inline")


def lines(path: Path) -> Counter[int]:
    return Counter(map(int, path.read_bytes().split()))


@posix
async def test_a_thousand_jobs_wait_while_the_pool_breaks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    marks = tmp_path / "marks"
    async with Supervisor(**options(preload=["falling:die_in_children"])) as supervisor:
        handles = [await supervisor.submit(falling.work, str(marks), number) for number in range(1000)]
        outcomes = [await handle.outcome() for handle in handles]
        assert [outcome.value for outcome in outcomes] == list(range(1000))
        assert {(outcome.attempts, outcome.isolation) for outcome in outcomes} == {(1, "inline")}
        check(supervisor, "SIGKILL", 1000)
        assert supervisor.statistics().settled == {"succeeded": 1000}
    assert lines(marks) == Counter(range(1000))
    assert len(told(caplog)) == 1


@posix
def test_a_thousand_jobs_wait_in_a_blocking_one(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with BlockingSupervisor(**options(preload=["falling:die_in_children"])) as supervisor:
        jobs: Iterable[Job] = (Job(falling.work, args=(str(marks), number)) for number in range(1000))
        with supervisor.map(jobs) as outcomes:
            assert sorted(outcome.value for outcome in outcomes) == list(range(1000))
        check(supervisor, "SIGKILL", 1000)
    assert lines(marks) == Counter(range(1000))


@posix
@pytest.mark.parametrize("durable", [False, True])
async def test_the_pool_breaks_midway(tmp_path: Path, durable: bool, caplog: pytest.LogCaptureFixture) -> None:
    marks = tmp_path / "marks"
    journal = Journal(tmp_path / "journal.db") if durable else None
    limit = Limit("door", concurrency=2)
    given = options(preload=["falling:die_when_flagged"], journal=journal, max_jobs=100, limits=[limit])
    async with Supervisor(**given) as supervisor:
        jobs = [
            Job(falling.raise_flag, args=(str(marks), n, 201), key=f"k{n}", limits={"door": 1} if n % 50 == 0 else {})
            for n in range(1000)
        ]
        handles = [await supervisor.submit(job) for job in jobs]
        outcomes = [await handle.outcome() for handle in handles]
        assert [outcome.value for outcome in outcomes] == list(range(1000))
        where = Counter(outcome.isolation for outcome in outcomes)
        assert where["process"] >= 150 and where["inline"] >= 100 and sum(where.values()) == 1000
        found = supervisor.statistics()
        assert (found.settled, found.queued, found.running, found.waiting) == ({"succeeded": 1000}, 0, 0, 0)
        assert [limit.held for limit in found.limits] == [0]
    assert lines(marks) == Counter(range(1000))
    assert len(told(caplog)) == 1


@posix
async def test_the_next_supervisor_resumes_what_a_fallen_back_one_left(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    journal = Journal(tmp_path / "journal.db")
    given = options(preload=["falling:die_in_children"], journal=journal, on_exit="cancel")
    jobs = [Job(falling.work, args=(str(marks), n), key=f"k{n}") for n in range(1000)]
    async with Supervisor(**given) as supervisor:
        handles = [await supervisor.submit(job) for job in jobs]
        await handles[0].outcome()
        done = {handle.key for handle in handles if handle.state == "succeeded"}
    assert done
    async with Supervisor(workers=2, journal=journal) as supervisor:
        outcomes = [await (await supervisor.submit(job)).outcome() for job in jobs]
        assert supervisor.statistics().isolation == "process"
    assert [outcome.value for outcome in outcomes] == list(range(1000))
    assert {outcome.isolation for outcome in outcomes if outcome.key in done} == {"inline"}
    # A job that was cancelled with its supervisor may have run: it is pure.
    assert set(lines(marks)) == set(range(1000))


@posix
async def test_a_job_that_killed_a_child_does_not_get_at_the_host(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    retry = RetryPolicy(attempts=3, on="crash", backoff=0.01)
    async with Supervisor(**options(workers=1, preload=["falling:die_when_flagged"])) as supervisor:
        killer = await supervisor.submit(Job(falling.kill_child, args=(str(marks),), retry=retry))
        others = [await supervisor.submit(samples.add, number, 1) for number in range(20)]
        outcome = await killer.outcome()
        assert [await other.result() for other in others] == list(range(1, 21))
        assert isinstance(outcome.error, JobCrashed) and "not run again in this process" in str(outcome.error)
        assert (outcome.status, outcome.error.certificate.signal) == ("crashed", "SIGKILL")
        check(supervisor, "SIGKILL", 21)
    assert os.getpid() not in lines(marks)


class NoTransport(asyncio.SelectorEventLoop):
    """A loop that cannot start processes: the engine has a thread of its own."""

    async def _make_subprocess_transport(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError


@posix
def test_the_pool_breaks_midway_on_a_private_thread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    marks = tmp_path / "marks"

    async def main() -> None:
        given = options(preload=["falling:die_when_flagged"], max_jobs=50, spares=1)
        async with asyncio.timeout(60), Supervisor(**given) as supervisor:
            jobs = [Job(falling.raise_flag, args=(str(marks), n, 101)) for n in range(500)]
            async with supervisor.map(jobs) as outcomes:
                found = [outcome async for outcome in outcomes]
            assert sorted(outcome.value for outcome in found) == list(range(500))
            assert {outcome.isolation for outcome in found} == {"process", "inline"}
            assert await supervisor.run(falling.work_async, 7) == 7
            await supervisor.scale(3)
            assert await supervisor.run(samples.add, 1, 2) == 3
            statistics = supervisor.statistics()
            assert statistics.isolation == "inline" and len(statistics.workers) == 3
            assert not any(worker.state == "spare" for worker in statistics.workers)

    with asyncio.Runner(loop_factory=NoTransport) as runner:
        runner.run(main())
    assert lines(marks) == Counter(range(500))
    assert len(told(caplog)) == 1


@posix
async def test_who_waits_for_space_goes_on(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    async with (
        asyncio.timeout(60),
        Supervisor(**options(preload=["falling:die_in_children"], queue_size=10)) as supervisor,
    ):
        submits = [asyncio.create_task(supervisor.run(falling.work, str(marks), number)) for number in range(200)]
        assert [await submit for submit in submits] == list(range(200))
    assert lines(marks) == Counter(range(200))
