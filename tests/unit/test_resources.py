"""What wears a child out, how its memory is weighed, and what counts as the kernel's word."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import _memory
from orchestrator._killset import Identity, KillSet
from orchestrator._memory import OomCounter, Sampler, Scale
from orchestrator._resources import Allowance, Use

MB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="the files of Linux")


# Policy


def test_the_last_job_wears_a_child_out() -> None:
    use = Use(Allowance(max_jobs=3))
    assert [use.give() for _ in range(3)] == [False, False, True]
    assert use.worn and use.given == 3


def test_without_bounds_nothing_wears() -> None:
    use = Use(Allowance())
    assert not any(use.give() for _ in range(1_000))
    assert use.weigh(10**15) is None and not use.worn
    assert Allowance().lifetime(lambda: 0.5) is None and not Allowance(max_jobs=1, max_age=1.0).weighs


def test_a_large_child_is_replaced_after_a_job_and_said_so_once() -> None:
    use = Use(Allowance(max_rss=100 * MB))
    use.give()
    assert use.weigh(100 * MB) is None
    assert use.weigh(101 * MB) == "recycle" and use.worn
    assert use.weigh(500 * MB) is None
    assert use.peak == 500 * MB


def test_one_that_is_too_large_before_its_first_job_is_only_named() -> None:
    use = Use(Allowance(max_rss=100 * MB))
    assert [use.weigh(200 * MB) for _ in range(3)] == ["warn", None, None]
    assert not use.worn
    use.give()
    assert use.weigh(200 * MB) == "recycle"


def test_the_limit_kills_at_any_time() -> None:
    use = Use(Allowance(max_rss=100 * MB, memory_limit=200 * MB))
    assert use.weigh(200 * MB) == "warn"
    assert use.weigh(200 * MB + 1) == "kill"
    assert use.weigh(200 * MB + 1) == "kill"  # until it is gone


@given(st.floats(0, 1), st.floats(0.001, 1e9))
def test_ages_differ_by_ten_percent_at_most(drawn: float, age: float) -> None:
    found = Allowance(max_age=age).lifetime(lambda: drawn)
    assert found is not None and 0.8999 * age <= found <= 1.1001 * age


@given(st.lists(st.integers(0, 300 * MB), min_size=1), st.booleans())
def test_the_peak_is_the_most_that_was_seen(seen: list[int], worked: bool) -> None:
    use = Use(Allowance(max_rss=100 * MB, memory_limit=200 * MB))
    if worked:
        use.give()
    verdicts = [use.weigh(memory) for memory in seen]
    assert use.peak == max(seen)
    assert [verdict == "kill" for verdict in verdicts] == [memory > 200 * MB for memory in seen]
    assert verdicts.count("recycle") <= 1 and verdicts.count("warn") <= 1


# Weighing


HOG = (
    "import sys; held = bytearray(int(sys.argv[1])); held[::4096] = b'x' * len(held[::4096])\n"
    "print(1, flush=True); input()"
)


@pytest.fixture
def hog() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose child has 64 MiB."""
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOG!r}, sys.argv[1]])"
    command = [sys.executable, "-c", nested, str(64 * MB)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        yield process
        process.stdin.close()


def test_descendants_count(hog: subprocess.Popen[bytes]) -> None:
    found = Scale().weigh_tree(KillSet(hog.pid, "nobody's").root)
    assert found is not None and 64 * MB < found < 160 * MB


def test_nobody_weighs_nothing(hog: subprocess.Popen[bytes]) -> None:
    root = KillSet(hog.pid, "nobody's").root
    assert Scale().weigh_tree(Identity(root.pid, root.started - 1)) is None  # an earlier process of that number


@linux
def test_shared_pages_count_once() -> None:
    code = (
        "import os, sys; held = bytearray(64 << 20); held[::4096] = b'x' * len(held[::4096])\n"
        "for _ in range(3):\n    if os.fork() == 0: sys.stdin.read(); os._exit(0)\n"
        "print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = Scale().weigh_tree(KillSet(process.pid, "nobody's").root)
    assert found is not None and 64 * MB < found < 120 * MB


@linux
def test_a_process_that_did_not_change_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(_memory, "_resident", lambda pid: 50 * MB)
    monkeypatch.setattr(_memory, "_proportional", lambda pid: looks.append(pid) or 40 * MB)
    scale, root = Scale(), KillSet(os.getpid(), "nobody's").root
    family = len(KillSet(os.getpid(), "nobody's").descendants()) + 1
    for _ in range(3):
        assert scale.weigh_tree(root) == family * 40 * MB
        scale.next_round()
    assert len(looks) == family


@linux
def test_without_shares_the_resident_size_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "_proportional", lambda pid: None)
    found = Scale().weigh_tree(KillSet(os.getpid(), "nobody's").root)
    assert found is not None and found > 5 * MB


async def test_the_sampler_tells_on_the_loop_and_leaves_no_thread() -> None:
    told: list[tuple[str, int]] = []
    came = asyncio.Event()
    threads: set[int] = set()

    def tell(key: str, memory: int) -> None:
        told.append((key, memory))
        threads.add(threading.get_ident())
        if len(told) >= 6:
            came.set()

    own = KillSet(os.getpid(), "nobody's").root
    gone = Identity(own.pid, own.started - 5)
    before = threading.active_count()
    sampler = Sampler(asyncio.get_running_loop(), lambda: [("a", own), ("gone", gone), ("b", own)], tell, interval=0.01)
    sampler.start("sampler")
    async with asyncio.timeout(20):
        await came.wait()
    sampler.stop()
    sampler.join()
    assert {key for key, _ in told} == {"a", "b"} and all(memory > 0 for _, memory in told)
    assert threads == {threading.get_ident()} and threading.active_count() == before
    count = len(told)
    await asyncio.sleep(0.05)
    assert len(told) == count


async def test_a_look_that_takes_for_ever_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, enough = threading.Event(), threading.Event()

    def look(self: Scale, root: Identity) -> int:
        looking.set()
        enough.wait()
        return 1

    monkeypatch.setattr(Scale, "weigh_tree", look)
    monkeypatch.setattr(_memory, "_LEAVE", 0.05)
    told: list[int] = []
    own = Identity(os.getpid(), 0.0)
    sampler = Sampler(asyncio.get_running_loop(), lambda: [(1, own)], lambda key, memory: told.append(memory), 0.01)
    sampler.start("sampler")
    await asyncio.to_thread(looking.wait, 20)
    sampler.stop()
    sampler.join()
    enough.set()
    assert told == []


# The kernel's counter


def group(folder: Path, membership: str, counter: str, text: str) -> OomCounter:
    (folder / "membership").write_text(membership)
    file = folder / "cgroup" / counter
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return OomCounter(str(folder / "cgroup"), str(folder / "membership"))


@pytest.mark.parametrize(
    ("membership", "counter", "lines"),
    [
        ("0::/app.slice/a.scope\n", "app.slice/a.scope/memory.events", "low 0\noom 3\noom_kill {}\noom_group_kill 9\n"),
        ("5:devices:/\n0::/x\n", "unified/x/memory.events", "oom_kill {}\n"),
        ("4:memory:/docker/abc\n0::/\n", "memory/docker/abc/memory.oom_control", "under_oom 0\noom_kill {}\n"),
        ("4:cpu,memory:/docker/abc\n0::/\n", "memory/memory.oom_control", "under_oom 0\noom_kill {}\n"),
    ],
)
def test_a_rise_of_the_counter_is_proof_for_one_child(
    tmp_path: Path, membership: str, counter: str, lines: str
) -> None:
    oom = group(tmp_path, membership, counter, lines.format(4))
    file = tmp_path / "cgroup" / counter
    assert not oom.rose()
    file.write_text(lines.format(6))
    assert [oom.rose() for _ in range(3)] == [True, True, False]
    file.write_text(lines.format(7))
    oom.note()
    assert not oom.rose()


def test_without_a_counter_nothing_is_proved(tmp_path: Path) -> None:
    oom = OomCounter(str(tmp_path), str(tmp_path / "missing"))
    oom.note()
    assert not oom.rose()
