"""What cannot be as with processes: nothing can be killed here, and the process is shared with the host."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chores
import doors
import hosting
import pytest

from orchestrator import BlockingSupervisor, Job, RestartPolicy, Supervisor, child
from orchestrator.exceptions import JobCancelled, JobFailed, JobTimedOut, PoolBroken, SupervisorClosed

GRACE = 0.2
# The stop ladder's ten seconds.
LADDER = 10


@pytest.fixture
def door() -> Iterator[doors.Door]:
    with doors.Door() as door:
        yield door


def inline(**options: Any) -> BlockingSupervisor:
    return BlockingSupervisor(**{"workers": 1, "isolation": "inline", "grace": GRACE, **options})


def wait_until(reached: Any) -> None:
    deadline = time.monotonic() + 20
    while not reached():  # statistics tell when they are asked, not by themselves
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_worker_of_a_deaf_job_takes_none_until_it_has_ended(door: doors.Door) -> None:
    with inline() as supervisor:
        with pytest.raises(JobTimedOut) as timed_out:
            supervisor.run(Job(doors.stand_deaf, args=(door.port,), timeout=0.2))
        assert "in stand_deaf" in timed_out.value.stack
        assert supervisor.statistics().abandoned_threads == 1
        next_job = supervisor.submit(chores.same, 1)
        with pytest.raises(TimeoutError):
            next_job.result(timeout=0.2)
        assert next_job.state == "queued"
        door.wait()
        door.open()
        assert next_job.result(timeout=20) == 1
        statistics = supervisor.statistics()
        assert statistics.abandoned_threads == 0
        assert statistics.settled == {"timed_out": 1, "succeeded": 1}
        assert statistics.workers[0].generation == 2


def test_other_workers_serve_meanwhile(door: doors.Door) -> None:
    with inline(workers=2) as supervisor:
        with pytest.raises(JobTimedOut):
            supervisor.run(Job(doors.stand_deaf, args=(door.port,), timeout=0.1))
        # Both kinds: the one worker that is left changes its flavour for them.
        for number in range(3):
            assert supervisor.submit(chores.same, number).result(timeout=20) == number
            assert supervisor.submit(chores.same_async, number).result(timeout=20) == number
        assert supervisor.statistics().abandoned_threads == 1
        door.open()


def test_deaf_async_job_is_given_up_too(door: doors.Door) -> None:
    with inline() as supervisor:
        handle = supervisor.submit(doors.stand_deaf_async, door.port)
        door.wait()
        handle.cancel()
        assert handle.outcome(timeout=GRACE + 10).status == "cancelled"
        assert supervisor.statistics().abandoned_threads == 1
        next_job = supervisor.submit(chores.same_async, 1)
        with pytest.raises(TimeoutError):
            next_job.result(timeout=0.1)
        door.open()
        assert next_job.result(timeout=20) == 1
        assert supervisor.statistics().abandoned_threads == 0


def test_what_waits_behind_a_deaf_job_runs_once(door: doors.Door, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with inline() as supervisor:
        for number in range(20):  # so that it is known to be quick, and sent ahead
            supervisor.run(doors.pass_or_stay, str(path), f"first {number}")
        deaf = supervisor.submit(Job(doors.pass_or_stay, args=(str(path), "deaf", door.port), timeout=1))
        behind = [supervisor.submit(doors.pass_or_stay, str(path), f"behind {number}") for number in range(5)]
        assert deaf.outcome(timeout=20).status == "timed_out"
        door.wait()
        door.open()
        assert [handle.result(timeout=20) for handle in behind] == [f"behind {number}" for number in range(5)]
    runs = path.read_text().splitlines()
    assert sorted(runs) == sorted({*runs})
    assert len(runs) == 26


@pytest.mark.parametrize("target", [doors.stand_deaf, doors.stand_deaf_async])
def test_close_leaves_what_hangs(door: doors.Door, target: Any) -> None:
    supervisor = inline(on_exit="cancel").open()
    handle = supervisor.submit(target, door.port)
    door.wait()
    began = time.monotonic()
    supervisor.close()
    assert time.monotonic() - began < LADDER
    assert handle.outcome().status == "cancelled"
    assert supervisor.statistics().abandoned_threads == 1
    with pytest.raises(SupervisorClosed):
        supervisor.run(chores.same, 1)


async def test_close_leaves_what_hangs_on_the_hosts_loop(door: doors.Door) -> None:
    began = time.monotonic()
    with pytest.raises(LookupError):
        async with Supervisor(workers=2, isolation="inline", grace=GRACE) as supervisor:
            handles = [
                await supervisor.submit(target, door.port) for target in (doors.stand_deaf, doors.stand_deaf_async)
            ]
            await asyncio.to_thread(door.wait, 2)
            raise LookupError
    assert time.monotonic() - began < LADDER
    assert [(await handle.outcome()).status for handle in handles] == ["cancelled", "cancelled"]
    assert supervisor.statistics().abandoned_threads == 2
    door.open()
    while supervisor.statistics().abandoned_threads:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.005)


def test_job_that_looks_for_the_end_ends_softly(door: doors.Door) -> None:
    with inline() as supervisor:
        handle = supervisor.submit(doors.stand_until_stopped, door.port)
        door.wait()
        handle.cancel()
        # It answered although it was cancelled: as in a process, the answer counts.
        assert handle.outcome(timeout=20).status in ("succeeded", "cancelled")
        reporting = supervisor.submit(doors.stand_and_report, door.port)
        door.wait()
        reporting.cancel()
        with pytest.raises(JobCancelled):
            reporting.result(timeout=20)
        statistics = supervisor.statistics()
        assert statistics.abandoned_threads == 0
        assert statistics.workers[0].generation == 1


def test_preload_that_hangs_is_a_failed_start(door: doors.Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELOAD_PORT", str(door.port))
    began = time.monotonic()
    with inline(preload=["doors:preload_for_ever"], start_timeout=0.2, on_exit="cancel") as supervisor:
        handle = supervisor.submit(chores.same, 1)
        door.wait()
        wait_until(lambda: supervisor.statistics().abandoned_threads == 1)
    assert handle.outcome().status == "cancelled"
    assert time.monotonic() - began < LADDER
    door.open()


def test_preload_runs_on_the_jobs_thread_and_its_error_is_told() -> None:
    with inline(preload=["doors:preload_here"]) as supervisor:
        assert supervisor.run(doors.exchange, "job") == "preloaded"
    policy = RestartPolicy(backoff=0.01, max_restarts=1)
    with inline(preload=["no_such_module"], restart=policy) as supervisor, pytest.raises(PoolBroken) as broken:
        supervisor.run(chores.same, 1)
    assert "ModuleNotFoundError: No module named 'no_such_module'" in str(broken.value)


def test_resources_are_closed_where_they_were_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for target in (doors.write_diary, doors.write_diary_async, doors.write_diary_with_await):
        diary = tmp_path / target.__name__
        monkeypatch.setenv("DIARY", str(diary))
        with inline() as supervisor:
            supervisor.run(target)
            supervisor.run(target)
            assert len(diary.read_text().splitlines()) == 1
        made, closed = diary.read_text().splitlines()
        assert made.replace("made", "closed") == closed
        assert str(threading.get_ident()) not in made


def test_permit_that_would_block_the_loop_is_refused() -> None:
    with inline(limits=hosting.LIMITS) as supervisor:
        with pytest.raises(JobFailed, match="use `async with`"):
            supervisor.run(doors.permit_blocking, "door")
        assert supervisor.run(chores.same_async, 1) == 1


def test_what_the_host_says_is_no_jobs(door: doors.Door) -> None:
    with inline() as supervisor:
        handle = supervisor.submit(doors.stand_until_stopped, door.port)
        door.wait()
        child.progress(5, 10, "the host")
        child.log("the host")
        child.emit("the host")
        assert not child.stop_requested()
        handle.cancel()
        assert {event.kind for event in handle.events()} == {"state"}


def test_prints_go_where_the_hosts_go(capsys: pytest.CaptureFixture[str]) -> None:
    with inline() as supervisor:
        handle = supervisor.submit(hosting.tell, __file__)
        assert [event for event in handle.events() if event.kind == "log" and event.stream == "stdout"] == []
    assert "a print\n" in capsys.readouterr().out


def test_options_for_processes_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with inline(env={"A": "b"}, cwd=tmp_path) as supervisor:
        supervisor.run(chores.same, 1)
    assert caplog.text.count("supervisor.options_ignored supervisor='supervisor' options=['env', 'cwd']") == 1
    assert "A" not in os.environ
    assert Path.cwd() != tmp_path


@pytest.mark.parametrize("target", [doors.stand_deaf, doors.stand_deaf_async])
def test_retiring_worker_with_a_deaf_job(door: doors.Door, target: Any) -> None:
    with inline(workers=2) as supervisor:
        with pytest.raises(JobTimedOut):
            supervisor.run(Job(target, args=(door.port,), timeout=0.1))
        supervisor.scale(1)
        wait_until(lambda: len(supervisor.statistics().workers) == 1)
        assert supervisor.statistics().abandoned_threads == 1
        assert supervisor.submit(chores.same, 1).result(timeout=20) == 1
        door.wait()
        door.open()
        wait_until(lambda: supervisor.statistics().abandoned_threads == 0)
