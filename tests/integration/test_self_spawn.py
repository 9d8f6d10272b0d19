"""Frozen apps, as far as a script can be one: none starts itself for ever, with whichever guard alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEADLINE = 60.0
# Bounds of this test's own, for the day on which the guards fail: no start beyond these does anything.
MOST_STARTS = 8

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script that is a program")

# What a freezer makes, as far as the library sees it: sys.executable is the program itself.
APP = f"""\
import os, sys
with open(os.environ["TEST_STARTS"], "ab", buffering=0) as file:
    file.write(b"%d %s\\n" % (os.getpid(), " ".join(sys.argv[1:2]).encode()))
with open(os.environ["TEST_STARTS"], "rb") as file:
    if len(file.readlines()) > {MOST_STARTS}:
        os._exit(99)
sys.frozen, sys.executable = True, os.path.abspath(__file__)
"""
LIBRARY = f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
GUARDS = LIBRARY + (
    "from orchestrator import _frozen, _handshake\n"
    "_frozen.GUARDS = set(os.environ['TEST_GUARDS'].split())\n"
    "_handshake._LONGEST_WAIT = 0.3\n"
)
ASYNC = """
import asyncio
from orchestrator import Supervisor
async def main():
    async with Supervisor(2, start_timeout=float(os.environ.get("TEST_TIMEOUT", "30"))) as supervisor:
        print(await asyncio.gather(*(supervisor.run("os:getpid") for _ in range(4))))
asyncio.run(main())
"""
BLOCKING = """
from orchestrator import BlockingSupervisor
with BlockingSupervisor(2) as supervisor:
    print(supervisor.run("os:getpid"))
"""
SERVICE = """
import asyncio
from orchestrator import Service, Supervisor
async def main():
    spec = Service("page", target="time:sleep", args=(0.1,), port=None)
    async with Supervisor(workers=0) as supervisor, supervisor.service(spec) as service:
        await service.wait_ready()
        print(service.pid)
asyncio.run(main())
"""
WAYS_IN = pytest.mark.parametrize("way_in", [ASYNC, BLOCKING, SERVICE], ids=["async", "blocking", "service"])


class App:
    def __init__(self, folder: Path) -> None:
        self.program = folder / "thing"
        self.starts = folder / "starts"
        self.log = folder / "state" / "thing" / "log" / "orchestrator.log"
        self._state = folder / "state"

    def run(self, source: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.program.write_text(f"#!{sys.executable}\n{APP}{source}")
        self.program.chmod(0o755)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")}
        return subprocess.run(
            [self.program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={
                **inherited,
                "TEST_STARTS": str(self.starts),
                "XDG_STATE_HOME": str(self._state),
                **environment,
            },
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def pids(self) -> list[int]:
        return [int(line.split()[0]) for line in self.starts.read_text().splitlines()]

    def wait_gone(self) -> None:
        """Wait until no start of it is left: a child that was killed may need a moment."""
        end = time.monotonic() + DEADLINE
        left = self.pids()
        while left and time.monotonic() < end:
            left = [pid for pid in left if os.path.exists(f"/proc/{pid}/exe")]
            time.sleep(0.01)
        assert not left


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


@WAYS_IN
def test_a_naive_app_starts_nothing(app: App, way_in: str) -> None:
    done = app.run(LIBRARY + way_in)
    assert (done.returncode, len(app.pids())) == (1, 1), done.stderr
    assert "SelfSpawnError" in done.stderr and "freeze_support()" in done.stderr
    if sys.platform == "linux":
        assert "freeze_support()" in app.log.read_text()


@pytest.mark.parametrize(
    ("only", "way_in"),
    [("armed", ASYNC), ("marker", BLOCKING), ("nested", SERVICE), ("handshake", ASYNC), ("handshake", SERVICE)],
    ids=["armed", "marker", "nested", "handshake", "handshake of a service"],
)
def test_each_guard_alone_allows_one_start_too_many(app: App, only: str, way_in: str) -> None:
    done = app.run(GUARDS + way_in, TEST_GUARDS=only)
    assert done.returncode == 1, done.stderr
    # Raised as it is to who opens the supervisor; as the reason of a ServiceFailed to who waits for a service.
    assert "orchestrator.exceptions." in done.stderr and "freeze_support()" in done.stderr
    assert len(app.pids()) == (1 if only == "armed" else 2), app.starts.read_text()
    app.wait_gone()


SILENT = "import time\nif len(sys.argv) > 1: time.sleep(600)\n"
CHATTY = "if len(sys.argv) > 1: print('1. Open  2. Quit', flush=True); input(); sys.stdin.read()\n"


def test_an_app_with_a_window_that_says_nothing_is_ended(app: App) -> None:
    done = app.run(GUARDS + SILENT + ASYNC, TEST_GUARDS="handshake", TEST_TIMEOUT="1.5")
    assert done.returncode == 1 and "did not say hello within 1.5 s" in done.stderr
    assert len(app.pids()) == 2
    app.wait_gone()


def test_an_app_that_prints_a_menu_is_ended_at_once(app: App) -> None:
    done = app.run(GUARDS + CHATTY + ASYNC, TEST_GUARDS="handshake", TEST_TIMEOUT="600")
    assert done.returncode == 1 and "its first output was b'1. Open  2. Quit" in done.stderr
    assert len(app.pids()) == 2
    app.wait_gone()


def test_an_app_that_reads_its_arguments_first_is_told_so(app: App) -> None:
    # Before freeze_support: armed, but its child never gets there.
    parse = "if len(sys.argv) > 1: sys.exit('usage: thing')\n"
    done = app.run(LIBRARY + parse + "from orchestrator import freeze_support\nfreeze_support()\n" + ASYNC)
    assert done.returncode == 1 and "usage: thing" in done.stderr
    assert "ended with code 1 without a hello" in done.stderr and "read its arguments?" in done.stderr
    assert len(app.pids()) == 2
    app.wait_gone()


def test_an_app_that_drops_its_arguments_is_told_so(app: App) -> None:
    drop = "del sys.argv[1:]\nfrom orchestrator import freeze_support\nfreeze_support()\n"
    done = app.run(LIBRARY + drop + ASYNC)
    assert done.returncode == 1 and "ended with code 65" in done.stderr
    assert len(app.pids()) == 2
    app.wait_gone()


ARMED = LIBRARY + "from orchestrator import freeze_support\nfreeze_support()\n"


@WAYS_IN
def test_an_app_that_looks_for_children_has_them(app: App, way_in: str) -> None:
    done = app.run(ARMED + way_in)
    assert done.returncode == 0, done.stderr
    kinds = [line.split()[1:] for line in app.starts.read_text().splitlines()]
    assert kinds[0] == [] and not kinds[1][0].endswith(":guardian")  # nothing before the first child's hello
    assert any(bool(kind) and kind[0].endswith(":guardian") for kind in kinds)
    assert not app.log.exists()
    app.wait_gone()


def test_a_job_may_have_children_and_may_not_start_the_app(app: App, tmp_path: Path) -> None:
    (tmp_path / "thing_jobs.py").write_text(
        "import os, subprocess, sys\n"
        "def nested():\n"
        "    from orchestrator import BlockingSupervisor\n"
        "    with BlockingSupervisor(1) as supervisor:\n"
        "        return supervisor.run('os:getpid') != os.getpid()\n"
        "def again():\n"
        "    done = subprocess.run([sys.executable, '-m', 'something'], capture_output=True, text=True)\n"
        "    return [done.returncode, done.stderr]\n"
    )
    source = (
        "sys.path.insert(0, os.path.dirname(sys.executable))\n"
        + ARMED
        + "from orchestrator import BlockingSupervisor\n"
        + "with BlockingSupervisor(1) as supervisor:\n"
        + "    print(supervisor.run('thing_jobs:nested'))\n"
        + "    print(supervisor.run('thing_jobs:again'))\n"
    )
    done = app.run(source)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True\n[1, ")
    assert "started again within one of its own children" in done.stdout
    app.wait_gone()


def test_an_app_that_takes_itself_for_a_python_stops_after_a_dozen(app: App) -> None:
    few = "from orchestrator import _frozen\n_frozen.MOST_STARTS = 4\n"
    chain = "import subprocess\nsys.exit(subprocess.run([sys.executable, '-m', 'pip']).returncode)\n"
    done = app.run(LIBRARY + few + ARMED + chain)
    assert done.returncode == 70
    assert "started itself 4 times" in done.stderr
    assert len(app.pids()) == 5
    app.wait_gone()


def test_without_any_guard_it_would_not_stop(app: App) -> None:
    # What the tests above rest on: nothing else keeps this app from it but their own bound.
    app.run(GUARDS + ASYNC, TEST_GUARDS="", ORCHESTRATOR_DEPTH="-1")
    assert len(app.pids()) > 4
    app.wait_gone()
