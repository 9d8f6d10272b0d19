"""Services and the program that has them: killed, ended, or with no loop of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import serving
from service_visits import LONG, lives, state, told

from orchestrator import BlockingSupervisor, RestartPolicy, Service, Supervisor
from orchestrator.exceptions import ConfigurationError, ServiceFailed

TARGETS = Path(__file__).parents[1] / "targets"
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals on Windows")


@contextmanager
def host(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    env = {**os.environ, "PYTHONPATH": str(TARGETS)}
    command = [sys.executable, str(TARGETS / "serving_host.py"), *arguments]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def wait_gone(pids: list[int], bound: float) -> None:
    end = time.monotonic() + bound
    while any(map(lives, pids)):
        assert time.monotonic() < end, [pid for pid in pids if lives(pid)]
        time.sleep(0.02)


@posix_only
def test_nothing_outlives_a_killed_host(tmp_path: Path) -> None:
    with host(str(tmp_path)) as (process, told):
        assert all(map(lives, told["pids"]))
        process.kill()
        process.wait(LONG)
        # Three seconds are promised; a busy machine gets more.
        wait_gone(told["pids"], 15)


def test_a_program_that_ends_stops_its_services(tmp_path: Path) -> None:
    with host(str(tmp_path), "leave") as (process, started):
        assert process.wait(LONG) == 0
        assert not any(map(lives, started["pids"]))
    assert told(tmp_path) == ["ui begins", "ui ends"]


@pytest.mark.asyncio
async def test_kill_now_takes_services_too() -> None:
    async with Supervisor(workers=0) as supervisor:
        service = await supervisor.service(Service("ui", target=serving.serve)).__aenter__()
        await service.wait_ready(LONG)
        pid = service.pid
        assert pid is not None
        supervisor._kill_now()
        await state(service, "backoff")
        assert not lives(pid)
    assert service.state == "stopped" and service.restarts == 0


def test_sync_code_has_services_too(tmp_path: Path) -> None:
    spec = Service("ui", target=serving.serve_and_tell, args=(str(tmp_path), "ui"))
    with BlockingSupervisor(workers=0) as supervisor:
        with supervisor.service(spec) as service:
            service.wait_ready(LONG)
            url, pid = service.url, service.pid
            service.restart()
            service.wait_ready(timeout=LONG)
            assert service.url == url and service.pid != pid and service.name == "ui"
            assert service.host == "127.0.0.1" and service.state == "ready"
            assert [found.state for found in supervisor.statistics().services] == ["ready"]
            service.stop()
            with pytest.raises(ServiceFailed, match="is stopped"):
                service.wait_ready(LONG)
            with pytest.raises(ConfigurationError, match="there is a service 'ui' already"):
                supervisor.service(spec).open()
        states = [event.state for event in service.events() if event.kind == "state"]
        assert states[-1] == "stopped" and states.count("ready") == 2
        broken = Service(
            "db", target=serving.die_at_once, args=(str(tmp_path),), port=None, restart=RestartPolicy(max_restarts=0),
            ready="message",
        )  # fmt: skip
        with supervisor.service(broken) as db, pytest.raises(ServiceFailed, match="there is no database"):
            db.wait_ready(LONG)
    assert told(tmp_path)[:4] == ["ui begins", "ui ends"] * 2


def test_events_reach_a_thread_while_another_waits() -> None:
    with BlockingSupervisor(workers=0) as supervisor:
        seen: list[str] = []
        with supervisor.service(Service("ui", target=serving.serve)) as service:
            reader = threading.Thread(
                target=lambda: seen.extend(event.state for event in service.events() if event.kind == "state")
            )
            reader.start()
            service.wait_ready(LONG)
        reader.join(LONG)
        assert not reader.is_alive()
        assert seen == ["starting", "ready", "stopping", "stopped"]


@posix_only
def test_sigterm_from_outside_is_an_end_like_any_other() -> None:
    with BlockingSupervisor(workers=0) as supervisor, supervisor.service(Service("ui", target=serving.serve)) as ui:
        ui.wait_ready(LONG)
        pid = ui.pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        for event in ui.events():
            if event.kind == "state" and event.state == "backoff":
                break
        ui.wait_ready(LONG)
        assert ui.restarts == 1 and ui.last_death is not None and ui.last_death.exit_code == 128 + signal.SIGTERM


@pytest.mark.asyncio
async def test_a_loop_that_cannot_spawn_has_services_too() -> None:
    class Unable(asyncio.SelectorEventLoop):
        async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    def run() -> str:
        async def main() -> str:
            async with Supervisor(workers=0) as supervisor:
                async with supervisor.service(Service("ui", target=serving.serve)) as service:
                    await service.wait_ready(LONG)
                    await service.restart()
                    await service.wait_ready(LONG)
                    states = []
                    async for event in service.events():
                        if event.kind == "state":
                            states.append(event.state)
                        if states.count("ready") == 2:
                            break
                return service.state

        with asyncio.Runner(loop_factory=Unable) as runner:
            return runner.run(main())

    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    while thread.is_alive():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert found == ["stopped"]
