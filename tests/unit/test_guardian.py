"""What a guardian makes of what it is told, how it watches elsewhere, and when the supervisor's side tries again."""

from __future__ import annotations

import asyncio
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import _guardian, _guardian_main, _launch, _lifelines
from orchestrator._guardian import Guardian
from orchestrator._guardian_main import KqueueWatch, Ledger, ParentWatch
from orchestrator._recipe import Birth
from orchestrator.exceptions import LaunchError

posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no guardians on Windows")


def birth(pid: int = 4711, temp: str = "/tmp/orchestrator-x/w1-1") -> Birth:
    return Birth("w1-1", "w1", 1, pid, 12.34, "abc", temp)


# The ledger


def test_children_are_kept_until_they_are_buried() -> None:
    ledger = Ledger()
    ledger.read(b"supervisor 7 1.5\nborn 8 2.5 m 2f742f61\nborn 9 2.5 n 2f742f62\nburied 8 2.5\n")
    assert ledger.supervisor == (7, 1.5)
    assert [(ward.pid, ward.started, ward.marker, ward.temp) for ward in ledger.wards.values()] == [
        (9, 2.5, "n", "/t/b")
    ]
    assert ledger.folders == ["/t"]
    assert not ledger.dismissed
    ledger.read(b"bye\n")
    assert ledger.dismissed


def test_lines_arrive_in_pieces_and_the_last_one_counts_only_when_it_is_whole() -> None:
    ledger = Ledger()
    for byte in b"born 8 2.5 m 2f742f61\nborn 9 2.5":
        ledger.read(bytes([byte]))
    assert [pid for pid, _ in ledger.wards] == [8]


def test_another_child_with_the_number_of_one_that_is_buried_is_kept() -> None:
    ledger = Ledger()
    ledger.read(b"born 8 2.5 m 2f61\nborn 8 9.5 m 2f61\nburied 8 2.5\n")
    assert [*ledger.wards] == [(8, 9.5)]


def test_what_it_remembers_is_bounded() -> None:
    ledger = Ledger()
    for number in range(10_000):
        folder = f"/tmp/{number}/w".encode().hex()
        ledger.read(f"born {number} 1.0 m {folder}\nburied {number} 1.0\nnonsense\n".encode())
    ledger.read(b"x" * 10_000_000)
    assert not ledger.wards
    assert ledger.folders == [f"/tmp/{number}" for number in range(9_996, 10_000)]
    assert len(ledger._rest) < 100_000


# Watching


class FakeSelect:
    """The queue of events of macOS, with one process in it."""

    KQ_FILTER_READ, KQ_FILTER_PROC, KQ_EV_ADD, KQ_NOTE_EXIT = -1, -5, 1, 0x80000000

    def __init__(self, living: set[int]) -> None:
        self.living = living
        self.registered: list[tuple[int, int, int, int]] = []
        self.events: list[SimpleNamespace] = []
        self.kevent = lambda *arguments: arguments

    def kqueue(self) -> FakeSelect:
        return self

    def control(self, changes: Any, most: int, timeout: float) -> list[SimpleNamespace]:
        for ident, wanted, _, _ in changes or ():
            if wanted == self.KQ_FILTER_PROC and ident not in self.living:
                raise ProcessLookupError(ident)
        self.registered += changes or ()
        events, self.events = self.events, []
        return events[:most]


def test_kqueue_tells_lines_from_the_end() -> None:
    fake = FakeSelect({7})
    watch = KqueueWatch(7, fake)
    assert fake.registered == [(0, -1, 1, 0), (7, -5, 1, 0x80000000)]
    assert watch.wait(1) == (False, False)
    fake.events = [SimpleNamespace(filter=-1)]
    assert watch.wait(1) == (True, False)
    fake.events = [SimpleNamespace(filter=-5), SimpleNamespace(filter=-1)]
    assert watch.wait(1) == (True, True)
    with pytest.raises(ProcessLookupError):
        KqueueWatch(8, fake)


@posix
def test_elsewhere_the_number_of_the_parent_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    stdin = os.dup(0)
    os.dup2(read, 0)
    try:
        watch = ParentWatch(os.getppid())
        assert watch.wait(0.01) == (False, False)
        os.write(write, b"x")
        assert watch.wait(0.01) == (True, False)
        monkeypatch.setattr(os, "getppid", lambda: 1)
        assert watch.wait(0.01)[1]
    finally:
        os.dup2(stdin, 0)
        for fd in (stdin, read, write):
            os.close(fd)


@posix
def test_a_supervisor_that_is_gone_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _guardian_main.watch(os.getppid(), 0.0) is not None
    # Somebody has its number, and is not our parent.
    assert _guardian_main.watch(os.getpid(), 0.0) is None
    assert _guardian_main.watch(2**22 + 1, 0.0) is None


@posix
def test_a_supervisor_behind_a_loader_is_watched_too() -> None:
    from orchestrator._killset import KillSet

    assert _guardian_main.watch(os.getpid(), KillSet(os.getpid(), "").root.started) is not None


# The supervisor's side


class Notes:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.heard = asyncio.Event()

    def __call__(self, event: str, level: str = "info", /, **fields: Any) -> None:
        self.lines.append((event, fields))
        self.heard.set()

    async def next(self) -> str:
        async with asyncio.timeout(30):
            await self.heard.wait()
        self.heard.clear()
        return self.lines[-1][0]


@posix
async def test_it_watches_when_the_first_birth_was_told_and_leaves_when_it_may() -> None:
    notes = Notes()
    guardian = Guardian(notes)
    assert guardian.pid is None and not guardian.guards
    await guardian.born(birth(2**22 + 1))
    assert guardian.guards and guardian.pid is not None
    await guardian.born(birth(2**22 + 2))
    guardian.buried(birth(2**22 + 1))
    await guardian.aclose()
    assert not guardian.guards and guardian.pid is None
    assert notes.lines == []
    await guardian.aclose()


async def test_without_a_child_there_is_no_guardian() -> None:
    guardian = Guardian(Notes())
    await guardian.aclose()
    assert guardian.pid is None


@posix
async def test_one_that_cannot_start_is_no_reason_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guardian, "_FIRST_DELAY", 0.001)
    tries = []

    def refuse() -> _launch.Launch:
        tries.append(1)
        raise LaunchError("there is no Python here")

    describe = _launch.describe_guardian
    monkeypatch.setattr(_launch, "describe_guardian", refuse)
    notes = Notes()
    guardian = Guardian(notes)
    await guardian.born(birth(2**22 + 1))
    assert not guardian.guards
    assert notes.lines[0] == ("guardian.failed", {"detail": "there is no Python here"})
    monkeypatch.setattr(_launch, "describe_guardian", describe)
    async with asyncio.timeout(30):
        while not guardian.guards:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
    await guardian.aclose()


@posix
async def test_what_it_says_when_it_fails_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = _launch.Launch([sys.executable, "-c", "raise SystemExit('no library here')"], "")
    monkeypatch.setattr(_launch, "describe_guardian", lambda: wrong)
    notes = Notes()
    guardian = Guardian(notes)
    await guardian.born(birth(2**22 + 1))
    assert not guardian.guards
    assert notes.lines[0] == ("guardian.failed", {"detail": "no library here"})
    await guardian.aclose()


@posix
async def test_one_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guardian, "_ARM", 0.1)
    mute = _launch.Launch([sys.executable, "-S", "-c", "import time; time.sleep(1000)"], "")
    monkeypatch.setattr(_launch, "describe_guardian", lambda: mute)
    notes = Notes()
    guardian = Guardian(notes)
    await guardian.born(birth(2**22 + 1))
    assert not guardian.guards and notes.lines[0][0] == "guardian.failed"
    await guardian.aclose()


@posix
async def test_one_that_is_killed_is_replaced_and_the_next_one_is_told_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    guardian = Guardian(notes)
    await guardian.born(birth(2**22 + 1))
    first = guardian.pid
    assert first is not None and guardian._process is not None
    guardian._process.kill()
    assert await notes.next() == "guardian.lost"
    assert not guardian.guards
    # A child that is born meanwhile waits for the next one.
    await guardian.born(birth(2**22 + 2))
    assert guardian.guards and guardian.pid != first
    await guardian.aclose()
    assert len(notes.lines) == 1


@posix
async def test_one_that_does_not_listen_is_replaced_before_it_costs_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    monkeypatch.setattr(_guardian, "_UNREAD", 1000)
    notes = Notes()
    guardian = Guardian(notes)
    await guardian.born(birth(2**22 + 1))
    assert guardian._process is not None
    guardian._process.send_signal(signal.SIGSTOP)
    for number in range(100_000):
        if notes.lines or guardian._process.returncode is not None:
            break
        one = birth(2**22 + 2 + number)
        await guardian.born(one)
        guardian.buried(one)
        await asyncio.sleep(0)
    assert await notes.next() == "guardian.lost"
    await guardian.aclose()


@posix
async def test_one_that_is_stopped_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    monkeypatch.setattr(_guardian, "_LEAVE", 0.1)
    guardian = Guardian(Notes())
    await guardian.born(birth(2**22 + 1))
    assert guardian._process is not None
    guardian._process.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(30):
        await guardian.aclose()


# Its command


def test_a_command_for_children_is_never_used_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_launch.COMMAND, "/no/such/python")
    command = _launch.describe_guardian().command
    assert os.path.basename(command[0]).startswith("python")
    assert command[1:3] == ["-I", "-S"] and _launch.GUARDIAN_LABEL in command
    monkeypatch.setenv("PYTHONHOME", sys.base_prefix)
    assert _launch.describe_guardian().command[1:4] == ["-P", "-s", "-S"]


def test_a_frozen_app_is_told_its_role(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator import _frozen

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    app = os.path.abspath("/opt/app/app")
    monkeypatch.setattr(sys, "executable", app)
    monkeypatch.setattr(_frozen, "_armed", False)  # a test of an app may have called freeze_support here
    with pytest.raises(LaunchError, match="freeze_support"):
        _launch.describe_guardian()
    monkeypatch.setattr(_frozen, "_armed", True)
    launch = _launch.describe_guardian()
    assert launch.command == [app, f"--orchestrator-child={_frozen.token()}:guardian"]
    monkeypatch.setenv("API_KEY", "secret")
    environment = _launch.guardian_environment(["API_KEY"])
    assert environment[_frozen.VARIABLE] == _frozen.token() and "API_KEY" not in environment


# Lifelines


@posix
def test_a_forked_process_has_nothing_of_ours_and_the_same_numbers() -> None:
    read, write = os.pipe()
    kept_read, kept_write = os.pipe()
    _lifelines.hold([write])
    told_read, told_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            same = os.path.samestat(os.fstat(write), os.stat(os.devnull))
            os.write(told_write, b"yes" if same and not os.get_inheritable(write) else b"no")
            os.read(kept_read, 1)  # lives on until it is told
        finally:
            os._exit(0)
    os.write(write, b"still ours")
    _lifelines.release([write])
    os.close(write)
    assert os.read(told_read, 10) == b"yes"
    # Its end comes although the copy lives.
    assert os.read(read, 100) == b"still ours" and os.read(read, 100) == b""
    os.write(kept_write, b"x")
    assert os.waitpid(pid, 0) == (pid, 0)
    for fd in (read, kept_read, kept_write, told_read, told_write):
        os.close(fd)


@posix
async def test_ends_are_forgotten_when_they_are_closed() -> None:
    from orchestrator._pipes import FdPipes

    before = set(_lifelines._held)
    pipes = FdPipes()
    assert len(_lifelines._held - before) == 6
    pipes.end_input()
    assert len(_lifelines._held - before) == 5
    await pipes.aclose()
    assert _lifelines._held == before
