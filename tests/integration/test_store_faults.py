"""A store on a bad day: killed writers, full disks, damaged files, two users; what was acknowledged is there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import selectors
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from journalling import Recorder, attempt, birth, job, outcome, recording, rows

from orchestrator import _database, _faults, _store_thread
from orchestrator._journal_file import JournalFile
from orchestrator._store_batch import LARGE
from orchestrator.exceptions import JournalDamaged, JournalError, JournalInUse

TARGETS = str(Path(__file__).parent.parent / "targets")
WRITER = "import asyncio, sys; sys.path.insert(0, {!r}); import journalling; asyncio.run(journalling.{})"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and mounts of POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.db"


@contextmanager
def started(call: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER.format(TARGETS, call)],
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def errors_of(program: str) -> str:
    """Return what a program says on standard error."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    return done.stderr


def read_for(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Return what a process writes in a while that begins with its first byte."""
    assert process.stdout is not None
    said = os.read(process.stdout.fileno(), 65536)
    assert said, "the writer did not begin"
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if selector.select(left):
                said += os.read(process.stdout.fileno(), 65536)
    return said


def kill_a_writer(path: Path, seconds: float, options: str = "", **environment: str) -> tuple[set[int], set[int]]:
    """Return the jobs and the outcomes that a writer said were recorded before it was killed."""
    with started(f"write_until_killed({str(path)!r}{options})", **environment) as process:
        said = read_for(process, seconds)
        process.kill()
        assert process.stdout is not None
        said += process.stdout.read()
    words = said.decode().split("\n")[:-1]
    return {int(w[1:]) for w in words if w[0] == "s"}, {int(w[1:]) for w in words if w[0] == "o"}


def check_kills(path: Path, count: int) -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    submitted: set[int] = set()
    settled: set[int] = set()
    for kill in range(count):
        more, outcomes = kill_a_writer(path, chance.uniform(0, 0.15))
        submitted |= more
        settled |= outcomes
        with closing(sqlite3.connect(path)) as connection:
            told = f"seed {seed}, kill {kill}"
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)], told
            there = dict(connection.execute("SELECT id, status FROM jobs"))
            assert submitted <= there.keys(), told
            assert all(there[number] == "succeeded" for number in settled), told
            if kill % 10 == 9:  # the file is not to grow with the count
                connection.execute("DELETE FROM jobs")
                connection.commit()
                submitted, settled = set(), set()


@posix
def test_a_killed_writer_loses_nothing_that_it_acknowledged(path: Path) -> None:
    check_kills(path, 25)


@posix
@pytest.mark.soak
def test_five_hundred_killed_writers_lose_nothing(path: Path) -> None:
    check_kills(path, 500)


# Power failures: what was not synchronised may be lost, in any order, a page at a time.


@pytest.fixture(scope="session")
def power_loss(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs a C compiler on Linux")
    library = tmp_path_factory.mktemp("power") / "power_loss.so"
    source = Path(TARGETS) / "power_loss.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return str(library)


def lose_power(root: Path, kept: Path, after: Path, chance: random.Random) -> None:
    """Make what a power failure leaves of a folder: of each page the synchronised state, or any later one."""
    for names in kept.glob("names-*"):
        if names.suffix == ".new":
            continue
        folder = names.name.removeprefix("names-").replace("!", "/")
        (after / folder).mkdir(parents=True, exist_ok=True)
        listed = dict(reversed(line.split(" ", 1)) for line in names.read_text().splitlines())
        for name, inode in listed.items():
            synchronised = (kept / inode).read_bytes() if (kept / inode).exists() else b""
            try:
                now = (root / folder / name).read_bytes()
                if str((root / folder / name).stat().st_ino) != inode:
                    now = synchronised
            except FileNotFoundError:
                now = synchronised
            length = len(chance.choice((synchronised, now)))
            pages = []
            for start in range(0, length, 4096):
                old, new = (text[start : start + 4096].ljust(4096, b"\0") for text in (synchronised, now))
                pages.append(chance.choice((old, new)))
            (after / folder / name).write_bytes(b"".join(pages)[:length])


def check_power_losses(tmp_path: Path, library: str, count: int, durability: str = "power") -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    acknowledged = 0
    for loss in range(count):
        told = f"seed {seed}, loss {loss}"
        folder = tmp_path / f"loss {loss}"
        root, kept, after = (folder / name for name in ("root", "kept", "after"))
        for each in (root, kept, after):
            each.mkdir(parents=True)
        submitted, settled = kill_a_writer(
            root / "j.db",
            chance.uniform(0, 0.3),
            f", durability={durability!r}, length=200, checkpoint=100_000",
            LD_PRELOAD=library,
            POWER_LOSS_ROOT=str(root),
            POWER_LOSS_KEPT=str(kept),
        )
        lose_power(root, kept, after, chance)
        with JournalFile(after / "j.db"):  # the check of its structure is part of the opening
            pass
        with closing(sqlite3.connect(after / "j.db")) as connection:
            there = {
                number: (status, files)
                for number, status, files in connection.execute("SELECT id, status, files FROM jobs")
            }
        if durability == "power":
            assert submitted <= there.keys(), told
            assert all(there[number][0] == "succeeded" for number in settled), told
        for _, files in there.values():
            if files is not None:
                name = json.loads(files)["value"]
                content = (after / "j.db.payloads" / name).read_bytes()
                assert hashlib.sha256(content).hexdigest() == name, told
        acknowledged += len(settled)
        shutil.rmtree(folder)
    assert acknowledged > 20 * count


def test_a_power_failure_loses_nothing_that_was_acknowledged(tmp_path: Path, power_loss: str) -> None:
    check_power_losses(tmp_path, power_loss, 10)


def test_a_power_failure_leaves_a_whole_journal_at_process_durability(tmp_path: Path, power_loss: str) -> None:
    check_power_losses(tmp_path, power_loss, 5, "process")


@pytest.mark.soak
def test_two_hundred_power_failures_lose_nothing(tmp_path: Path, power_loss: str) -> None:
    check_power_losses(tmp_path, power_loss, 200)
    check_power_losses(tmp_path / "process", power_loss, 100, "process")


@posix
@pytest.mark.parametrize("durability", ["power", "process", "none"])
async def test_a_journal_is_refused_to_a_second_user_within_a_second(path: Path, durability: str) -> None:
    with started(f"write_until_killed({str(path)!r})") as process:
        before = read_for(process, 0.1)
        times = []
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(
                JournalInUse, match=f"is in use by another supervisor, in process {process.pid};"
            ) as caught:
                await Recorder(path, durability=durability).store.open()
            times.append(time.monotonic() - began)
            assert caught.value.path == str(path)
        assert min(times) < 1  # the machine may be busy
        # The first one goes on, and what it writes is whole.
        after = read_for(process, 0.1)
        assert process.poll() is None
        process.kill()
        assert process.stdout is not None
        said = (before + after + process.stdout.read()).decode().split("\n")[:-1]
    async with recording(path) as run:
        assert {int(word[1:]) for word in said} <= {number for (number,) in await ask(run, "SELECT id FROM jobs")}


async def test_a_second_store_of_this_process_is_refused_too_and_locks_hold(path: Path) -> None:
    async with recording(path) as run:
        for _ in range(2):
            with pytest.raises(JournalInUse, match="in this process"):
                await Recorder(path).store.open()
        # Had the refused one opened and closed the file by itself, the first one's lock would be gone now.
        program = WRITER.format(TARGETS, f"write_until_killed({str(path)!r})")
        assert "JournalInUse" in await asyncio.to_thread(errors_of, program)
        assert await run.submit(job(1)) is None


async def ask(run: Recorder, statement: str) -> list[Any]:
    answer: list[Any] = await run.store._thread.call(lambda database: database.connection.execute(statement).fetchall())
    return answer


# Damaged files.


async def fill(path: Path, count: int = 2000) -> None:
    async with recording(path) as run:
        for number in range(1, count + 1):
            run.store.submit(job(number, identity=f"row {number}"), lambda _: None)
            run.store.attempt(attempt(number))


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def zero_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * (path.stat().st_size // 4096 // 2))
        file.write(bytes(4096))


def zero_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def write_garbage(path: Path) -> None:
    path.write_bytes(b"# my notes\n" * 1000)


@pytest.mark.parametrize("damage", [truncate, zero_a_page, zero_the_header, write_garbage])
async def test_a_damaged_file_is_refused_and_kept(path: Path, damage: Callable[[Path], None]) -> None:
    await fill(path)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(JournalDamaged, match="the file is left as it is; restore a backup, or name another file"):
        await Recorder(path).store.open()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


async def test_a_file_of_somebody_else_is_refused_and_kept(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(JournalDamaged, match="is an SQLite database, but no journal"):
        await Recorder(path).store.open()
    assert path.read_bytes() == before


async def test_a_journal_of_a_later_version_is_refused(path: Path) -> None:
    await fill(path, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(JournalDamaged, match=r"later version \(format 99, known is 1\); update this program"):
        await Recorder(path).store.open()


async def test_an_empty_file_is_a_new_journal_unless_something_belongs_to_it(path: Path) -> None:
    path.touch()
    async with recording(path) as run:
        await run.submit(job(1))
    path.write_bytes(b"")
    Path(f"{path}-wal").write_bytes(b"x" * 5000)
    with pytest.raises(JournalDamaged, match="is empty, but its log or its files are not"):
        await Recorder(path).store.open()
    assert Path(f"{path}-wal").stat().st_size == 5000


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        (".", "is a folder; name a file"),
        ("missing/j.db", "the folder '.*missing' does not exist; create it or name another file"),
    ],
)
async def test_a_place_that_cannot_be_is_named(tmp_path: Path, place: str, problem: str) -> None:
    with pytest.raises(JournalError, match=problem):
        await Recorder(tmp_path / place).store.open()
    assert not [*tmp_path.iterdir()]


@posix
async def test_a_pipe_is_refused(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(JournalError, match="is not a regular file"):
        await Recorder(path).store.open()


async def test_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    mounts = [("/", "ext4", ""), (str(path.parent), "nfs4", "rw"), (f"{path.parent}x", "ext4", "")]
    parts = [SimpleNamespace(mountpoint=point, fstype=kind, opts=opts) for point, kind, opts in mounts]
    monkeypatch.setattr(_database.psutil, "disk_partitions", lambda all: parts)
    with pytest.raises(JournalError, match=r"network file system \(nfs4\), whose locks cannot be trusted"):
        await Recorder(path).store.open()
    assert not path.exists()
    parts.append(SimpleNamespace(mountpoint=str(path.parent), fstype="tmpfs", opts="rw"))
    async with recording(path) as run:
        assert await run.submit(job(1)) is None


async def test_a_log_that_was_left_behind_is_part_of_the_journal(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with recording(path) as run:
        for number in range(1, 101):
            run.store.submit(job(number), lambda _: None)
        await run.store.flush()
        # What lies on the disk now is what a kill leaves.
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    assert Path(f"{copy}-wal").stat().st_size > 0
    async with recording(copy) as run:
        assert len(await run.open_jobs()) == 100
        assert await ask(run, "SELECT count(*) FROM runs WHERE clean") == [(0,)]
    # A log that ends in the middle of a transaction is one that was being written: that transaction did not happen.
    log = Path(f"{copy}-wal")
    shutil.copy(f"{path}", copy)
    log.write_bytes(b"\0" * 10)
    async with recording(copy) as run:
        assert len(await run.open_jobs()) == 100


# A disk that takes nothing.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  what it waits for is told to a callback of the store's
            await asyncio.sleep(0.01)


async def test_a_full_disk_is_no_acknowledgement_and_all_goes_on_when_it_has_room(small_disk: Path) -> None:
    path = small_disk / "j.db"
    ballast = small_disk / "ballast"
    told: list[int] = []
    async with recording(path) as run:
        await run.submit(job(1))
        ballast.write_bytes(bytes(512 * 1024))
        number = 1
        while not run.stalls:
            for _ in range(20):
                number += 1
                run.store.submit(job(number, body=b"x" * 3000), lambda _, number=number: told.append(number))
            await asyncio.sleep(0.001)
        assert isinstance(run.store.stalled, sqlite3.OperationalError | OSError)
        before = len(told)
        run.store.settle(1, outcome(), lambda: told.append(0))
        await asyncio.sleep(0.5)  # two tries
        assert len(told) == before < number
        assert (len(run.stalls), run.recoveries) == (1, 0)
        ballast.unlink()
        # The rest may be more than the disk has: what comes next is enough.
        began = time.monotonic()
        await until(lambda: run.recoveries or len(run.stalls) > 1)
        assert time.monotonic() - began < 6
        remount(small_disk, "size=64m")
        await run.store.flush()
        assert told == [*range(2, number + 1), 0], "in the order of the calls"
        assert run.store.stalled is None
        assert run.recoveries == len(run.stalls)
    assert rows(path, "PRAGMA quick_check") == [("ok",)]
    assert rows(path, "SELECT count(*), count(status) FROM jobs") == [(number, 1)]


async def test_a_full_disk_for_a_long_value(small_disk: Path) -> None:
    path = small_disk / "j.db"
    async with recording(path) as run:
        submitting = asyncio.ensure_future(run.submit(job(1, body=b'"args":["' + b"x" * 2 * 2**20 + b'"]')))
        await until(lambda: run.stalls)
        assert isinstance(run.stalls[0], OSError)
        assert not submitting.done()
        remount(small_disk, "size=64m")
        assert await submitting is None
        assert run.recoveries == 1
        assert not [name for name in os.listdir(f"{path}.payloads") if name.endswith(".new")]


async def test_no_room_for_a_new_journal_is_said_in_a_sentence(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(2**20 - 8192))
    with pytest.raises(JournalError, match="disk (is full|I/O error).*name a file on a disk that has space"):
        await Recorder(small_disk / "j.db").store.open()


async def test_no_room_to_go_on_is_said_in_a_sentence(small_disk: Path) -> None:
    path = small_disk / "j.db"
    async with recording(path) as run:
        await run.submit(job(1))
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass
    with pytest.raises(JournalError, match="disk (is full|I/O error).*name a file on a disk that has space"):
        await Recorder(path).store.open()
    (small_disk / "ballast").unlink()
    async with recording(path) as run:
        assert [each.job.id for each in await run.open_jobs()] == [1]


async def test_a_disk_that_cannot_be_written_is_said_in_a_sentence(small_disk: Path) -> None:
    async with recording(small_disk / "j.db"):
        pass
    remount(small_disk, "ro")
    for name in ("j.db", "other.db"):
        with pytest.raises(JournalError, match="name a file (on a disk|in a folder) that"):
            await Recorder(small_disk / name).store.open()


@pytest.mark.parametrize("number", [28, 5, 30])
async def test_an_error_at_commit_is_retried_until_it_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async with recording(path) as run:
        await run.submit(job(1))
        faults = _faults.parse(f"C12:errno={number}")
        monkeypatch.setattr("orchestrator._store_writes.FAULTS", faults)
        monkeypatch.setattr(_faults, "FAULTS", faults)
        waiting = [asyncio.ensure_future(run.submit(job(n))) for n in (2, 3)]
        waiting.append(asyncio.ensure_future(run.settle(1, outcome())))
        await until(lambda: faults["C12"].passes >= 3)
        assert not any(each.done() for each in waiting)
        assert [each.errno for each in run.stalls if isinstance(each, OSError)] == [number]
        faults.clear()
        await asyncio.gather(*waiting)
        assert (len(run.stalls), run.recoveries) == (1, 1)
        monkeypatch.undo()
    assert rows(path, "SELECT count(*), count(status) FROM jobs") == [(3, 1)]


@pytest.mark.parametrize("durability", ["process", "none"])
async def test_a_close_while_the_disk_refuses_gives_up_in_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    told: list[object] = []
    run = Recorder(path, durability=durability)
    run.opened = await run.store.open()
    await run.submit(job(1))
    await run.store.flush()
    faults = _faults.parse("C12:errno=28")
    monkeypatch.setattr("orchestrator._store_writes.FAULTS", faults)
    monkeypatch.setattr(_faults, "FAULTS", faults)
    run.store.submit(job(2, identity="b"), told.append)
    await until(lambda: run.stalls)
    run.store.submit(job(3), told.append)
    began = time.monotonic()
    assert not await run.store.aclose(0.2)
    assert time.monotonic() - began < 5
    monkeypatch.undo()
    assert not told
    assert rows(path, "SELECT id FROM jobs") == [(1,)]
    assert rows(path, "SELECT clean FROM runs") == [(0,)]


async def test_a_close_tries_once_more_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store_thread, "_FIRST_RETRY", 3600.0)
    monkeypatch.setattr(_store_thread, "_LAST_RETRY", 3600.0)
    told: list[object] = []
    run = Recorder(path)
    run.opened = await run.store.open()
    faults = _faults.parse("C12:errno=28")
    monkeypatch.setattr("orchestrator._store_writes.FAULTS", faults)
    monkeypatch.setattr(_faults, "FAULTS", faults)
    run.store.submit(job(1), told.append)
    await until(lambda: run.stalls)
    faults.clear()
    assert await run.store.aclose(20)
    assert told == [None]
    assert rows(path, "SELECT clean FROM runs") == [(1,)]


async def test_a_quota_of_pages_is_no_acknowledgement(path: Path) -> None:
    told: list[int] = []
    async with recording(path) as run:
        await ask(run, "PRAGMA max_page_count=60")
        for number in range(1, 401):
            run.store.submit(job(number, body=b"x" * 2000), lambda _, number=number: told.append(number))
        await until(lambda: run.stalls)
        assert not told
        assert "full" in str(run.store.stalled)
        assert not await run.store.aclose(0.1)
    assert rows(path, "SELECT count(*) FROM jobs") == [(0,)]


async def test_a_checkpoint_that_fails_harms_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store_thread, "CHECKPOINT", 50_000)
    faults = _faults.parse("C11:errno=5")
    monkeypatch.setattr(_store_thread, "FAULTS", faults)
    monkeypatch.setattr(_faults, "FAULTS", faults)
    async with recording(path) as run:
        for number in range(1, 200):
            await run.submit(job(number, body=b"x" * 2000))
        assert faults["C11"].passes > 50
        assert not run.stalls
        faults.clear()
        await run.submit(job(200))
        await run.submit(job(201))
        assert Path(f"{path}-wal").stat().st_size < 50_000
    assert rows(path, "SELECT count(*) FROM jobs") == [(201,)]


# Crash points: the process dies there, and the next one finds this.

POINTS = {
    "C2": ("submit", "SELECT count(*) FROM jobs", 1),
    "C3": ("lease", "SELECT count(*) FROM attempts WHERE state='leased'", 1),
    "C6": ("effect", "SELECT count(*) FROM effects WHERE phase='begun'", 1),
    "C8": ("settle", "SELECT count(*) FROM jobs WHERE status IS NOT NULL", 0),
    "C12": ("submit", "SELECT count(*) FROM jobs", 0),
    "C14": ("birth", "SELECT count(*) FROM births", 0),
}


@posix
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_crash_point(path: Path, point: str) -> None:
    act, statement, count = POINTS[point]
    # C12 is passed by every commit: the first is the one that is meant.
    with started(f"do_one_thing({str(path)!r}, {act!r})", ORCHESTRATOR_FAULT=f"{point}:kill") as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert f"{act} recorded" not in said.decode()
    assert rows(path, "PRAGMA quick_check") == [("ok",)]
    assert rows(path, statement) == [(count,)]


@posix
@pytest.mark.parametrize("nth", [1, 2])
def test_a_kill_around_a_checkpoint(path: Path, nth: int) -> None:
    with started(f"write_until_killed({str(path)!r})", ORCHESTRATOR_FAULT=f"C11:kill:{nth}") as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    settled = [int(word[1:]) for word in said.decode().split("\n")[:-1] if word[0] == "o"]
    assert rows(path, "PRAGMA quick_check") == [("ok",)]
    assert len(settled) > 300
    assert {*settled} <= {number for (number,) in rows(path, "SELECT id FROM jobs WHERE status='succeeded'")}


async def test_a_payload_is_there_before_its_row(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A kill between the two leaves a file that no row names, and the next run takes it away.
    body = b'"args":["' + b"x" * LARGE + b'"]'
    with started(f"do_one_thing({str(path)!r}, 'large')", ORCHESTRATOR_FAULT="C12:kill") as process:
        process.communicate(timeout=30)
    folder = Path(f"{path}.payloads")
    assert [each.stat().st_size for each in folder.iterdir()] == [len(body)]
    async with recording(path) as run:
        run.store._thread.retain()
        await ask(run, "SELECT 1")
        await ask(run, "SELECT 1")
        assert not folder.exists()


async def test_a_lost_file_is_the_outcome_of_its_job_alone(path: Path) -> None:
    body = b'"args":["' + b"x" * LARGE + b'"]'
    async with recording(path) as run:
        await run.submit(job(1, identity="done"))
        await run.settle(1, outcome(f'"{"v" * LARGE}"'))
        await run.submit(job(2, identity="open", body=body))
        for number in range(3, 1003):
            run.store.submit(job(number), lambda _: None)
    for each in Path(f"{path}.payloads").iterdir():
        each.unlink()
    async with recording(path) as run:
        assert [each.job.id for each in await run.open_jobs()] == [*range(3, 1003)]
        for number, identity in ((1, "done"), (2, "open")):
            known = await run.submit(job(2000 + number, identity=identity))
            assert known is not None and known.settled is not None
            assert (known.id, known.settled.status) == (number, "failed")
            assert f"the journal lacks a file of job {number}: " in str(known.settled.error)
        assert not run.stalls
        assert await run.submit(job(3000)) is None


async def test_births_of_another_boot_are_told_apart(path: Path) -> None:
    async with recording(path) as run:
        run.store.born(birth("old"), lambda: None)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE runs SET boot='another'")
        connection.commit()
    async with recording(path) as run:
        assert not run.opened.same_boot
        assert [each.same_boot for each in run.opened.births] == [False]
        run.store.born(birth("new"), lambda: None)
    async with recording(path) as run:
        assert run.opened.same_boot
        assert {each.marker: each.same_boot for each in run.opened.births} == {"old": False, "new": True}
