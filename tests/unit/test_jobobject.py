"""What becomes of a child's Job Object, with a pretended Windows: who is in it, how it is emptied and let go."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from orchestrator._jobobject import JobObject, JobObjects
from orchestrator._killset import KillSet
from orchestrator._killset_process import Identity, Process
from orchestrator._wire import EXIT_KILLED

OWN = os.getpid()
ROOT = 50_000


class FakeWindows:
    """Processes and jobs, as the kernel keeps them: the calls of `Api`, and those of `System`.

    Attributes:
        refusing: Names of calls that fail.
        slow: How many looks at a job's list an ended process stays in it.
        unseen: Pids that only the job's list shows.
    """

    tick = 1 / 64
    parents_last = True

    def __init__(self, *processes: Process) -> None:
        self.processes = {process.pid: process for process in (Process(OWN, 1.0, 4, 0, 0, True), *processes)}
        self.jobs: dict[int, set[int]] = {}
        self.handles: dict[int, int | None] = {}
        self.on_close: set[int] = set()
        self.refusing: set[str] = set()
        self.codes: dict[int, int] = {}
        self.slow = 0
        self.unseen: set[int] = set()
        self.deaf: set[int] = set()
        self._ended: dict[int, int] = {}
        self._next = 0x1_0000_0000  # wider than C's int

    def start(self, pid: int, parent: int, started: float = 20.0, *, outside: bool = False) -> None:
        self.processes[pid] = Process(pid, started, parent, 0, 0, True)
        for members in self.jobs.values():
            if parent in members and not outside:
                members.add(pid)

    def _end(self, pid: int, code: int) -> None:
        if pid in self.processes and pid not in self.deaf:
            del self.processes[pid]
            self.codes[pid] = code
            self._ended[pid] = self.slow

    # The calls of jobs

    def _call(self, name: str) -> None:
        if name in self.refusing:
            raise PermissionError(13, "Access is denied", None, 5)

    def _handle(self, pid: int | None) -> int:
        self._next += 4
        self.handles[self._next] = pid
        return self._next

    def create(self) -> int:
        self._call("create")
        job = self._handle(None)
        self.jobs[job] = set()
        return job

    def kill_on_close(self, job: int) -> None:
        self._call("kill_on_close")
        self.on_close.add(job)

    def open(self, pid: int) -> int:
        self._call("open")
        if pid not in self.processes:
            raise OSError(22, "The parameter is incorrect", None, 87)
        return self._handle(pid)

    def assign(self, job: int, process: int) -> None:
        self._call("assign")
        pid = self.handles[process]
        assert pid is not None
        self.jobs[job].add(pid)

    def pids(self, job: int) -> list[int]:
        self._call("pids")
        listed = []
        for pid in sorted(self.jobs[job]):
            if pid in self.processes or pid in self.unseen:
                listed.append(pid)
            elif self._ended.get(pid, 0) > 0:
                self._ended[pid] -= 1
                listed.append(pid)
        return listed

    def terminate(self, job: int, code: int) -> None:
        self._call("terminate")
        for pid in self.jobs[job]:
            self._end(pid, code)

    def close(self, handle: int) -> None:
        del self.handles[handle]  # a second close is a KeyError
        if handle in self.on_close:
            self.terminate(handle, 0)
        self.jobs.pop(handle, None)

    # The system

    def now(self) -> float:
        return 1000.0

    def look(self, pid: int) -> Process | None:
        return self.processes.get(pid)

    def reaped(self, pid: int) -> int | None:
        return None

    def children(self, pid: int) -> list[int]:
        return [process.pid for process in self.processes.values() if process.parent == pid]

    def table(self) -> dict[int, Process]:
        return dict(self.processes)

    def marks(self, process: Process) -> list[bytes] | None:
        return []

    def stop(self, identity: Identity) -> None: ...

    def kill(self, identity: Identity) -> None:
        if self.look(identity.pid) is not None:
            self._end(identity.pid, 15)

    def kill_group(self, leader: Identity) -> None: ...

    def terminate_group(self, leader: Identity) -> None: ...

    def wait_gone(self, identity: Identity, timeout: float) -> bool:
        return identity.pid not in self.processes


class Complaints(list[tuple[str, str]]):
    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self.append((event, level))


@pytest.fixture
def windows() -> FakeWindows:
    return FakeWindows(Process(ROOT, 10.0, OWN, 0, 0, True))


def held(windows: FakeWindows) -> KillSet:
    job = JobObjects(Complaints().log, windows).hold(ROOT)
    assert job is not None
    return KillSet(ROOT, "m", job_object=job, system=windows)


def test_child_and_what_it_starts_are_ended_at_one_blow(windows: FakeWindows) -> None:
    kill_set = held(windows)
    windows.start(51_000, ROOT)
    windows.start(52_000, 51_000)
    assert {found.pid for found in kill_set.members()} == {ROOT, 51_000, 52_000}
    kill_set.kill_now()
    assert windows.codes == dict.fromkeys((ROOT, 51_000, 52_000), EXIT_KILLED)
    assert kill_set.sweep(1) == ()
    kill_set.close()
    assert windows.handles == {}


def test_member_whose_parents_nobody_saw_is_found_by_the_job(windows: FakeWindows) -> None:
    kill_set = held(windows)
    windows.start(51_000, ROOT)
    windows.start(52_000, 51_000)
    for pid in (51_000, ROOT):
        windows._end(pid, 0)
    # No descent leads there any more: it could be anybody's.
    assert KillSet(ROOT, "m", started=10.0, system=windows).members() == []
    assert [found.pid for found in kill_set.members()] == [52_000]
    assert kill_set.sweep(1) == ()
    assert set(windows.processes) == {OWN}


def test_what_is_outside_the_job_is_found_by_descent(windows: FakeWindows) -> None:
    kill_set = held(windows)
    windows.start(51_000, ROOT)
    windows.start(52_000, 51_000, outside=True)
    assert kill_set.sweep(1) == ()
    assert windows.codes == {ROOT: EXIT_KILLED, 51_000: EXIT_KILLED, 52_000: 15}


def test_the_set_is_empty_when_the_jobs_list_is(windows: FakeWindows) -> None:
    kill_set = held(windows)
    windows.slow = 20
    assert kill_set.sweep(10) == ()
    assert windows._ended[ROOT] == 0, "it was looked at until nobody was listed"


def test_who_stays_in_the_jobs_list_is_a_survivor(windows: FakeWindows) -> None:
    kill_set = held(windows)
    windows.start(51_000, ROOT)
    windows.deaf = {51_000}
    assert kill_set.job_object is not None
    windows.jobs[next(iter(windows.jobs))].add(52_000)
    windows.unseen = {52_000}
    assert kill_set.sweep(0.01) == (51_000, 52_000)


def test_strays_are_killed_and_the_child_lives_on(windows: FakeWindows) -> None:
    kill_set = held(windows)
    windows.start(51_000, ROOT, 15.0)
    windows.start(52_000, ROOT, 20.0)
    assert kill_set.kill_started_since(19.0, (), 1) == ()
    assert windows.codes == {52_000: 15}
    assert set(windows.processes) == {OWN, ROOT, 51_000}


def test_what_the_first_process_started_too_early_is_put_in(windows: FakeWindows) -> None:
    windows.start(51_000, ROOT)
    kill_set = held(windows)
    windows.start(60_000, 4)
    job = next(iter(windows.jobs))
    kill_set.adopt(51_000)
    kill_set.adopt(51_000)
    # It says so itself, and could name anybody.
    kill_set.adopt(60_000)
    assert windows.jobs[job] == {ROOT, 51_000}
    windows.start(52_000, 51_000)
    assert windows.jobs[job] == {ROOT, 51_000, 52_000}
    with pytest.raises(OSError, match="parameter"):
        kill_set.adopt(70_000)
    kill_set.close()
    assert windows.handles == {}
    assert set(windows.processes) == {OWN, 60_000}


def test_closing_kills_and_nothing_works_afterwards(windows: FakeWindows) -> None:
    kill_set = held(windows)
    kill_set.close()
    kill_set.close()
    assert windows.codes == {ROOT: 0} and windows.handles == {}
    assert kill_set.job_object is not None and kill_set.job_object.pids() == []
    kill_set.job_object.assign(OWN)
    kill_set.kill_now()
    assert set(windows.processes) == {OWN}


@pytest.mark.parametrize("call", ["create", "kill_on_close", "open", "assign"])
def test_refusal_is_logged_once_and_leaves_nothing(windows: FakeWindows, call: str) -> None:
    windows.refusing = {call}
    complaints = Complaints()
    jobs = JobObjects(complaints.log, windows)
    assert [jobs.hold(ROOT) for _ in range(3)] == [None, None, None]
    assert complaints == [("child.not_in_job", "warning")]
    assert windows.handles == {} and windows.jobs == {}
    assert ROOT in windows.processes
    # And psutil does what the job would have done.
    windows.refusing = set()
    windows.start(51_000, ROOT)
    assert KillSet(ROOT, "m", job_object=None, system=windows).sweep(1) == ()
    assert set(windows.processes) == {OWN}


def test_orphans_are_in_the_job_s_list(windows: FakeWindows) -> None:
    kill_set = held(windows)
    assert not kill_set.may_have_left(100.0, ())
    windows.start(51_000, ROOT, 100.0)
    windows.start(52_000, 51_000, 101.0)
    windows.processes.pop(51_000)
    assert kill_set.descendants() == []
    assert kill_set.may_have_left(100.0, ()) and not kill_set.may_have_left(102.0, ())


def test_refused_blows_leave_the_work_to_the_second_layer(windows: FakeWindows) -> None:
    kill_set = held(windows)
    windows.start(51_000, ROOT)
    windows.refusing = {"terminate", "pids"}
    kill_set.kill_now()
    assert kill_set.sweep(1) == ()
    assert windows.codes == {ROOT: 15, 51_000: 15}


def test_five_hundred_children_leave_no_handle(windows: FakeWindows) -> None:
    jobs = JobObjects(Complaints().log, windows)
    for number in range(500):
        pid = ROOT + number
        windows.start(pid, OWN)
        kill_set = KillSet(pid, "m", job_object=jobs.hold(pid), system=windows)
        assert isinstance(kill_set.job_object, JobObject)
        kill_set.kill_now()
        assert kill_set.sweep(1) == ()
        kill_set.close()
    assert windows.handles == {} and windows.jobs == {}


@pytest.mark.skipif(sys.platform == "win32", reason="there are jobs")
def test_elsewhere_there_is_none() -> None:
    complaints = Complaints()
    assert JobObjects(complaints.log).hold(OWN) is None
    assert complaints == []
