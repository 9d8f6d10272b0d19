"""A batch whose process ends anywhere: the same command goes on, each record is done once, and counts are exact."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import batch_host
import pytest
from orchestrator_adapters.batch import Batch, BatchError

DEADLINE = 60
WORKERS, TASKS, RESULTS = 2, 6, 6
# What was sent and not committed: of that a killed run may have had results.
IN_FLIGHT = RESULTS + WORKERS

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals to another process")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def options(count: int, target: str = "enriching:noted_and_cached", **more: Any) -> dict[str, Any]:
    log = str(Path("log").absolute())
    records = [{"id": number, "log": log, **more} for number in range(count)]
    Path("in.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    queues = {"worker_count": WORKERS, "task_queue_size": TASKS, "result_queue_size": RESULTS}
    return {"target": target, "source": "in.jsonl", "sink": "out.jsonl", "params": {"multiprocessing": queues}}


def start(given: dict[str, Any]) -> subprocess.Popen[bytes]:
    folder = str(Path(batch_host.__file__).parent)
    return subprocess.Popen(
        [sys.executable, batch_host.__file__, json.dumps(given)],
        env={**os.environ, "PYTHONPATH": folder},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def notes(path: str = "log") -> Counter[int]:
    try:
        return Counter(int(line) for line in Path(path).read_text("utf-8").split())
    except FileNotFoundError:
        return Counter()


def wait_for_notes(count: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while notes().total() < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def lines(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


@posix
@pytest.mark.parametrize(
    ("kills", "count"), [(3, 400), pytest.param(20, 10_000, marks=pytest.mark.soak)], ids=["quick", "soak"]
)
def test_killed_anywhere_and_resumed(kills: int, count: int) -> None:
    given = options(count)
    for _ in range(kills):
        host = start(given)
        wait_for_notes(min(notes().total() + random.randint(1, count // (kills + 1)), count))
        time.sleep(random.random() / 50)
        host.kill()
        host.communicate()
        assert not Path("out.jsonl").exists()
        assert not [path for path in Path().rglob("*") if "lock" in path.name]
    host = start(given)
    out, err = host.communicate(timeout=10 * DEADLINE)
    assert host.returncode == 0, err.decode()
    report = json.loads(out)
    assert report["succeeded"] == report["total"] == count and report["failed"] == report["pending"] == 0
    assert [line[0] for line in lines("out.jsonl")] == list(range(count))
    # What the cache has taken is computed no second time, whoever is killed.
    computed = notes("log.cache")
    assert set(computed) == set(range(50)) and computed.total() - 50 <= kills * WORKERS
    calls = notes()
    assert set(calls) == set(range(count))
    print(f"{calls.total() - count} of {count} records ran again after {kills} kills")
    assert calls.total() - count <= kills * IN_FLIGHT
    # What is not committed is not counted: each record has one attempt that is.
    assert report["attempts"] == count
    assert report["usage"] == {"prompt": sum(number % 7 for number in range(count)), "output": count}
    assert not list(Path().rglob("*.partial"))


@posix
def test_second_process_is_refused_at_once_and_the_first_goes_on() -> None:
    given = options(50, "enriching:hold", until=str(Path("go").absolute()))
    first = start(given)
    wait_for_notes(1)
    began = time.monotonic()
    with pytest.raises(BatchError, match=f"in use by process {first.pid}") as caught:
        Batch(**given, progress="none").run_blocking()
    assert caught.value.exit_code == 75 and time.monotonic() - began < 1
    Path("go").touch()
    out, _ = first.communicate(timeout=DEADLINE)
    assert json.loads(out)["succeeded"] == 50 and notes().total() == 50


@posix
def test_interrupted_script_leaves_nothing_and_resumes() -> None:
    given = options(50, "enriching:hold", until=str(Path("go").absolute()))
    host = start(given)
    wait_for_notes(WORKERS)
    host.send_signal(signal.SIGINT)
    _, err = host.communicate(timeout=DEADLINE)
    assert b"KeyboardInterrupt" in err and not list(Path().rglob("*.partial"))
    Path("go").touch()
    host = start(given)
    out, _ = host.communicate(timeout=DEADLINE)
    assert json.loads(out)["succeeded"] == 50 and set(notes()) == set(range(50))


async def test_cancelled_run_leaves_nothing_and_resumes() -> None:
    given = options(50, "enriching:hold", until=str(Path("go").absolute()))
    running = asyncio.create_task(Batch(**given, progress="none").run())
    async with asyncio.timeout(DEADLINE):
        while notes().total() < WORKERS:  # noqa: ASYNC110  a file tells
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not list(Path().rglob("*.partial"))
    Path("go").touch()
    report = await Batch(**given, progress="none").run()
    assert report.succeeded == 50 and lines("out.jsonl") == list(range(50))


async def test_interrupt_finishes_what_runs_and_twice_cancels() -> None:
    given = options(200)
    one = Batch(**given, progress="none")
    running = asyncio.create_task(one.run())
    async with asyncio.timeout(DEADLINE):
        while one.snapshot().succeeded < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    one.interrupt("SIGTERM")
    report = await running
    assert report.exit_code == 130 and "SIGTERM" in (report.reason or "")
    # Whatever was sent has its result.
    assert notes().total() == report.succeeded < 200 and not Path("out.jsonl").exists()
    # Slow records are not sent ahead: to finish what runs takes as long as one of them.
    given["target"] = "enriching:noted_for_a_second"
    one = Batch(**given, progress="none", name="slow")
    running = asyncio.create_task(one.run())
    async with asyncio.timeout(DEADLINE):
        while one.snapshot().succeeded < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    one.interrupt()
    assert (await running).succeeded <= 2 * (WORKERS + 1)

    held = options(20, "enriching:hold", until=str(Path("go").absolute()))
    one = Batch(**held, progress="none", name="held")
    running = asyncio.create_task(one.run())
    async with asyncio.timeout(DEADLINE):
        while not one.snapshot().running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    one.interrupt()
    one.interrupt()
    report = await asyncio.wait_for(running, DEADLINE)
    assert report.exit_code == 130 and report.succeeded == 0 and report.pending == 20
    Path("go").touch()
    assert (await Batch(**held, progress="none", name="held").run()).succeeded == 20


async def test_interrupts_count_although_the_run_ends_for_another_reason() -> None:
    log = str(Path("log").absolute())
    held = [{"id": number, "log": log, "first": "sleep 60", "times": 1} for number in range(2)]
    held[1]["first"] = "day"
    given = {"target": "enriching:obey", "source": held, "params": {"multiprocessing": {"worker_count": 2}}}
    one = Batch(**given, progress="none")
    running = asyncio.create_task(one.run())
    async with asyncio.timeout(DEADLINE):
        while notes().total() < 2 or one.snapshot().waiting != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    one.interrupt()
    one.interrupt()
    report = await asyncio.wait_for(running, 20)
    assert report.exit_code == 75 and "daily quota" in (report.reason or "") and report.pending == 2
