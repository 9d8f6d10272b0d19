"""The cache in a file: nothing that was said to be kept is computed again, whatever ends the supervisor."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caching
import caching_host
import pytest

from orchestrator import BlockingSupervisor, Supervisor
from orchestrator._cache_file import CacheFile
from orchestrator.exceptions import CacheDamaged, CacheError, CacheInUse, ConfigurationError

SIZES = [10, 100_000]


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


def computed(log: str) -> list[str]:
    return Path(log).read_text("utf-8").splitlines() if os.path.exists(log) else []


def files(path: Path) -> list[str]:
    """Return what lies where a cache is."""
    return sorted(each.name for each in path.parent.iterdir() if each.name.startswith(path.name))


@pytest.mark.parametrize("isolation", ["process", "inline"])
async def test_what_was_computed_is_there_the_next_time(log: str, path: Path, isolation: Any) -> None:
    for run in range(3):
        async with Supervisor(workers=2, cache=path, isolation=isolation) as supervisor:
            assert await supervisor.run(caching.look_up, log, "small") == "value"
            assert (await supervisor.run(caching.large, log, "large", 10_000_000))[0] == 10_000_000
            assert await supervisor.run(caching.many_async, log, [1, 2]) == ["value of 1", "value of 2"]
            statistics = supervisor.statistics().cache
            assert (statistics.entries, statistics.computed) == (4, 0 if run else 4)
    assert computed(log) == ["small", "large", "[1, 2]"]
    assert files(path) == ["cache.db", "cache.db.values"]
    assert len(list(path.with_name("cache.db.values").iterdir())) == 1


def test_a_blocking_supervisor_keeps_it_too(log: str, path: Path) -> None:
    for _ in range(2):
        with BlockingSupervisor(workers=1, cache=str(path)) as supervisor:
            assert supervisor.run(caching.look_up, log, "key") == "value"
    assert computed(log) == ["key"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
@pytest.mark.parametrize("size", SIZES)
def test_a_killed_supervisor_computes_nothing_again_that_was_there(log: str, path: Path, size: int) -> None:
    count, kills = 40, 5
    command = [sys.executable, caching_host.__file__, str(path), log, str(count), str(size)]
    told: set[str] = set()
    for number in range(kills + 1):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
            assert host.stdout is not None
            if number < kills:
                for _ in range(7 * (number + 1)):
                    told.add(host.stdout.readline().strip())
                host.send_signal(signal.SIGKILL)
            told.update(line.strip() for line in host.stdout)
            assert host.wait(60) == (-signal.SIGKILL if number < kills else 0)
    times = Counter(computed(log))
    assert set(times) == told == {str(number) for number in range(count)}
    # What was being computed when it was killed, by two children, and what was told and not read yet.
    assert times.total() - count <= 2 * kills
    left = path.with_name("cache.db.values")
    assert len(list(left.iterdir()) if left.exists() else []) == (0 if size < 65_536 else 1)


async def test_a_job_goes_on_when_its_value_is_committed_and_so_do_those_who_wait(
    log: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, free = threading.Event(), threading.Event()
    write = CacheFile.write

    def slowly(self: CacheFile, *args: Any) -> None:
        asked.set()
        assert free.wait(60)
        write(self, *args)

    async with Supervisor(workers=2, cache=path) as supervisor:
        monkeypatch.setattr(CacheFile, "write", slowly)
        jobs = [asyncio.create_task(supervisor.run(caching.look_up, log, "key")) for _ in range(2)]
        assert await asyncio.to_thread(asked.wait, 60)
        done, _ = await asyncio.wait(jobs, timeout=0.3)
        assert not done
        free.set()
        assert await asyncio.gather(*jobs) == ["value"] * 2
    assert computed(log) == ["key"]


async def test_bounds_hold_for_what_is_there_too(log: str, path: Path) -> None:
    async with Supervisor(workers=1, cache=path) as supervisor:
        await supervisor.run(caching.repeat, log, list(range(300)), 100)
        for key in range(10):
            await supervisor.run(caching.large_text, log, f"large {key}", 100_000 + key)
        await supervisor.run(caching.look_up, log, 7)  # the one used last
    async with Supervisor(workers=1, cache=path, cache_bytes=100_000) as supervisor:
        assert supervisor.statistics().cache.bytes <= 100_000
        assert await supervisor.run(caching.look_up, log, 7, "another") == "x" * 100
    assert files(path) == ["cache.db"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone()[0] == 195
        assert connection.execute("SELECT count(*) FROM contents").fetchone()[0] == 1
    connection.close()


async def test_age_goes_by_the_clock_on_the_wall(log: str, path: Path) -> None:
    async with Supervisor(workers=1, cache=path) as supervisor:
        await supervisor.run(caching.repeat, log, [1, 2], 10)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET born = born - 1000")
    connection.close()
    async with Supervisor(workers=1, cache=path, cache_age=2000) as supervisor:
        assert supervisor.statistics().cache.entries == 2
    async with Supervisor(workers=1, cache=path, cache_age=500) as supervisor:
        assert supervisor.statistics().cache.entries == 0


async def test_values_that_are_not_at_hand_are_read_again(
    log: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator._cache._HOT_BYTES", 1000)
    async with Supervisor(workers=1, cache=path) as supervisor:
        for _ in range(2):
            for key in range(10):
                assert await supervisor.run(caching.look_up, log, key, f"{key}" * 400) == f"{key}" * 400
        cache = supervisor._link.engine.cache  # type: ignore[union-attr]
        assert cache._values_size == sum(map(len, cache._values.values())) <= 1000
    assert len(computed(log)) == 10


# What goes wrong


async def test_a_second_supervisor_is_refused(log: str, path: Path) -> None:
    async with Supervisor(workers=1, cache=path) as supervisor:
        with pytest.raises(CacheInUse, match=r"cache.db' is in use by another supervisor, in this process"):
            async with Supervisor(workers=1, cache=path):
                raise AssertionError
        assert await supervisor.run(caching.look_up, log, "key") == "value"


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, and no cache at all" * 100)


def _journal(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id=1331856202")
        connection.execute("CREATE TABLE jobs (id)")
    connection.close()


def _later(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id={0x4F524343}")
        connection.execute("PRAGMA user_version=99")
    connection.close()


def _torn(path: Path) -> None:
    cache = CacheFile(str(path))
    cache.open(2**20, None)
    cache.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_garbage, "is no cache"),
        (_journal, "is an SQLite database, but no cache; name another file"),
        (_later, "was written by a later version"),
        (_torn, "is damaged"),
    ],
)
async def test_a_damaged_file_is_refused_before_anything_starts(
    path: Path, damage: Callable[[Path], None], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "orchestrator")
    damage(path)
    before = path.read_bytes()
    with pytest.raises(CacheDamaged, match=problem) as refused:
        async with Supervisor(workers=1, cache=path):
            raise AssertionError
    assert refused.value.path == str(path)
    assert path.read_bytes() == before
    assert not [record for record in caplog.records if "child_started" in record.message]


async def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="is a folder; name a file"):
        async with Supervisor(workers=1, cache=tmp_path):
            raise AssertionError
    with pytest.raises(CacheError, match="does not exist; create it or name another file"):
        async with Supervisor(workers=1, cache=tmp_path / "none" / "cache.db"):
            raise AssertionError


@pytest.mark.parametrize(
    "options",
    [{"cache": 7}, {"cache": ""}, {"cache": b"x"}, {"cache_bytes": 10}, {"cache_bytes": 1.5}, {"cache_age": 0}],
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Supervisor(**options)


async def test_lost_and_foreign_files_are_seen_to_at_the_start(log: str, path: Path) -> None:
    async with Supervisor(workers=1, cache=path) as supervisor:
        for key in range(3):
            await supervisor.run(caching.large_text, log, key, 100_000 + key)
    folder = path.with_name("cache.db.values")
    first, second, _ = sorted(folder.iterdir())
    first.unlink()
    second.write_bytes(b"torn")
    (folder / "foreign").write_bytes(b"x")
    (folder / "new-left").mkdir()
    (folder / "new-left" / "1-1-0.value").write_bytes(b"half")
    async with Supervisor(workers=1, cache=path) as supervisor:
        assert supervisor.statistics().cache.entries == 1
        for key in range(3):
            assert await supervisor.run(caching.large_text, log, key, 100_000 + key) == 100_000 + key
    assert len(list(folder.iterdir())) == 3
    assert len(computed(log)) == 5


async def test_a_disk_that_takes_no_rows_breaks_nothing(
    log: str, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with Supervisor(workers=2, cache=path) as supervisor:
        connection = supervisor._link.engine.cache._store._file._database.connection  # type: ignore[union-attr]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 1}")  # the disk is full, as SQLite sees it
        for key in range(20):
            assert await supervisor.run(caching.look_up, log, key, f"{key}" * 1000) == f"{key}" * 1000
        for key in range(20):  # they are here as long as the process is
            assert await supervisor.run(caching.look_up, log, key, f"{key}" * 1000) == f"{key}" * 1000
        assert len(computed(log)) == 20
    failed = [record for record in caplog.records if "cache.write_failed" in record.message]
    assert len(failed) == 1 and "full" in failed[0].message
    async with Supervisor(workers=2, cache=path) as supervisor:
        assert supervisor.statistics().cache.entries < 20


@pytest.mark.parametrize("persistent", [False, True])
async def test_a_disk_that_takes_no_files_breaks_nothing(
    log: str, path: Path, persistent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Supervisor(workers=2, cache=path if persistent else None) as supervisor:
        assert (await supervisor.run(caching.large, log, "there", 100_000))[0] == 100_000
        incoming = Path(supervisor._link.engine.cache._store.files.incoming)  # type: ignore[union-attr]
        shutil.rmtree(incoming)
        incoming.write_bytes(b"no folder any more, and nobody can make one here")
        for _ in range(2):
            jobs = [await supervisor.submit(caching.large, log, "key", 100_000) for _ in range(2)]
            assert [(await job.result())[0] for job in jobs] == [100_000] * 2
        assert (await supervisor.run(caching.large, log, "there", 100_000))[0] == 100_000
        assert await supervisor.run(caching.look_up, log, "small") == "value"
        assert supervisor.statistics().cache.entries == 2
    assert Counter(computed(log)) == {"there": 1, "key": 4, "small": 1}
    failed = [record for record in caplog.records if "cache.write_failed" in record.message]
    assert len(failed) == 1


async def test_a_folder_that_was_removed_is_made_again(log: str) -> None:
    async with Supervisor(workers=1) as supervisor:
        await supervisor.run(caching.large, log, "one", 100_000)
        shutil.rmtree(supervisor._link.engine.cache._store.files.folder)  # type: ignore[union-attr]
        for _ in range(3):
            await supervisor.run(caching.large, log, "two", 100_000)
        assert supervisor.statistics().cache.entries == 2
    assert computed(log) == ["one", "two", "two"]


async def test_an_unused_cache_costs_neither_a_thread_nor_a_folder() -> None:
    async with Supervisor(workers=1) as supervisor:
        await supervisor.run("time:sleep", 0)
        cache = supervisor._link.engine.cache  # type: ignore[union-attr]
        assert cache._store._thread is None
        assert not os.path.exists(os.path.join(supervisor._link.engine._folder, "cache"))  # type: ignore[union-attr]
    assert asyncio.all_tasks() == {asyncio.current_task()}
