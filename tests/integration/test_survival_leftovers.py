"""What an earlier run left is emptied by its record alone, and nobody else's process is touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from orchestrator._killset import MARKER, KillSet
from orchestrator._leftovers import sweep_left_behind

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups and sessions of POSIX")

TESTS = Path(__file__).parents[1]

# A child with what it may have started: in its group, in a session of its own, and a daemon without a marker that
# stayed in its session.
TREE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import surviving
clean = os.fork()
if clean == 0:
    os.execve("/bin/sleep", ["sleep", "1000"], {})
print(surviving.start_stubborn(), surviving.start_stubborn(session=False), surviving.daemonise(), clean, flush=True)
if sys.argv[2] == "leave":
    os._exit(0)
while True:
    signal.pause()
"""


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Tree:
    def __init__(self, folder: Path, what_then: str) -> None:
        self.temp = folder / f"orchestrator-{uuid.uuid4().hex}" / "w1-1"
        self.temp.mkdir(parents=True)
        (self.temp / "file").write_text("text")
        marker = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", TREE, str(TESTS / "targets"), what_then],
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, MARKER: marker},
        )
        root = KillSet(self.process.pid, marker).root
        self.birth = SimpleNamespace(pid=root.pid, started=root.started, marker=marker, temp=str(self.temp))
        assert self.process.stdout is not None
        self.pids = [int(word) for word in self.process.stdout.readline().split()]
        if what_then == "leave":
            self.process.wait()

    def living(self) -> list[int]:
        return [pid for pid in (self.process.pid, *self.pids) if lives(pid)]

    def end(self) -> None:
        for pid in self.living():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Callable[[str], Tree]]:
    trees: list[Tree] = []

    def start(what_then: str) -> Tree:
        trees.append(Tree(tmp_path, what_then))
        return trees[-1]

    yield start
    for tree in trees:
        tree.end()


@pytest.mark.parametrize("what_then", ["stay", "leave"])
def test_all_of_a_child_goes_by_its_record_and_its_folder_too(
    plant: Callable[[str], Tree], what_then: str, tmp_path: Path
) -> None:
    trees = [plant(what_then) for _ in range(3)]
    kept = plant(what_then)  # of a supervisor that lives
    assert all(len(tree.living()) == 4 + (what_then == "stay") for tree in trees)
    began = time.monotonic()
    assert sweep_left_behind([tree.birth for tree in trees]) == ()
    assert time.monotonic() - began < 2 * 2
    assert [tree.living() for tree in trees] == [[], [], []]
    assert [path.name for path in tmp_path.iterdir()] == [kept.temp.parent.name]
    assert len(kept.living()) == 4 + (what_then == "stay") and (kept.temp / "file").exists()


def test_later_processes_with_the_numbers_of_dead_children_are_not_touched(plant: Callable[[str], Tree]) -> None:
    decoy = plant("stay")
    earlier = SimpleNamespace(**{**vars(decoy.birth), "started": decoy.birth.started - 1, "marker": "m", "temp": ""})
    assert sweep_left_behind([earlier]) == ()
    assert len(decoy.living()) == 5


def test_a_folder_that_somebody_has_replaced_by_a_link_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("text")
    (tmp_path / "orchestrator-x").mkdir()
    link = tmp_path / "orchestrator-x" / "w1-1"
    link.symlink_to(precious)
    birth = SimpleNamespace(pid=2**22 + 1, started=1.0, marker="m", temp=str(link))
    assert sweep_left_behind([birth]) == ()
    assert (precious / "file").read_text() == "text"


# Runs in a process-id namespace of its own, where the next number can be chosen.
REUSE = """
import os, signal, sys, time
from orchestrator._killset import KillSet, Identity
from orchestrator._leftovers import sweep_left_behind
from types import SimpleNamespace

def fork(number=None):
    if number is not None:
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(number - 1))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.write(writing, b"x")
        while True:
            signal.pause()
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    return pid

wrong = reused = 0
for _ in range(int(sys.argv[1])):
    pid = fork()
    kill_set = KillSet(pid, "m")
    birth = SimpleNamespace(pid=pid, started=kill_set.root.started, marker="m", temp="")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    # Start times have a resolution of a hundredth of a second, and no system gives a number away again so soon.
    while KillSet(pid, "m")._system.now() < kill_set.root.started + 0.02:
        time.sleep(0.002)
    stranger = fork(pid)
    reused += stranger == pid
    kill_set.kill_now()
    kill_set.terminate()
    assert kill_set.sweep(0.1) == ()
    assert sweep_left_behind([birth]) == ()
    wrong += os.waitpid(stranger, os.WNOHANG) != (0, 0)
    os.kill(stranger, signal.SIGKILL)
    os.waitpid(stranger, 0)
print(reused, wrong)
"""


def _reuse(count: int) -> None:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("needs the process-id namespaces of Linux")
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", REUSE, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if "unshare" in done.stderr or "ns_last_pid" in done.stderr:
        pytest.skip(f"this machine does not let us: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    reused, wrong = map(int, done.stdout.split())
    assert reused == count and wrong == 0


def test_a_number_that_is_given_away_again_is_a_strangers() -> None:
    _reuse(20)


@pytest.mark.soak
def test_ten_thousand_numbers_that_are_given_away_again_are_strangers() -> None:
    _reuse(10_000)
