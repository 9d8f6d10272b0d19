"""Services: ready, on the same port after a crash, stopped with nothing left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import serving
from service_visits import LONG, ask, lives, restarted, told

from orchestrator import HttpProbe, Service, Supervisor, TcpProbe
from orchestrator.exceptions import ConfigurationError, ServiceFailed, SupervisorClosed, TargetError

pytestmark = pytest.mark.asyncio


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor(workers=0) as opened:
        yield opened


async def test_a_crashed_service_comes_back_on_the_same_port(supervisor: Supervisor) -> None:
    async with supervisor.service(Service("ui", target=serving.serve)) as service:
        await service.wait_ready(LONG)
        first, url = service.pid, service.url
        assert first is not None and url == f"http://127.0.0.1:{service.port}"
        assert await ask(service) == str(first)
        os.kill(first, signal.SIGKILL)
        await restarted(service)
        assert service.url == url and service.restarts == 1
        assert await ask(service) == str(service.pid) != str(first)
        assert service.last_death is not None and service.last_death.signal == "SIGKILL"
    assert service.state == "stopped" and service.pid is None


async def test_a_restart_keeps_the_url(supervisor: Supervisor) -> None:
    async with supervisor.service(Service("ui", target="serving:serve", ready=HttpProbe("/"))) as service:
        await service.wait_ready(LONG)
        url, first = service.url, service.pid
        await service.restart()
        assert service.state in ("starting", "ready")
        await service.wait_ready(LONG)
        assert service.url == url and service.pid != first
        assert await ask(service) == str(service.pid)
        assert service.last_death is not None and service.last_death.reason == "recycled"


async def test_a_stopped_service_can_be_started_again(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = Service("ui", target=serving.serve_and_tell, args=(str(tmp_path), "ui"))
    async with supervisor.service(spec) as service:
        await service.wait_ready(LONG)
        await service.stop()
        assert service.state == "stopped"
        assert told(tmp_path) == ["ui begins", "ui ends"], "its `finally` ran"
        with pytest.raises(ServiceFailed, match="service 'ui' is stopped: it was stopped"):
            await service.wait_ready(LONG)
        await service.restart()
        await service.wait_ready(LONG)
        assert await ask(service) == str(service.pid)


async def test_jobs_and_services_live_side_by_side() -> None:
    async with Supervisor(workers=1) as supervisor, supervisor.service(Service("ui", target=serving.serve)) as service:
        await service.wait_ready(LONG)
        assert await supervisor.run("os:getpid") not in (service.pid, os.getpid())
        assert [found.name for found in supervisor.statistics().services] == ["ui"]
        assert len(supervisor.statistics().workers) == 1


async def test_a_supervisor_for_services_only_starts_no_worker_and_takes_no_jobs(supervisor: Supervisor) -> None:
    with pytest.raises(ConfigurationError, match="workers: is 0"):
        await supervisor.run("os:getpid")
    assert supervisor.statistics().workers == ()
    await supervisor.scale(1)
    assert await supervisor.run("os:getpid") != os.getpid()


async def test_closing_the_supervisor_stops_its_services(tmp_path: Path) -> None:
    async with Supervisor(workers=0) as supervisor:
        spec = Service("ui", target=serving.serve_and_tell, args=(str(tmp_path), "ui"))
        service = await supervisor.service(spec).__aenter__()
        await service.wait_ready(LONG)
    assert service.state == "stopped"
    assert told(tmp_path) == ["ui begins", "ui ends"]
    await service.__aexit__(None, None, None)
    with pytest.raises(SupervisorClosed):
        supervisor.service(spec)


async def test_an_async_target_has_a_loop_and_ends_properly(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = Service("ui", target=serving.serve_async, args=(str(tmp_path),))
    async with supervisor.service(spec) as service:
        await service.wait_ready(LONG)
        assert await ask(service) == "async"
    assert told(tmp_path) == ["async ends"]
    assert service.last_death is not None and service.last_death.exit_code == 0


async def test_a_service_without_a_port_runs_its_finally_and_atexit(supervisor: Supervisor, tmp_path: Path) -> None:
    async with supervisor.service(Service("idle", target=serving.idle, args=(str(tmp_path),), port=None)) as service:
        await service.wait_ready(LONG)
        assert service.url is None and service.port is None
        while not told(tmp_path):  # noqa: ASYNC110  a file is all it has to say it with
            await asyncio.sleep(0.01)
        assert told(tmp_path) == [f"begins {service.pid}"]
    assert told(tmp_path)[1:] == ["finally True", "atexit"]


async def test_a_thread_that_serves_on_keeps_its_service_alive(supervisor: Supervisor) -> None:
    async with supervisor.service(Service("ui", target=serving.serve_in_thread)) as service:
        await service.wait_ready(LONG)
        assert await ask(service) == str(service.pid)
        assert service.state == "ready"


async def test_a_service_that_heeds_nothing_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = Service("rock", target=serving.heed_nothing, args=(str(tmp_path),), port=None, ready="message", stop=0.2)
    async with supervisor.service(spec) as service:
        await service.wait_ready(LONG)
    assert service.last_death is not None and service.last_death.signal == "SIGKILL"
    assert service.last_death.reason == "stopped"


async def test_readiness_by_message(supervisor: Supervisor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    spec = Service("quiet", target=serving.say_ready_after, args=(str(gate),), port=None, ready="message")
    async with supervisor.service(spec) as service:
        with pytest.raises(TimeoutError, match=r"service 'quiet' is not ready after 0.05 s, but starting"):
            await service.wait_ready(0.05)
        gate.touch()
        await service.wait_ready(LONG)
        lines = [event async for event in first(service.events(), 3) if event.kind == "log"]
        assert [(line.stream, line.text, line.fields) for line in lines] == [
            ("log", "about to be ready", {"pid": service.pid})
        ]


async def first(events: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    async for event in events:
        yield event
        count -= 1
        if not count:
            return


async def test_what_was_printed_is_told_in_order(supervisor: Supervisor) -> None:
    async with supervisor.service(Service("ui", target=serving.serve)) as service:
        await service.wait_ready(LONG)
        told = [event async for event in first(service.events(), 3)]
    assert [event.kind for event in told].count("state") == 2
    assert [(event.previous, event.state) for event in told if event.kind == "state"] == [
        ("waiting", "starting"),
        ("starting", "ready"),
    ]
    assert [event.text for event in told if event.kind == "log"] == [f"listening on {service.port}"]
    after = [event async for event in service.events()]
    assert [event.state for event in after if event.kind == "state"][-2:] == ["stopping", "stopped"]


async def test_it_has_its_folder_and_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOR_ALL", "from the host")
    async with Supervisor(workers=0, env={"FOR_CHILDREN": "yes", "FOR_ALL": "from the supervisor"}) as supervisor:
        env = {"PLACE": "http://{host}:{port}/{other}", "FOR_ALL": None}
        spec = Service("ui", target=serving.serve, cwd=tmp_path, env=env)
        async with supervisor.service(spec) as service:
            await service.wait_ready(LONG)
            assert await ask(service, "/cwd") == str(tmp_path)
            assert await ask(service, "/env/PORT") == str(service.port)
            assert await ask(service, "/env/PLACE") == f"{service.url}/{{other}}"
            assert await ask(service, "/env/FOR_CHILDREN") == "yes"
            assert await ask(service, "/env/FOR_ALL") == "-"


async def test_what_a_service_started_goes_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    async with supervisor.service(Service("ui", target=serving.beget, args=(str(tmp_path),))) as service:
        await service.wait_ready(LONG)
        grandchild = int((tmp_path / "grandchild").read_text("utf-8"))
        assert lives(grandchild)
        await service.restart()
        assert not lives(grandchild)
        await service.wait_ready(LONG)


async def test_a_health_check_that_fails_restarts_it(supervisor: Supervisor, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.touch()
    health = HttpProbe(f"/file{good}", every=0.05, failures=3)
    async with supervisor.service(Service("ui", target=serving.serve, health=health)) as service:
        await service.wait_ready(LONG)
        url = service.url
        good.unlink()
        async for event in service.events():
            if event.kind == "state" and event.state == "backoff":
                break
        assert service.last_death is not None and service.last_death.reason == "health"
        assert "3 health checks in a row failed: GET " in service.last_death.detail
        assert "answered 500" in service.last_death.detail
        good.touch()
        await restarted(service)
        assert service.url == url
        states = [event.state async for event in first(service.events(), 6) if event.kind == "state"]
        assert "unhealthy" in states


async def test_one_bad_answer_is_no_death(supervisor: Supervisor, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.touch()
    health = HttpProbe(f"/file{good}", every=0.02, failures=10_000)
    async with supervisor.service(Service("ui", target=serving.serve, health=health)) as service:
        await service.wait_ready(LONG)
        good.unlink()
        async for event in service.events():
            if event.kind == "state" and event.state == "unhealthy":
                good.touch()
            if event.kind == "state" and event.previous == "unhealthy":
                assert event.state == "ready"
                break
        assert service.restarts == 0


@pytest.mark.skipif(sys.platform != "linux", reason="what a process weighs is known exactly on Linux")
async def test_a_service_that_grows_too_large_is_restarted(supervisor: Supervisor, tmp_path: Path) -> None:
    when = tmp_path / "when"
    spec = Service("leak", target=serving.take, args=(200 * 2**20, str(when)), max_rss=128 * 2**20)
    async with supervisor.service(spec) as service:
        await service.wait_ready(LONG)
        url = service.url
        when.touch()
        async for event in service.events():
            if event.kind == "state" and event.state == "stopping":
                when.unlink()
                assert "max_rss is 128 MiB" in event.reason
                break
        await restarted(service)
        assert service.url == url
        assert service.last_death is not None and service.last_death.reason == "recycled"


async def test_bad_input_is_refused_before_anything_starts(supervisor: Supervisor) -> None:
    with pytest.raises(TargetError, match="missing a required argument: 'number'"):
        supervisor.service(Service("ui", target=serving.wants_another))
    with pytest.raises(TargetError, match="a lambda has no name"):
        supervisor.service(Service("ui", target=lambda: None))
    with pytest.raises(ConfigurationError, match="service: must be a Service"):
        supervisor.service("ui")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="depends_on: there is no service 'db' yet; there are: none"):
        async with supervisor.service(Service("ui", target=serving.serve, depends_on=["db"])):
            pass
    async with supervisor.service(Service("ui", target=serving.serve, ready=TcpProbe())) as service:
        with pytest.raises(ConfigurationError, match="there is a service 'ui' already"):
            async with supervisor.service(Service("ui", target=serving.serve)):
                pass
        await service.wait_ready(LONG)
    async with supervisor.service(Service("ui", target=serving.serve)) as service:
        await service.wait_ready(LONG)
