"""What a batch reads ahead and what waits is bounded by its two queues, whoever is slow."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from orchestrator_adapters.batch import Batch, Report

DEADLINE = 30


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Counting:
    """A source that counts what was taken of it, and a sink that takes only when it is told."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.pulled = 0
        self.taken = 0
        self.most_apart = 0
        self.let = asyncio.Event()

    def __iter__(self) -> Iterator[int]:
        for number in range(self.total):
            self.pulled += 1
            self.most_apart = max(self.most_apart, self.pulled - self.taken)
            yield number

    async def take(self, value: int) -> None:
        await self.let.wait()
        self.taken += 1


def batch(target: str, source: Any, sink: Any, tasks: int, results: int, workers: int = 2, **more: Any) -> Batch:
    options = {"worker_count": workers, "task_queue_size": tasks, "result_queue_size": results, **more}
    return Batch(target, source, sink, params={"multiprocessing": options}, progress="none")


async def until_still(read: Any) -> int:
    """Return a count when it has not changed for half a second."""
    async with asyncio.timeout(DEADLINE):
        while True:
            before = read()
            await asyncio.sleep(0.5)
            if before and before == read():
                return int(before)


@pytest.mark.parametrize(("tasks", "results"), [(20, 20), (3, 1), (1, 7), (40, 5)])
async def test_slow_sink_stops_the_source(tasks: int, results: int) -> None:
    both = Counting(400)
    one = batch("enriching:same", both, both.take, tasks, results)
    running = asyncio.create_task(one.run())
    # What waits for a child, what waits for the sink, and what each of two children holds.
    assert await until_still(lambda: both.pulled if one.snapshot().succeeded else 0) <= tasks + results + 2
    assert one.snapshot().succeeded <= results + 2
    both.let.set()
    report = await running
    assert report.exit_code == 0 and both.taken == 400
    assert both.most_apart <= tasks + results + 2


async def test_slow_handler_stops_the_source(tmp_path: Path) -> None:
    go = tmp_path / "go"
    pulled = 0

    async def records() -> AsyncIterator[dict[str, Any]]:
        nonlocal pulled
        for number in range(60):
            pulled += 1
            yield {"id": number, "log": str(tmp_path / "log"), "until": str(go)}

    running = asyncio.create_task(batch("enriching:hold", records(), None, 5, 20, workers=3).run())
    assert await until_still(lambda: pulled) == 5 + 3
    go.touch()
    assert (await running).succeeded == 60 and pulled == 60


@pytest.mark.parametrize("kind", ["file", "function", "none"])
async def test_record_that_is_late(tmp_path: Path, kind: str) -> None:
    go = tmp_path / "go"
    first = {"id": 0, "log": str(tmp_path / "log"), "until": str(go)}
    rest = ({"id": number, "log": str(tmp_path / "log"), "until": str(tmp_path)} for number in range(1, 1000))
    taken: list[int] = []

    def records() -> Iterator[dict[str, Any]]:
        yield first
        yield from rest

    sink: Any = {"file": "out.jsonl", "function": taken.append, "none": None}[kind]
    one = batch("enriching:hold", records(), sink, 20, 20)
    running = asyncio.create_task(one.run())
    done = await until_still(lambda: one.snapshot().succeeded)
    if kind == "function":
        # The sink is owed the first one first, and no more than so many may wait for it.
        assert taken == [] and 20 <= done <= 20 + 2
    else:
        # They are in the journal, and wait there for their place in the file.
        assert done == 999
    go.touch()
    assert (await running).succeeded == 1000
    if kind == "file":
        taken = [int(line) for line in Path("out.jsonl").read_text("utf-8").split()]
    assert taken == list(range(1000)) or kind == "none"


async def test_record_that_all_wait_for_is_tried_again_although_there_is_no_room(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    records = [{"id": number, "log": log, "first": "code 503", "times": int(number % 9 == 0)} for number in range(60)]
    taken: list[int] = []
    report = await batch("enriching:obey", records, taken.append, 5, 1, workers=1).run()
    assert report.exit_code == 0 and taken == list(range(60)) and report.retries == 7


async def test_retries_wait_without_a_child_and_go_first(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    records = [{"id": number, "log": log, "first": "code 503", "times": 1 if number < 3 else 0} for number in range(60)]
    report = await batch("enriching:obey", records, None, 4, 4, workers=1).run()
    assert report.succeeded == 60 and report.retries == 3
    order = [int(line) for line in Path(log).read_text("utf-8").split()]
    # While the first three waited for half a second, others ran.
    assert sorted(order[:3]) == [0, 1, 2] and set(order[3:6]).isdisjoint({0, 1, 2})


@pytest.mark.soak
def test_a_million_records_in_flat_memory() -> None:
    total = 1_000_000
    with open("in.jsonl", "w", encoding="utf-8") as file:
        file.writelines(f'{{"id": {number}, "text": "record number {number}"}}\n' for number in range(total))
    me = psutil.Process()
    sizes: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            sizes.append(me.memory_info().rss / 2**20)

    def run() -> Report:
        one = Batch("enriching:same", "in.jsonl", "out.jsonl", progress="none")
        sizes.clear()
        ended.clear()
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            return one.run_blocking()
        finally:
            ended.set()
            watcher.join()

    report = run()
    assert report.succeeded == total
    tenth = len(sizes) // 10
    print(f"{report.rate:,.0f} rows/s; memory {sizes[tenth]:.0f} to {max(sizes[tenth:]):.0f} MiB")
    assert max(sizes[tenth:]) - sizes[tenth] <= 20
    assert report.rate >= 8000
    again = run()
    print(f"all of them done before: {again.seconds:.1f} s; memory up to {max(sizes):.0f} MiB")
    assert again.resumed == total and again.seconds <= 30
    with open("in.jsonl", encoding="utf-8") as source, open("out.jsonl", encoding="utf-8") as output:
        assert all(json.loads(one) == json.loads(other) for one, other in zip(source, output, strict=True))
