"""Job Objects as Windows keeps them: nothing outlives a child or a supervisor, and no handle stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import departing
import psutil
import pytest

from orchestrator import Supervisor
from orchestrator._jobobject import _API, JobObject, JobObjects
from orchestrator._killset import KillSet
from orchestrator._wire import EXIT_KILLED

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="only Windows has Job Objects")

HOST = Path(departing.__file__)
# The kernel needs some milliseconds; the rest is for a busy machine.
PROMISE = 1.0


def gone(pids: list[int], within: float) -> float | None:
    """Return how long it took until none of some processes was left; None if one stays."""
    began = time.monotonic()
    while any(psutil.pid_exists(pid) for pid in pids):
        if time.monotonic() - began > within:
            return None
        time.sleep(0.005)
    return time.monotonic() - began


@pytest.mark.parametrize("target", ["hold", "hold_and_crash"])
async def test_what_a_child_started_goes_with_it(target: str) -> None:
    async with Supervisor(workers=1, grace=0.2) as supervisor:
        handle = await supervisor.submit(f"departing:{target}")
        found: list[int] = []
        async for event in handle.events():
            if event.kind == "item":
                found = event.value
                break
        assert len(found) == 3
        if target == "hold":
            assert all(map(psutil.pid_exists, found))
            handle.cancel()
        outcome = await handle.outcome()
        assert outcome.status == ("cancelled" if target == "hold" else "crashed")
        # It returns when the job's list is empty.
        assert gone(found, PROMISE) is not None
        assert supervisor.statistics().survivors == ()
        assert await supervisor.run(departing.pid) not in found


@pytest.mark.parametrize("number", range(3))
def test_kernel_empties_the_jobs_of_a_supervisor_that_is_killed(number: int, tmp_path: Path) -> None:
    # Its folder of temp folders stays, for nobody is there to remove it.
    environment = {**os.environ, "TEMP": str(tmp_path), "TMP": str(tmp_path)}
    environment.pop("TMPDIR", None)
    with subprocess.Popen(
        [sys.executable, str(HOST)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment
    ) as host:
        assert host.stdout is not None
        found = json.loads(host.stdout.readline())
        assert len(found) == 6 and all(map(psutil.pid_exists, found))
        host.kill()
        took = gone(found, 20)
        assert took is not None and took <= PROMISE


def test_who_ends_without_a_word_leaves_an_empty_job() -> None:
    assert _API is not None
    job = JobObject(_API)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        job.assign(process.pid)
        assert process.pid in job.pids()
        process.communicate(b"\n")
    assert process.pid not in job.pids()
    job.close()


def test_no_handle_stays() -> None:
    assert _API is not None
    complaints: list[str] = []
    job_objects = JobObjects(lambda event, *rest, **fields: complaints.append(event))

    def next_free() -> int:
        handle = _API.create()
        _API.close(handle)
        return handle

    def cycle() -> None:
        with subprocess.Popen(["cmd.exe"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            kill_set = KillSet(process.pid, "m", job_object=job_objects.hold(process.pid))
            kill_set.kill_now()
            assert kill_set.sweep(5) == ()
            assert process.wait() == EXIT_KILLED
            kill_set.close()

    for _ in range(3):
        cycle()
    before = next_free()
    for _ in range(20):
        cycle()
    # The lowest free one is given out, four apart: twenty that stayed would move it by eighty.
    assert abs(next_free() - before) < 40
    assert complaints == []
