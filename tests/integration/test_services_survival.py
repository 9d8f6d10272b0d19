"""What a service's program does to it: is killed, or does not listen for a while."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import bad_services
import psutil
import pytest

from orchestrator import HttpProbe, Service, Supervisor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")

TARGETS = Path(__file__).parents[1] / "targets"
PATIENCE = 60.0
# Promised are three seconds; the rest is for a machine that has more to do.
SOON = 30.0


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked"])
def test_nothing_of_services_outlives_their_program(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, str(TARGETS / "service_host.py"), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(TARGETS)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as host:
        try:
            assert host.stdout is not None
            told = json.loads(host.stdout.readline())
            pids = told["pids"]
            assert len(pids) == 4 and all(map(lives, pids))  # three services, and what one of them sent away
            host.send_signal(number)
            host.wait(SOON)
        finally:
            host.kill()
    deadline = time.monotonic() + SOON
    while left := [pid for pid in pids if lives(pid)]:  # nobody tells of the end of others' processes
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    # The port is anybody's again: not even connections of the service are in the way of one that can share it.
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", told["port"]))


def until_asked_again(url: str) -> None:
    def questions() -> int:
        with urllib.request.urlopen(f"{url}/count", timeout=PATIENCE) as answer:
            return int(answer.read())

    before, deadline = questions(), time.monotonic() + PATIENCE
    while questions() == before:
        assert time.monotonic() < deadline, "nobody asks the service how it is"


@pytest.mark.usefixtures("no_task_left")
async def test_service_is_not_blamed_for_a_program_that_does_not_listen(tmp_path: Path) -> None:
    health = HttpProbe("/slow", timeout=4, every=0.02, failures=1)
    spec = Service("well", target=bad_services.good, args=(str(tmp_path / "starts"),), health=health)
    async with (
        Supervisor(workers=0, env={"PYTHONPATH": str(TARGETS)}) as supervisor,
        supervisor.service(spec) as service,
    ):
        await service.wait_ready(PATIENCE)
        pid, url = service.pid, service.url
        assert url is not None
        await asyncio.to_thread(until_asked_again, url)
        # A question has been asked, and its answer comes while nobody here listens.
        time.sleep(7)
        for _ in range(2):
            await asyncio.to_thread(until_asked_again, url)
        assert (service.pid, service.restarts, service.last_death) == (pid, 0, None)
