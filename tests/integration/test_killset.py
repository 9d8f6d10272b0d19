"""Kill sets of real process trees: what leaves the group, the session or its parent, and what is not to be touched."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from orchestrator import _killset
from orchestrator._killset import MARKER, Identity, KillSet
from orchestrator._killset_process import OUTER_MARKERS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups and sessions of POSIX")

DEADLINE = 10.0

# What the roots of these trees have at hand.
PRELUDE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_DFL)
def say(name):
    os.write(1, f"{name} {os.getpid()}\\n".encode())
def stay(name):
    say(name)
    while True:
        signal.pause()
def start(name, *, session=False, group=False, bare=False, then=None):
    pid = os.fork()
    if pid:
        return pid
    if session:
        os.setsid()
    if group:
        os.setpgid(0, 0)
    if then:
        then()
    if bare:
        say(name)
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    stay(name)
def orphan(name, **options):
    pid = os.fork()
    if pid == 0:
        start(name, **options)
        os._exit(0)
    os.waitpid(pid, 0)
"""


class Tree:
    """A root, and the pids that its processes reported."""

    def __init__(self, process: subprocess.Popen[bytes], marker: str) -> None:
        self.process = process
        self.marker = marker
        self.pids: dict[str, int] = {}
        self._held = b""

    @property
    def root(self) -> int:
        return self.process.pid

    def wait_for(self, *names: str) -> None:
        assert self.process.stdout
        end = time.monotonic() + DEADLINE
        while not set(names) <= set(self.pids):
            ready, _, _ = select.select([self.process.stdout], [], [], end - time.monotonic())
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert data, f"only {sorted(self.pids)} reported"
            *lines, self._held = (self._held + data).split(b"\n")
            for line in lines:
                name, pid = line.decode().split()
                self.pids[name] = int(pid)

    def tell(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def carriers(marker: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if marker in process.environ().get(MARKER, "") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def grow() -> Iterator[Callable[..., Tree]]:
    """Start trees; in the end nothing of them may be left."""
    trees: list[Tree] = []
    fds = psutil.Process().num_fds()

    def start(code: str, *, marker: str = "", environment: dict[str, str] | None = None) -> Tree:
        marker = marker or uuid.uuid4().hex
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", PRELUDE + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, MARKER: marker, **(environment or {})},
        )
        trees.append(Tree(process, marker))
        return trees[-1]

    yield start
    left = []
    for tree in trees:
        for pid in {*tree.pids.values(), *carriers(tree.marker)} - {tree.root}:
            if lives(pid):
                left.append(pid)
                os.kill(pid, signal.SIGKILL)
        if tree.process.poll() is None:
            tree.process.kill()
        tree.process.wait()
        for stream in (tree.process.stdin, tree.process.stdout):
            if stream is not None:
                stream.close()
    assert not left, "these were left"
    assert psutil.Process().num_fds() == fds


class _BootClock:
    """psutil's side, run on Linux: there psutil tells processes apart by seconds since boot."""

    def __new__(cls) -> Any:
        from orchestrator._killset_psutil import PsutilSystem

        class OnLinux(PsutilSystem):
            def now(self) -> float:
                return time.clock_gettime(time.CLOCK_BOOTTIME)

        return OnLinux()


@pytest.fixture(params=["own", "psutil"])
def make(request: pytest.FixtureRequest) -> Callable[..., KillSet]:
    """Make kill sets with this platform's view of processes and, on Linux, with the one of other platforms too."""
    if request.param == "own":
        return lambda tree, **options: KillSet(tree.root, tree.marker, **options)
    if sys.platform != "linux":
        pytest.skip("psutil is this platform's own view")
    return lambda tree, **options: KillSet(tree.root, tree.marker, system=_BootClock(), **options)


Grow = Callable[..., Tree]
Make = Callable[..., KillSet]


def pids(found: list[Identity]) -> set[int]:
    return {identity.pid for identity in found}


def test_first_blow_reaches_children_in_sessions_of_their_own(grow: Grow, make: Make) -> None:
    tree = grow("start('same'); start('browser', session=True, then=lambda: start('renderer')); stay('root')")
    tree.wait_for("root", "same", "browser", "renderer")
    kill_set = make(tree)
    assert pids(kill_set.descendants()) == {*tree.pids.values()} - {tree.root}
    assert pids(kill_set.members()) == {*tree.pids.values()}
    kill_set.kill_now()
    wait_until(lambda: not any(map(lives, tree.pids.values())))
    assert kill_set.sweep(DEADLINE) == ()
    assert tree.process.wait() == -signal.SIGKILL


def test_root_without_children_has_none(grow: Grow, make: Make) -> None:
    tree = grow("stay('root')")
    tree.wait_for("root")
    kill_set = make(tree)
    assert kill_set.descendants() == []
    assert kill_set.members() == [kill_set.root]
    assert kill_set.sweep(DEADLINE) == ()


@pytest.mark.parametrize(
    "code",
    [
        "orphan('it', session=True)",  # a daemon: only the marker tells
        "orphan('it')",
        "orphan('it', group=True)",  # in the root's session
        "orphan('it', bare=True)",  # no marker: the root's group tells
        "orphan('it', group=True, bare=True)",  # no marker: the root's session tells
        "start('it', session=True, bare=True)",  # no marker: its parent tells
        "orphan('leader', session=True, then=lambda: start('it', bare=True))",  # the session of a carrier
        "orphan('leader', session=True, then=lambda: start('it', group=True, bare=True))",
    ],
)
@pytest.mark.parametrize("root_dies_first", [False, True])
def test_sweep_finds(grow: Grow, make: Make, code: str, root_dies_first: bool) -> None:
    tree = grow(f"{code}; stay('root')")
    tree.wait_for("root", "it")
    kill_set = make(tree)
    if root_dies_first:
        # As the supervisor sees it: it asked for the descendants while the child lived, then the child died.
        kill_set.descendants()
        tree.process.kill()
        tree.process.wait()
        assert tree.root not in pids(kill_set.members())
    assert tree.pids["it"] in pids(kill_set.members())
    assert kill_set.sweep(DEADLINE) == ()
    assert not any(map(lives, tree.pids.values()))


def test_what_was_seen_once_is_remembered(grow: Grow, make: Make) -> None:
    tree = grow("start('it', session=True, bare=True); stay('root')")
    tree.wait_for("root", "it")
    kill_set = make(tree)
    kill_set.members()
    tree.process.kill()
    tree.process.wait()
    assert kill_set.descendants() == []
    kill_set.kill_now()
    wait_until(lambda: not lives(tree.pids["it"]))


def test_set_made_after_the_root_was_reaped_goes_by_group_and_marker(grow: Grow, make: Make) -> None:
    tree = grow("orphan('bare', bare=True); orphan('marked', session=True); say('root')")
    tree.wait_for("root", "bare", "marked")
    tree.process.wait()
    kill_set = make(tree, started=_killset.now() - 60)
    assert pids(kill_set.members()) == {tree.pids["bare"], tree.pids["marked"]}
    assert kill_set.sweep(DEADLINE) == ()


def test_relays_are_caught(grow: Grow) -> None:
    # Thirty lines of processes: each starts the next in a session of its own and exits, faster than a scan takes.
    tree = grow(
        """
tokens, spare = os.pipe()
os.write(spare, b"." * 30000)
os.close(spare)
for line in range(30):
    if os.fork() == 0:
        while os.read(tokens, 1):
            if os.fork():
                os._exit(0)
            os.setsid()
        os._exit(0)
stay('root')
"""
    )
    tree.wait_for("root")
    kill_set = KillSet(tree.root, tree.marker)
    kill_set.kill_now()
    began = time.monotonic()
    assert kill_set.sweep(DEADLINE) == ()
    assert time.monotonic() - began < DEADLINE / 2
    tree.process.wait()
    assert carriers(tree.marker) == []


def test_processes_that_replace_the_killed_are_caught(grow: Grow) -> None:
    # Each of thirty keeps forking, up to 400 in all: whoever is killed has left others behind.
    tree = grow(
        """
tokens, spare = os.pipe()
os.write(spare, b"." * 400)
os.close(spare)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in range(30):
    if os.fork() == 0:
        while os.read(tokens, 1):
            if os.fork() == 0:
                os.setsid()
            time.sleep(0.002)
        stay('end')
stay('root')
"""
    )
    tree.wait_for("root")
    kill_set = KillSet(tree.root, tree.marker)
    assert kill_set.sweep(DEADLINE) == ()
    tree.process.wait()
    assert carriers(tree.marker) == []


def test_zombies_do_not_count(grow: Grow, make: Make) -> None:
    tree = grow(
        """
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
stay('root')
"""
    )
    tree.wait_for("root")
    kill_set = make(tree)
    assert kill_set.descendants() == []
    assert kill_set.members() == [kill_set.root]
    # Nobody reaps the root yet.
    assert kill_set.sweep(DEADLINE) == ()
    assert psutil.Process(tree.root).status() == psutil.STATUS_ZOMBIE
    assert kill_set.members() == []
    kill_set.kill_now()
    kill_set.terminate()
    assert tree.process.wait() == -signal.SIGKILL


def test_group_is_killed_through_a_leader_that_nobody_reaped(grow: Grow, make: Make) -> None:
    tree = grow("start('it'); say('root')")
    tree.wait_for("root", "it")
    kill_set = make(tree)
    wait_until(lambda: not lives(tree.root))
    kill_set.kill_now()
    wait_until(lambda: not lives(tree.pids["it"]))


@pytest.mark.parametrize("blow", ["kill_now", "terminate", "sweep", "kill_started_since"])
def test_another_process_with_the_number_is_not_touched(grow: Grow, make: Make, blow: str) -> None:
    stranger = grow("start('child'); stay('root')")
    stranger.wait_for("root", "child")
    started = _killset._SYSTEM.look(stranger.root)
    assert started is not None
    elsewhere = Tree(stranger.process, "another-generation")
    kill_set = make(elsewhere, started=started.started - 1)
    if blow in ("kill_now", "terminate"):
        getattr(kill_set, blow)()
    elif blow == "sweep":
        assert kill_set.sweep(1) == ()
    else:
        assert kill_set.kill_started_since(0, (), 1) == ()
    assert kill_set.descendants() == [] == kill_set.members()
    os.kill(stranger.root, 0)
    assert lives(stranger.root) and lives(stranger.pids["child"])
    assert KillSet(stranger.root, stranger.marker).sweep(DEADLINE) == ()


def test_only_what_was_started_since_is_killed(grow: Grow, make: Make) -> None:
    tree = grow(
        """
start('before', session=True)
sys.stdin.readline()
start('kept', session=True, then=lambda: (start('page'), orphan('crash_handler')))
start('it')
orphan('daemon', session=True)
orphan('bare', bare=True)
stay('root')
"""
    )
    tree.wait_for("before")
    kill_set = make(tree)
    # Start times have a resolution of a hundredth of a second.
    time.sleep(0.05)
    moment = _killset.now()
    tree.tell()
    tree.wait_for("root", "kept", "page", "crash_handler", "it", "daemon", "bare")
    assert kill_set.kill_started_since(moment, {tree.pids["kept"]}, DEADLINE) == ()
    left = {name for name, pid in tree.pids.items() if lives(pid)}
    assert left == {"root", "before", "kept", "page", "crash_handler"}
    assert kill_set.kill_started_since(moment, (), DEADLINE) == ()
    assert {name for name, pid in tree.pids.items() if lives(pid)} == {"root", "before"}
    assert kill_set.sweep(DEADLINE) == ()


def test_terminate_asks_the_group_even_of_a_stopped_root(grow: Grow, make: Make) -> None:
    tree = grow("start('it'); stay('root')")
    tree.wait_for("root", "it")
    os.kill(tree.root, signal.SIGSTOP)
    make(tree).terminate()
    assert tree.process.wait(DEADLINE) == -signal.SIGTERM
    wait_until(lambda: not lives(tree.pids["it"]))


def test_set_without_time_says_what_is_left(grow: Grow, make: Make) -> None:
    tree = grow("start('it', session=True); stay('root')")
    tree.wait_for("root", "it")
    kill_set = make(tree)
    assert set(kill_set.sweep(0)) <= {*tree.pids.values()}
    assert kill_set.sweep(DEADLINE) == ()


def test_a_process_that_carries_the_marker_does_not_kill_itself(grow: Grow) -> None:
    # A supervisor in a child: the outer marker is in its own environment and in that of its child.
    code = f"""
sys.path.insert(0, {os.getcwd()!r})
sys.path += {[path for path in sys.path if path]!r}
from orchestrator._killset import KillSet
import subprocess
inner = subprocess.Popen(["sleep", "1000"])
kill_set = KillSet(inner.pid, os.environ[{MARKER!r}])
found = kill_set.members()
assert [identity.pid for identity in found] == [inner.pid], (os.getpid(), found)
assert kill_set.sweep(5) == ()
inner.wait()
say('survived')
"""
    tree = grow(code)
    tree.wait_for("survived")
    assert tree.process.wait() == 0


def test_marker_of_an_outer_child_still_counts(grow: Grow, make: Make) -> None:
    inner = uuid.uuid4().hex
    tree = grow("stay('root')", environment={MARKER: inner, OUTER_MARKERS: "outermost outer"})
    tree.wait_for("root")
    root = make(tree).root
    for marker in ("outermost", "outer", inner):
        decoy = Tree(tree.process, marker)
        assert make(decoy, started=1.0).members() == [root]
    assert make(Tree(tree.process, "most"), started=1.0).members() == []
    assert KillSet(tree.root, inner).sweep(DEADLINE) == ()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_program_whose_first_thread_ended_is_alive(grow: Grow) -> None:
    tree = grow(
        """
import ctypes, threading
threading.Thread(target=lambda: (say('it'), time.sleep(1000))).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    )
    tree.wait_for("it")
    wait_until(lambda: psutil.Process(tree.root).status() == psutil.STATUS_ZOMBIE)
    kill_set = KillSet(tree.root, tree.marker)
    assert kill_set.members() == [kill_set.root]
    assert kill_set.sweep(DEADLINE) == ()
    assert tree.process.wait() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_without_pidfds_the_pid_has_to_do(grow: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = grow("start('it'); start('browser', session=True); stay('root')")
    tree.wait_for("root", "it", "browser")

    def refuse(pid: int, flags: int = 0) -> int:
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert KillSet(tree.root, tree.marker).sweep(DEADLINE) == ()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_looking_for_descendants_is_cheap(grow: Grow) -> None:
    tree = grow("stay('root')")
    tree.wait_for("root")
    kill_set = KillSet(tree.root, tree.marker)
    began = time.thread_time()
    for _ in range(100):
        kill_set.descendants()
    assert (time.thread_time() - began) / 100 < 0.001
