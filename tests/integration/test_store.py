"""A store and its file: what was acknowledged is there afterwards, in order, and nothing grows for ever."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from journalling import Recorder, attempt, birth, job, outcome, recording, rows

from orchestrator import _store
from orchestrator._store_batch import LARGE
from orchestrator._store_rows import Known, StoredEffect

LONG = f'"{"x" * (LARGE + 1)}"'
MIB = 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.db"


async def test_what_one_run_records_the_next_one_finds(path: Path) -> None:
    first = job(1, identity="row 1", key="one", priority=3, options='{"timeout": 3}', effects="external")
    async with recording(path) as run:
        assert run.opened.last_job == run.opened.last_fence == 0
        assert (run.opened.same_boot, run.opened.births, run.opened.meta) == (False, [], {})
        assert await run.open_jobs() == []
        assert await run.submit(first) is None
        assert await run.submit(job(2)) is None
        assert await run.submit(job(3)) is None
        run.store.attempt(attempt(1, 7, state="ended", outcome="crash", certificate='{"pid": 1}'))
        run.store.attempt(attempt(1, 9, number=2, state="started"))
        run.store.attempt(attempt(2, 8))
        run.store.effect(1, "pin", "begun", 9)
        run.store.effect(1, "board", "begun", 7)
        run.store.effect(1, "board", "done", 7, '"ref"')
        run.store.update(1, 1, 1, True)
        run.store.born(birth("m1"), lambda: None)
        run.store.born(birth("m2", pid=5), lambda: None)
        run.store.buried("m1", '{"reason": "stopped"}')
        run.store.set_meta("input", "abc")
        await run.settle(2, outcome("2"))
        run_id = run.opened.run_id
    async with recording(path) as run:
        assert (run.opened.last_job, run.opened.last_fence, run.opened.meta) == (3, 9, {"input": "abc"})
        assert run.opened.same_boot
        (left,) = run.opened.births
        assert (left.marker, left.run_id, left.same_boot, left.pid, left.started, left.temp) == (
            "m2", run_id, True, 5, 12.5, "/nowhere",
        )  # fmt: skip
        found = await run.open_jobs()
        assert [each.job.id for each in found] == [1, 3]
        assert found[0].job == first._replace(attempts=1, deaths=1, suspect=True)
        assert found[0].attempt == attempt(1, 9, number=2, state="started")
        assert found[0].effects == (
            StoredEffect(1, "board", "done", 7, '"ref"'),
            StoredEffect(1, "pin", "begun", 9, None),
        )
        assert (found[1].attempt, found[1].effects) == (None, ())
        run.store.buried("m2")
    async with recording(path) as run:
        assert run.opened.births == []
    assert rows(path, "SELECT clean FROM runs") == [(1,), (1,), (1,)]
    assert os.listdir(path.parent) == ["j.db"], "an orderly end leaves no log"


async def test_a_file_is_for_its_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        async with recording(path) as run:
            await run.submit(job(1, body=b'"args":[' + LONG.encode() + b"]"))
            payloads = Path(f"{path}.payloads")
            modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, Path(f"{path}-wal"), *payloads.iterdir())]
            assert modes == [0o600] * 3
            assert stat.S_IMODE(payloads.stat().st_mode) == 0o700
    finally:
        os.umask(before)


async def test_an_identity_is_one_job(path: Path) -> None:
    same = {"identity": "a", "hash": b"h" * 16}
    async with recording(path) as run:
        results = await asyncio.gather(*(run.submit(job(number, **same)) for number in (1, 2, 3)))
        assert results == [None, Known(1, b"h" * 16, None), Known(1, b"h" * 16, None)]
        # What is told of a job that was not written changes nothing.
        run.store.attempt(attempt(2))
        run.store.effect(2, "k", "begun", 1)
        await run.settle(2, outcome("wrong"))
        await run.settle(1, outcome("right", error='{"e": 1}'))
        await run.settle(1, outcome("late"))
        assert await run.submit(job(4, **same)) == Known(1, b"h" * 16, outcome("right", error='{"e": 1}'))
        assert await run.submit(job(5, identity="b")) is None
    async with recording(path) as run:
        assert [each.job.id for each in await run.open_jobs()] == [5]
        assert await run.submit(job(6, **same)) == Known(1, b"h" * 16, outcome("right", error='{"e": 1}'))
    assert rows(path, "SELECT count(*) FROM attempts") == rows(path, "SELECT count(*) FROM effects") == [(0,)]


async def test_everybody_is_told_in_the_order_of_the_calls(path: Path) -> None:
    async with recording(path) as run:
        told: list[int] = []
        last = asyncio.get_running_loop().create_future()
        for number in range(1, 3001):
            if number % 2:
                run.store.submit(job(number, identity=f"{number}"), lambda _, number=number: told.append(number))
            else:
                run.store.set_meta("n", f"{number}", lambda number=number: told.append(number))
            if number % 700 == 0:
                await asyncio.sleep(0)  # another transaction
        run.store.set_meta("last", "x", lambda: last.set_result(None))
        await last
        assert told == [*range(1, 3001)]


async def test_what_a_callback_raises_stops_nobody_else(path: Path) -> None:
    loop = asyncio.get_running_loop()
    problems: list[Any] = []
    loop.set_exception_handler(lambda _, context: problems.append(context["exception"]))
    async with recording(path) as run:
        run.store.set_meta("a", "1", lambda: 1 / 0)
        done: asyncio.Future[None] = loop.create_future()
        run.store.set_meta("b", "1", lambda: done.set_result(None))
        await done
    assert [type(each) for each in problems] == [ZeroDivisionError]


@pytest.mark.parametrize("durability", ["power", "process", "none"])
async def test_every_durability_keeps_what_an_orderly_run_recorded(path: Path, durability: str) -> None:
    async with recording(path, durability=durability) as run:
        for number in range(1, 101):
            run.store.submit(job(number), lambda _: None)
            run.store.attempt(attempt(number))
        await run.store.flush()
        await asyncio.gather(*(run.settle(number, outcome()) for number in range(1, 51)))
    async with recording(path, durability=durability) as run:
        assert [each.job.id for each in await run.open_jobs()] == [*range(51, 101)]


@pytest.mark.parametrize(("durability", "synchronous"), [("power", 2), ("process", 1), ("none", 0)])
async def test_a_durability_is_how_far_commits_go(path: Path, durability: str, synchronous: int) -> None:
    async with recording(path, durability=durability) as run:
        statement = "PRAGMA synchronous"
        ask = run.store._thread.call(lambda database: database.connection.execute(statement).fetchone())
        assert await ask == (synchronous,)


async def test_without_durability_nobody_waits_for_the_disk(path: Path) -> None:
    async with recording(path, durability="none") as run:
        order: list[str] = []
        run.store.submit(job(1, identity="looked up"), lambda _: order.append("looked up"))
        run.store.submit(job(2), lambda _: order.append("at once"))
        await run.store.flush()
        assert order == ["at once", "looked up"]


async def test_flush_and_close_wait_for_everything(path: Path) -> None:
    run = Recorder(path)
    run.opened = await run.store.open()
    await run.store.flush()
    for number in range(1, 5001):
        run.store.submit(job(number), lambda _: None)
    await run.store.flush()
    for number in range(5001, 10_001):
        run.store.submit(job(number, body=b"x" * 2000), lambda _: None)
    assert await run.store.aclose()
    assert await run.store.aclose(), "a second time is no error"
    run.store.submit(job(99_999), lambda _: pytest.fail("told after the end"))
    run.store.update(1, 1, 1, True)
    await asyncio.sleep(0.01)
    assert rows(path, "SELECT count(*), max(id) FROM jobs") == [(10_000, 10_000)]


async def test_open_jobs_come_in_slices_oldest_first_while_others_are_submitted(path: Path) -> None:
    async with recording(path) as run:
        for number in range(1, 2002):
            run.store.submit(job(number), lambda _: None)
            if number % 3 == 0:
                run.store.settle(number, outcome(), lambda: None)
    async with recording(path) as run:
        found = []
        async for each in run.opened.open_jobs:
            found.append(each.job.id)
            run.store.submit(job(10_000 + each.job.id), lambda _: None)
        assert found == [number for number in range(1, 2002) if number % 3]
    assert rows(path, "SELECT count(*) FROM jobs") == [(2001 + len(found),)]


async def test_a_cancelled_open_lets_go_of_the_file(path: Path) -> None:
    run = Recorder(path)
    opening = asyncio.ensure_future(run.store.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with recording(path) as other:
        assert await other.submit(job(1)) is None


async def test_long_values_are_in_files_until_nobody_names_them(path: Path) -> None:
    folder = Path(f"{path}.payloads")
    body = b'"args":[' + LONG.encode() + b"]"
    async with recording(path, keep=3600) as run:
        assert await run.submit(job(1, body=body, identity="a")) is None
        assert await run.submit(job(2, body=body, created=time.time() - 7200)) is None
        assert len([*folder.iterdir()]) == 1, "one content is one file"
        assert (await run.submit(job(3, body=body + b" ", identity="a"))) is not None
        assert len([*folder.iterdir()]) == 1, "nothing is kept of a job that was known"
        await run.settle(1, outcome(LONG, error=LONG.replace("x", "e")))
        assert len([*folder.iterdir()]) == 3
    (folder / "0123.new").write_bytes(b"left by a crash")
    async with recording(path, keep=3600) as run:
        known = await run.submit(job(4, identity="a"))
        assert known is not None
        assert known.settled == outcome(LONG, error=LONG.replace("x", "e"))
        (left,) = await run.open_jobs()
        assert left.job.body == body and left.job.head == job(2).head
        assert len([*folder.iterdir()]) == 3, "what no row names is gone"
        await run.settle(2, outcome("1"))
    assert rows(path, "SELECT max(length(body)), max(length(value)) FROM jobs") == [(0, 1)]
    with_old_rows(path, "UPDATE jobs SET settled = settled - 7200, created = created - 7200")
    async with recording(path, keep=3600) as run:
        await retained(run)
        assert await run.submit(job(5, identity="a")) is None
    assert not folder.exists()


def with_old_rows(path: Path, statement: str) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


async def retained(run: Recorder) -> None:
    """Wait for the walk that begins when a journal is opened: it goes on behind whatever is asked meanwhile."""
    run.store._thread.retain()
    for _ in range(200):
        await run.store._thread.call(lambda database: None)


async def test_old_jobs_go_and_the_rest_stays(path: Path) -> None:
    async with recording(path) as run:
        for number in range(1, 2001):
            old = time.time() - (9 * 86_400 if number <= 1800 else 0)
            run.store.submit(job(number, created=old), lambda _: None)
            run.store.attempt(attempt(number, 5000 + number))
            run.store.effect(number, "k", "done", 1)
            if number % 100 == 0:
                continue  # still open
            status = "quarantined" if number % 100 == 1 else "succeeded"
            run.store.settle(number, outcome(status=status), lambda: None)
        run.store.born(birth("old"), lambda: None)
        run.store.buried("old")
    with_old_rows(path, f"UPDATE jobs SET settled = {time.time() - 8 * 86_400} WHERE id <= 1800")
    with_old_rows(path, f"UPDATE births SET ended = {time.time() - 8 * 86_400}")
    with_old_rows(path, "UPDATE jobs SET discarded = 1.0 WHERE id = 101")
    size = path.stat().st_size
    async with recording(path, keep=7 * 86_400) as run:
        await retained(run)
    kept = rows(path, "SELECT id FROM jobs WHERE id <= 1800 ORDER BY id")
    expected = [number for number in range(1, 1801) if number % 100 in (0, 1) and number != 101]
    assert [number for (number,) in kept] == expected
    left = len(expected) + 200
    assert rows(path, "SELECT count(*) FROM jobs") == rows(path, "SELECT count(*) FROM attempts") == [(left,)]
    assert rows(path, "SELECT count(*) FROM effects") == [(left,)]
    assert rows(path, "SELECT count(*) FROM births") == [(0,)]
    assert path.stat().st_size < size / 2, "the space is given back"


async def test_nothing_goes_when_everything_is_kept(path: Path) -> None:
    async with recording(path) as run:
        await run.submit(job(1, created=1.0))
        await run.settle(1, outcome())
    with_old_rows(path, "UPDATE jobs SET settled = 1.0")
    async with recording(path, keep=None) as run:
        await retained(run)
    assert rows(path, "SELECT count(*) FROM jobs") == [(1,)]


async def test_numbers_are_never_used_again(path: Path) -> None:
    async with recording(path) as run:
        await run.submit(job(41, created=1.0))
        run.store.attempt(attempt(41, 77))
        await run.settle(41, outcome())
    with_old_rows(path, "UPDATE jobs SET settled = 1.0")
    for _ in range(2):
        async with recording(path) as run:
            await retained(run)
            assert (run.opened.last_job, run.opened.last_fence, run.opened.meta) == (41, 77, {})
    assert rows(path, "SELECT count(*) FROM jobs") == [(0,)]


async def test_the_walk_over_old_jobs_begins_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store, "_RETAIN_EVERY", 0.02)
    async with recording(path, keep=0.01) as run:
        await run.submit(job(1))
        await run.settle(1, outcome())
        async with asyncio.timeout(20):
            left = (1,)
            while left != (0,):  # each look waits for its turn behind the walk
                await asyncio.sleep(0.02)
                left = await run.store._thread.call(
                    lambda database: database.connection.execute("SELECT count(*) FROM jobs").fetchone()
                )


async def test_the_log_stays_bounded(path: Path) -> None:
    log = Path(f"{path}-wal")
    largest = 0
    async with recording(path) as run:
        number = 0
        for _ in range(40):
            for _ in range(1000):
                number += 1
                run.store.submit(job(number, identity=f"row {number}"), lambda _: None)
                run.store.attempt(attempt(number, state="ended", outcome="succeeded"))
                run.store.settle(number, outcome(f'"{"v" * 500}"'), lambda: None)
            await asyncio.sleep(0)
            if number % 4000 == 0:
                await run.store.flush()
            largest = max(largest, log.stat().st_size)
    assert 1 * MIB < largest <= 16 * MIB
    assert rows(path, "SELECT count(status) FROM jobs") == [(40_000,)]


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_a_fork_that_ends_in_good_order_leaves_the_journal_alone(path: Path) -> None:
    # As a program does that has a supervisor on a thread and starts processes by fork.
    program = f"""
import asyncio, gc, os, sys, threading
sys.path.insert(0, {str(Path(__file__).parent.parent / "targets")!r})
from journalling import recording, job, outcome

ready, forked = threading.Event(), threading.Event()

async def main():
    async with recording({str(path)!r}) as run:
        for number in range(1, 200):
            await run.submit(job(number))
        ready.set()
        await asyncio.get_running_loop().run_in_executor(None, forked.wait)
        for number in range(200, 400):
            await run.submit(job(number))
        await run.settle(1, outcome())

thread = threading.Thread(target=asyncio.run, args=(main(),))
thread.start()
ready.wait()
pid = os.fork()
if pid == 0:
    gc.collect()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
forked.set()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert rows(path, "PRAGMA quick_check") == [("ok",)]
    assert rows(path, "SELECT count(*), count(status) FROM jobs") == [(399, 1)]
