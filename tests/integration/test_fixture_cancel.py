"""Cancels and timeouts of jobs with a fixture: where they may be interrupted, by whom, and what stays."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import desks
import psutil
import pytest

from orchestrator import BlockingSupervisor, Fixture, Job, JobHandle, Journal, RestartPolicy, Supervisor
from orchestrator.exceptions import JobTimedOut, TargetError

PATIENT = Fixture("desks:desk", {"patient": True})


def lives(pid: int) -> bool:
    """Return whether a process is there, and not only its entry that its parent has not read."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def until_progress(handle: JobHandle) -> None:
    async with asyncio.timeout(60):
        async for event in handle.events():
            if event.kind == "progress":
                return
    raise AssertionError("the job ended first")


async def test_a_job_that_may_not_be_interrupted_is_woken_by_its_fixture() -> None:
    async with Supervisor(workers=1, grace=30) as supervisor:
        handle = await supervisor.submit(Job(desks.wait_at_desk, fixture=PATIENT))
        await until_progress(handle)
        pid = supervisor.statistics().workers[0].pid
        handle.cancel()
        logs = [event.text async for event in handle.events() if event.kind == "log"]
        outcome = await handle.outcome()
        assert outcome.status == "cancelled"
        assert logs == ["woken by cancel, elsewhere: True", "closed JobCancelled cancel"]
        assert (await supervisor.run(Job(desks.facts, fixture=PATIENT)))["pid"] == pid
        assert supervisor.statistics().restarts == 0


async def test_a_timeout_says_so() -> None:
    # Imported before, so that all of the timeout is for what the job does.
    async with Supervisor(workers=1, grace=30, preload=["desks"]) as supervisor:
        handle = await supervisor.submit(Job(desks.wait_at_desk, fixture=PATIENT, timeout=2))
        logs = [event.text async for event in handle.events() if event.kind == "log"]
        with pytest.raises(JobTimedOut):
            await handle.result()
    assert "woken by timeout, elsewhere: True" in logs


@pytest.mark.parametrize("target", [desks.spin, desks.spin_async])
async def test_without_a_say_in_it_the_job_is_interrupted_within_its_fixture(target: Any) -> None:
    async with Supervisor(workers=1, grace=30) as supervisor:
        handle = await supervisor.submit(Job(target, fixture=Fixture("desks:desk")))
        await until_progress(handle)
        handle.cancel()
        logs = [event.text async for event in handle.events() if event.kind == "log"]
        assert (await handle.outcome()).status == "cancelled"
        assert logs == [f"closed {'JobCancelled' if target is desks.spin else 'CancelledError'} cancel"]
        assert supervisor.statistics().restarts == 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system for the processes that a child has started")
async def test_what_the_fixture_keeps_is_spared_with_all_that_it_started() -> None:
    job = Job(desks.start_more, fixture=Fixture("desks:desk", {"keep_processes": True}, flavour="keeping"))
    async with Supervisor(workers=1, grace=30) as supervisor:
        handle = await supervisor.submit(job)
        kept: list[int] = []
        strays: list[int] = []
        async with asyncio.timeout(60):
            async for event in handle.events():
                if event.kind == "item":
                    kept, strays = event.value["kept"], event.value["strays"]
                    handle.cancel()
        assert (await handle.outcome()).status == "cancelled"
        assert len(kept) == 2 and all(map(lives, kept))
        assert strays and not any(map(lives, strays))
        assert supervisor.statistics().restarts == 0
    assert not any(map(lives, kept))


async def test_a_fixture_that_breaks_while_it_is_asked_costs_the_child_only() -> None:
    async with Supervisor(workers=1, grace=2) as supervisor:
        handle = await supervisor.submit(Job(desks.spin, fixture=Fixture("desks:desk", {"breaks": True})))
        await until_progress(handle)
        handle.cancel()
        logs = [event.text async for event in handle.events() if event.kind == "log"]
        assert (await handle.outcome()).status == "cancelled"
        assert any("may_interrupt failed: ZeroDivisionError" in text for text in logs)
        assert await supervisor.run(desks.tick, 1) == (1, False)


async def test_a_journal_keeps_the_fixture(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    fixture = Fixture("desks:desk", {"lamp": 1, "leave_loop": True}, flavour="warm-desk")
    job = Job("desks:facts_the_second_time", args=(str(tmp_path / "first"),), fixture=fixture, key="one")
    async with Supervisor(workers=1, journal=journal, on_exit="cancel") as supervisor:
        await until_progress(await supervisor.submit(job))
    async with Supervisor(workers=1, journal=journal) as supervisor:
        await supervisor.drain()  # taken up from the journal alone
        assert supervisor.statistics().settled == {"succeeded": 1}
        assert supervisor.statistics().workers[0].flavour == "warm-desk"
    async with Supervisor(workers=1, journal=journal) as supervisor:
        found = await supervisor.run(replace(job, fixture=Fixture("desks:desk", {"lamp": 2})))
    assert found["options"] == {"lamp": 1, "leave_loop": True} and found["open"] and found["key"] == "one"


def test_cancels_from_hosts_without_a_loop() -> None:
    with BlockingSupervisor(workers=1, grace=30) as supervisor:
        handle = supervisor.submit(Job(desks.wait_at_desk, fixture=PATIENT))
        logs = []
        for event in handle.events():
            if event.kind == "progress" and event.done == 1:
                handle.cancel()
            elif event.kind == "log":
                logs.append(event.text)
        assert handle.outcome().status == "cancelled"
        assert logs == ["woken by cancel, elsewhere: True", "closed JobCancelled cancel"]
        assert supervisor.run(Job(desks.facts, fixture=PATIENT))["open"]
        assert supervisor.statistics().restarts == 0


@pytest.mark.skipif(sys.platform == "win32", reason="/bin/false")
def test_after_a_fallback_a_job_with_a_fixture_fails_clearly() -> None:
    restart = RestartPolicy(backoff=0.01, max_backoff=0.02, cooldown=0.05)
    with BlockingSupervisor(workers=1, command=["/bin/false"], fallback="inline", restart=restart) as supervisor:
        with pytest.raises(TargetError, match="fixture"):
            supervisor.run(Job(desks.facts, fixture=PATIENT))
        assert supervisor.run(desks.tick, 1) == (1, False)
