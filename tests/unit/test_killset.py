"""Who belongs to a kill set, on systems that are not at hand: scripted processes, and psutil's side with fakes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Self

import psutil
import pytest

from orchestrator._killset import Identity, KillSet, now
from orchestrator._killset_process import Process
from orchestrator._killset_psutil import PsutilSystem

OWN = os.getpid()


class FakeSystem:
    """Processes in a dictionary.

    Attributes:
        deaf: Pids that no signal ends.
        changing: Pids that show no environment.
        heard: What the root has heard of ended children.
        at_scan: Called with the number of each scan before it is made.
    """

    tick = 0.01

    def __init__(self, *processes: Process, parents_last: bool = False) -> None:
        self.parents_last = parents_last
        self.processes = {process.pid: process for process in processes}
        self.marked: dict[int, list[bytes]] = {}
        self.stopped: list[int] = []
        self.killed: list[int] = []
        self.deaf: set[int] = set()
        self.changing: set[int] = set()
        self.looks_at_marks = 0
        self.heard: int | None = 0
        self.scans = 0
        self.at_scan: Callable[[int], None] = lambda number: None

    def add(self, *processes: Process) -> None:
        self.processes.update({process.pid: process for process in processes})

    def end(self, *pids: int) -> None:
        for pid in pids:
            del self.processes[pid]
            if not self.parents_last:
                for child in [*self.processes.values()]:
                    if child.parent == pid:
                        self.add(child._replace(parent=1))

    def now(self) -> float:
        return 1000.0

    def look(self, pid: int) -> Process | None:
        return self.processes.get(pid)

    def children(self, pid: int) -> list[int]:
        return [process.pid for process in self.processes.values() if process.parent == pid]

    def reaped(self, pid: int) -> int | None:
        return self.heard

    def table(self) -> dict[int, Process]:
        self.scans += 1
        self.at_scan(self.scans)
        return dict(self.processes)

    def marks(self, process: Process) -> list[bytes] | None:
        self.looks_at_marks += 1
        return None if process.pid in self.changing else self.marked.get(process.pid, [])

    def is_changing(self, process: Process) -> bool:
        return process.pid in self.changing

    def stop(self, identity: Identity) -> None:
        self.stopped.append(identity.pid)

    def kill(self, identity: Identity) -> None:
        if self._is(identity) and identity.pid not in self.deaf:
            self.killed.append(identity.pid)
            self.end(identity.pid)

    def _is(self, identity: Identity) -> bool:
        process = self.processes.get(identity.pid)
        return process is not None and process.identity == identity

    def kill_group(self, leader: Identity) -> None:
        if self._is(leader):
            for process in [*self.processes.values()]:
                if process.group == leader.pid:
                    self.kill(process.identity)

    def terminate_group(self, leader: Identity) -> None: ...

    def wait_gone(self, identity: Identity, timeout: float) -> bool:
        return not self._is(identity)


def process(pid: int, parent: int, started: float = 10.0, *, group: int = 0, session: int = 0) -> Process:
    return Process(pid, started, parent, group, session, True)


INIT = process(1, 0, 0.0, group=1, session=1)
ME = process(OWN, 1, 1.0, group=OWN, session=OWN)
ROOT = process(50_000, OWN, 10.0, group=50_000, session=50_000)


def members(kill_set: KillSet) -> set[int]:
    return {identity.pid for identity in kill_set.members()}


def test_group_number_that_changed_hands_is_no_sign() -> None:
    system = FakeSystem(INIT, ME, ROOT)
    kill_set = KillSet(ROOT.pid, "m", system=system)
    system.end(ROOT.pid)
    # Its number leads somebody else's session now.
    system.add(process(ROOT.pid, 1, 30.0, group=ROOT.pid, session=ROOT.pid))
    system.add(process(60_000, ROOT.pid, 31.0, group=ROOT.pid, session=ROOT.pid))
    assert kill_set.members() == [] == kill_set.descendants()
    assert kill_set.sweep(1) == () and system.killed == []


def test_session_that_was_empty_once_is_forgotten() -> None:
    system = FakeSystem(INIT, ME, ROOT, process(51_000, ROOT.pid, group=51_000, session=51_000))
    kill_set = KillSet(ROOT.pid, "m", system=system)
    assert members(kill_set) == {ROOT.pid, 51_000}
    system.end(51_000)
    assert members(kill_set) == {ROOT.pid}
    # The number goes round; its new session has lost its leader when we look next.
    system.add(process(52_000, 1, 40.0, group=51_000, session=51_000))
    assert members(kill_set) == {ROOT.pid}


def test_session_of_a_zombie_leader_still_counts() -> None:
    system = FakeSystem(INIT, ME, ROOT._replace(alive=False))
    system.add(process(51_000, 1, group=51_000, session=ROOT.pid))
    kill_set = KillSet(ROOT.pid, "m", system=system)
    assert members(kill_set) == {51_000}


def test_root_in_our_own_session_does_not_draw_us_in() -> None:
    root = process(50_000, OWN, group=OWN, session=OWN)
    neighbour = process(50_001, OWN, group=OWN, session=OWN)
    system = FakeSystem(INIT, ME, root, neighbour, process(50_002, 50_000, group=OWN, session=OWN))
    kill_set = KillSet(50_000, "m", system=system)
    assert members(kill_set) == {50_000, 50_002}


def test_we_and_our_ancestors_are_never_members() -> None:
    shell = process(40_000, 1, 0.5, group=40_000, session=40_000)
    me = process(OWN, 40_000, 20.0, group=40_000, session=40_000)
    root = process(50_000, OWN, 10.0, group=50_000, session=50_000)
    system = FakeSystem(INIT, shell, me, root)
    # All carry the marker, and somebody says that the root started our ancestors.
    system.marked = {1: [b"m"], 40_000: [b"m"], OWN: [b"m"]}
    system.add(shell._replace(parent=50_000))
    kill_set = KillSet(50_000, "m", system=system)
    assert kill_set.sweep(1) == ()
    assert system.killed in ([50_000], [])
    assert {OWN, 40_000} <= set(system.processes)


def test_environments_are_read_once_and_of_younger_processes_only() -> None:
    strangers = [process(60_000 + number, 1, 5.0 if number % 2 else 15.0, session=7) for number in range(100)]
    system = FakeSystem(INIT, ME, ROOT, *strangers)
    kill_set = KillSet(ROOT.pid, "m", system=system)
    kill_set.members()
    assert system.looks_at_marks == 50
    kill_set.members()
    assert system.looks_at_marks == 50
    system.marked[60_002] = [b"m"]
    system.add(process(60_002, 1, 99.0, session=7))
    assert 60_002 in members(kill_set)


def test_freezing_goes_on_until_nobody_is_added() -> None:
    system = FakeSystem(INIT, ME, ROOT)

    def fork(number: int) -> None:
        if number <= 3:
            system.add(process(51_000 + number, ROOT.pid, 20.0 + number, session=51_000 + number))

    system.at_scan = fork
    assert KillSet(ROOT.pid, "m", system=system).sweep(1) == ()
    assert system.stopped == [ROOT.pid, 51_001, 51_002, 51_003]
    assert set(system.processes) == {1, OWN}


def test_who_is_just_starting_a_program_is_waited_for() -> None:
    # Forked by the root, which was killed before it had its new program, and with that an environment.
    orphan = process(51_000, 1, 20.0, group=51_000, session=51_000)
    system = FakeSystem(INIT, ME, orphan)
    system.changing, system.marked = {51_000}, {51_000: [b"m"]}

    def exec_(number: int) -> None:
        if number == 3:
            system.changing.clear()

    system.at_scan = exec_
    assert KillSet(ROOT.pid, "m", started=10.0, system=system).sweep(5) == ()
    assert system.killed == [51_000]


def test_who_shows_no_environment_for_long_is_not_waited_for() -> None:
    system = FakeSystem(INIT, ME, process(51_000, 1, 20.0, group=51_000, session=51_000))
    system.changing = {51_000}
    began = time.monotonic()
    assert KillSet(ROOT.pid, "m", started=10.0, system=system).sweep(60) == ()
    assert time.monotonic() - began < 10
    assert system.killed == []


def test_survivors_are_named_at_the_deadline() -> None:
    system = FakeSystem(INIT, ME, ROOT, process(51_000, ROOT.pid), process(51_001, ROOT.pid))
    system.deaf = {51_001, 51_000}
    assert KillSet(ROOT.pid, "m", system=system).sweep(0.01) == (51_000, 51_001)


def test_many_short_processes_are_not_remembered_for_ever() -> None:
    system = FakeSystem(INIT, ME, ROOT)
    kill_set = KillSet(ROOT.pid, "m", system=system)
    for number in range(5_000):
        system.add(process(51_000 + number, ROOT.pid, 20.0, session=51_000))
        kill_set.descendants()
        system.end(51_000 + number)
    assert len(kill_set._remembered) < 1_000


# Windows: no groups, no sessions, and orphans keep the number of their parent.


def windows(*processes: Process) -> FakeSystem:
    return FakeSystem(process(OWN, 4, 1.0), process(50_000, OWN), *processes, parents_last=True)


def test_orphans_of_windows_are_found_by_their_dead_parent() -> None:
    system = windows(process(51_000, 50_000, 11.0), process(52_000, 51_000, 12.0))
    kill_set = KillSet(50_000, "m", system=system)
    assert members(kill_set) == {50_000, 51_000, 52_000}
    system.end(50_000, 51_000)
    assert members(kill_set) == {52_000}
    # And what an orphan starts later.
    system.add(process(53_000, 52_000, 13.0))
    system.end(52_000)
    assert members(kill_set) == {53_000}
    assert kill_set.sweep(1) == ()
    assert set(system.processes) == {OWN}


def test_parent_number_that_changed_hands_on_windows() -> None:
    system = windows(process(51_000, 50_000, 11.0))
    kill_set = KillSet(50_000, "m", system=system)
    system.end(50_000)
    # 50000 is somebody else now: its children are its own, the older ones were the root's.
    system.add(process(50_000, 4, 20.0), process(60_000, 50_000, 21.0))
    assert members(kill_set) == {51_000}
    assert kill_set.sweep(1) == ()
    assert set(system.processes) == {OWN, 50_000, 60_000}


def test_child_older_than_its_parent_is_not_its_child_on_windows() -> None:
    system = windows(process(60_000, 50_000, 5.0))
    assert members(KillSet(50_000, "m", system=system)) == {50_000}


# psutil's side


class Handle:
    """What psutil says of one process."""

    made: dict[int, dict[str, Any]]
    sent: list[tuple[int, str]]

    def __init__(self, pid: int) -> None:
        if pid not in self.made:
            raise psutil.NoSuchProcess(pid)
        self.pid = pid
        self._facts = self.made[pid]
        self._ident = (pid, self._facts.get("started", 10.0))

    def _get(self, name: str, default: Any) -> Any:
        found = self._facts.get(name, default)
        if isinstance(found, Exception):
            raise found
        return found

    def oneshot(self) -> Handle:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def status(self) -> str:
        return str(self._get("status", psutil.STATUS_RUNNING))

    def ppid(self) -> int:
        return int(self._get("ppid", 1))

    def uids(self) -> Any:
        return self._get("uids", type("Uids", (), {"effective": os.geteuid()}) if sys.platform != "win32" else None)

    def environ(self) -> dict[str, str]:
        found: dict[str, str] = self._get("environ", {})
        return found

    def send_signal(self, number: int) -> None:
        self.sent.append((self.pid, signal.Signals(number).name))
        self._get("send", None)

    def kill(self) -> None:
        self.sent.append((self.pid, "kill"))
        self._get("kill", None)

    def terminate(self) -> None:
        self.sent.append((self.pid, "terminate"))


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> type[Handle]:
    Handle.made, Handle.sent = {}, []
    monkeypatch.setattr(psutil, "Process", Handle)
    monkeypatch.setattr(psutil, "pids", lambda: [*Handle.made])
    return Handle


def test_psutil_tells_zombies_and_what_is_hidden(handles: type[Handle]) -> None:
    handles.made = {
        700_001: {"ppid": 7},
        700_002: {"status": psutil.STATUS_ZOMBIE},
        700_003: {"status": psutil.ZombieProcess(700_003)},
        700_004: {"status": psutil.AccessDenied(700_004)},
        700_005: {"ppid": psutil.NoSuchProcess(700_005)},
    }
    table = PsutilSystem().table()
    assert {pid: found.alive for pid, found in table.items()} == {
        700_001: True,
        700_002: False,
        700_003: False,
        700_004: True,
    }
    assert table[700_001].parent == 7
    assert PsutilSystem().look(700_006) is None


def test_psutil_reads_markers(handles: type[Handle]) -> None:
    own = os.geteuid() if sys.platform != "win32" else -1
    handles.made = {
        1: {"environ": {"ORCHESTRATOR_MARKER": "b", "ORCHESTRATOR_OUTER_MARKERS": "a0 a1"}},
        2: {"environ": psutil.AccessDenied(2)},
        3: {"environ": {}},
        4: {"environ": {"PATH": "x"}},
    }
    system = PsutilSystem()
    found = [system.marks(Process(pid, 10.0, 0, 0, 0, True, own)) for pid in (1, 2, 3, 4)]
    assert found == [[b"b", b"a0", b"a1"], None, None, []]
    if sys.platform != "win32":
        assert system.marks(Process(1, 10.0, 0, 0, 0, True, own + 1)) is None


def test_windows_is_killed_and_ended_by_handle(handles: type[Handle], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    handles.made = {5: {}, 6: {"kill": psutil.AccessDenied(6)}}
    system = PsutilSystem()
    for pid in (5, 6, 7):
        identity = Identity(pid, 10.0)
        system.stop(identity)
        system.kill_group(identity)
        system.kill(identity)
        system.terminate_group(identity)
    assert handles.sent == [(5, "kill"), (5, "terminate"), (6, "kill"), (6, "terminate")]
    handles.sent = []
    for strike in (system.kill, system.terminate_group):
        strike(Identity(5, 9.0))
    assert handles.sent == [], "another process has that number"


def test_psutil_waits_without_reaping(handles: type[Handle]) -> None:
    handles.made = {5: {}, 6: {"status": psutil.STATUS_ZOMBIE}}
    system = PsutilSystem()
    assert not system.wait_gone(Identity(5, 10.0), 0.01)
    assert system.wait_gone(Identity(5, 9.0), 0)
    assert system.wait_gone(Identity(6, 10.0), 0)
    assert system.wait_gone(Identity(7, 10.0), 0)


def test_clock_goes_forward() -> None:
    first = now()
    assert now() >= first


# Whether something may have been left


def left(system: FakeSystem, moment: float = 20.0) -> bool:
    return KillSet(ROOT.pid, "m", system=system).may_have_left(moment, ())


def test_where_nothing_was_started_nothing_is_left_and_nobody_looks_far() -> None:
    system = FakeSystem(INIT, ME, ROOT, process(50_001, ROOT.pid, 15.0))
    assert not left(system)
    assert system.scans == 0


def test_a_descendant_or_a_child_that_ended_may_have_left_something() -> None:
    assert left(FakeSystem(INIT, ME, ROOT, process(50_001, ROOT.pid, 20.0)))
    assert left(FakeSystem(INIT, ME, ROOT, process(50_001, ROOT.pid, 20.0)._replace(alive=False)))
    assert not left(FakeSystem(INIT, ME, ROOT, process(50_001, ROOT.pid, 15.0)._replace(alive=False)))


@pytest.mark.parametrize("heard", [300, None])
def test_who_heard_of_an_ended_child_may_have_orphans_until_they_were_looked_for(heard: int | None) -> None:
    system = FakeSystem(INIT, ME, ROOT, process(60_000, 1, 21.0))
    system.marked[60_000] = [b"m"]
    system.heard = heard
    kill_set = KillSet(ROOT.pid, "m", system=system)
    assert kill_set.may_have_left(20.0, ())
    assert kill_set.kill_started_since(20.0, (), 1.0) == ()
    assert system.killed == [60_000]
    # Where nobody tells it is looked for each time.
    assert kill_set.may_have_left(30.0, ()) == (heard is None)
