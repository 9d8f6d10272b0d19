"""Nothing outlives a supervisor that is killed, whatever its children do at that moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from orchestrator._leftovers import sweep_left_behind

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL; on Windows there are Job objects")

TARGETS = Path(__file__).parents[1] / "targets"
# DESIGN: no child or descendant outlives the supervisor by more than this.
PROMISE = 3.0
# For what is no promise: a busy machine.
DEADLINE = 30.0


FROZEN = """\
#!{python}
import asyncio, sys
sys.frozen, sys.executable = True, {program!r}
sys.path.insert(0, {targets!r})
from orchestrator import freeze_support
freeze_support()
import surviving
asyncio.run(surviving._host("busy"))
"""


class Host:
    """A program with a supervisor in it, and all processes that came of it, whoever their parent is."""

    def __init__(self, mode: str, folder: Path) -> None:
        self.token = uuid.uuid4().hex
        self.temp = folder / self.token
        self.temp.mkdir()
        command = [sys.executable, str(TARGETS / "surviving.py"), mode]
        if mode == "frozen":
            # What a freezer makes, as far as the launch sees it: sys.executable is the program itself.
            program = self.temp / "program"
            program.write_text(FROZEN.format(python=sys.executable, program=str(program), targets=str(TARGETS)))
            program.chmod(0o755)
            command = [str(program)]
        environment = {**os.environ, "SURVIVAL": self.token, "SURVIVAL_NOTES": str(self.temp), "TMPDIR": str(self.temp)}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environment,
        )

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the host ended"
        return dict(json.loads(line))

    def left(self, but: Collection[int] = ()) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.environ().get("SURVIVAL") == self.token
                    and process.status() != psutil.STATUS_ZOMBIE
                    and process.pid not in but
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def folders(self) -> list[str]:
        return [each.name for each in self.temp.iterdir() if each.name.startswith("orchestrator-")]


def wait_until(condition: Callable[[], Any], timeout: float = DEADLINE) -> float:
    """Wait, and return for how long."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, "it did not come to that"
        time.sleep(0.005)
    return time.monotonic() - began


@pytest.fixture
def host(tmp_path: Path) -> Any:
    hosts: list[Host] = []

    def start(mode: str) -> Host:
        hosts.append(Host(mode, tmp_path))
        return hosts[-1]

    yield start
    left = []
    for each in hosts:
        if each.process.returncode is None:
            each.kill()
        for process in each.left():
            left.append(" ".join([str(process.pid), *process.cmdline()]))
            process.kill()
    assert not left, left


def killed(host: Callable[[str], Host], mode: str) -> float:
    """Kill a host in the middle of its work, and return how long anything of it lived on."""
    it = host(mode)
    it.hear()
    if mode == "importing":
        wait_until(lambda: len(list(it.temp.glob("[0-9]*"))) == 8)
        told: dict[str, Any] = {"siblings": [], "workers": [], "strays": []}
    else:
        told = it.hear()
        assert len(told["workers"]) == 8 and len(told["strays"]) >= 8 and told["guardian"]
    it.kill()
    lived = wait_until(lambda: not it.left(but=told["siblings"]))
    for sibling in told["siblings"]:
        os.kill(sibling, signal.SIGKILL)  # those are the host's own, and none of our business
    wait_until(lambda: not it.left())
    assert it.folders() == []
    return lived


@pytest.mark.parametrize("mode", ["busy", "lock", "importing", "siblings", "frozen"])
def test_nothing_outlives_a_killed_supervisor(host: Callable[[str], Host], mode: str) -> None:
    for _ in range(2):
        assert killed(host, mode) < PROMISE


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["busy", "lock", "importing", "siblings"])
def test_nothing_outlives_fifty_killed_supervisors(host: Callable[[str], Host], mode: str) -> None:
    times = [killed(host, mode) for _ in range(50)]
    print(f"{mode}: {len(times)} rounds, median {sorted(times)[25]:.3f} s, longest {max(times):.3f} s")
    assert max(times) < PROMISE


def killed_while_it_starts(host: Callable[[str], Host], delay: float) -> float:
    it = host("busy")
    it.hear()
    time.sleep(delay)  # a random moment: that is the point
    it.kill()
    lived = wait_until(lambda: not it.left())
    # In the first milliseconds nobody else knows of the folder yet.
    assert [path for path in it.temp.glob("orchestrator-*/**/*") if path.is_file()] == []
    return lived


def test_nothing_outlives_a_supervisor_that_is_killed_while_it_starts(host: Callable[[str], Host]) -> None:
    chance = random.Random(3)
    for _ in range(6):
        assert killed_while_it_starts(host, chance.uniform(0, 0.5)) < PROMISE


@pytest.mark.soak
def test_nothing_outlives_two_hundred_that_are_killed_while_they_start(host: Callable[[str], Host]) -> None:
    times = [killed_while_it_starts(host, 0.005 * number % 0.5) for number in range(200)]
    print(f"starting: {len(times)} rounds, median {sorted(times)[100]:.3f} s, longest {max(times):.3f} s")
    assert max(times) < PROMISE


def test_a_guardian_that_is_killed_is_replaced_and_the_next_one_knows_all(host: Callable[[str], Host]) -> None:
    it = host("busy")
    it.hear()
    first = it.hear()["guardian"]
    os.kill(first, signal.SIGKILL)
    assert it.hear()["guardian"] != first
    it.kill()
    assert wait_until(lambda: not it.left()) < PROMISE
    assert it.folders() == []


@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel tells a child of its parent's end")
def test_without_any_guardian_the_kernel_ends_children_that_hold_the_lock(host: Callable[[str], Host]) -> None:
    it = host("unguarded")
    it.hear()
    told = it.hear()
    assert told["guardian"] is None
    it.kill()
    workers = {*told["workers"]}
    assert wait_until(lambda: not any(process.pid in workers for process in it.left())) < PROMISE
    assert sweep_left_behind([SimpleNamespace(**birth) for birth in told["births"]]) == ()
    assert it.left() == []


def both_killed(host: Callable[[str], Host], mode: str) -> tuple[float, float]:
    """Kill supervisor and guardian at one blow; return how long children lived, and how long the sweep took."""
    it = host(mode)
    it.hear()
    told = it.hear()
    # Stopped, so that it cannot start another guardian in between.
    it.process.send_signal(signal.SIGSTOP)
    os.kill(told["guardian"], signal.SIGKILL)
    it.kill()
    ours = {*told["workers"]}
    lived = wait_until(lambda: not any(process.pid in ours for process in it.left()))
    began = time.monotonic()
    assert sweep_left_behind([SimpleNamespace(**birth) for birth in told["births"]]) == ()
    took = time.monotonic() - began
    assert [process.pid for process in it.left() if process.pid not in told["siblings"]] == []
    for sibling in told["siblings"]:
        os.kill(sibling, signal.SIGKILL)
    wait_until(lambda: not it.left())
    assert [*it.temp.glob("orchestrator-*/*")] == []
    return lived, took


@pytest.mark.parametrize("mode", ["busy", "siblings"])
def test_without_its_guardian_children_go_by_themselves_and_a_sweep_finds_the_rest(
    host: Callable[[str], Host], mode: str
) -> None:
    lived, took = both_killed(host, mode)
    assert lived < PROMISE and took < 2 * 2.0


@pytest.mark.soak
def test_fifty_sweeps_after_both_were_killed(host: Callable[[str], Host]) -> None:
    times = [both_killed(host, "siblings") for _ in range(50)]
    print(f"both: longest life {max(times)[0]:.3f} s, longest sweep {max(took for _, took in times):.3f} s")
    assert max(took for _, took in times) < 2.0
