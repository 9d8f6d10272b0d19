"""Services that cannot, will not or must not run: a clear state and reason, no hang, no storm."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import serving
from service_visits import LONG, ask, lives, state, told

from orchestrator import HttpProbe, RestartPolicy, Service, Supervisor
from orchestrator.exceptions import ConfigurationError, ServiceFailed

pytestmark = pytest.mark.asyncio

# As patient as the default one, in a fiftieth of the time.
QUICK = RestartPolicy(backoff=0.01, max_backoff=1.2, window=60)


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor(workers=0) as opened:
        yield opened


async def failure(supervisor: Supervisor, spec: Service) -> ServiceFailed:
    async with supervisor.service(spec) as service:
        with pytest.raises(ServiceFailed) as failed:
            await service.wait_ready(LONG)
        assert service.state == "failed" and service.pid is None
        assert service.reason == failed.value.reason
        return failed.value


async def test_one_that_dies_at_once_is_given_up_after_a_few_starts(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = Service("db", target=serving.die_at_once, args=(str(tmp_path),), port=None, ready="message", restart=QUICK)
    failed = await failure(supervisor, spec)
    assert 2 <= len(told(tmp_path)) <= 6
    assert failed.state == "failed" and "RuntimeError: there is no database" in failed.reason
    assert failed.certificate is not None and failed.certificate.exit_code == 1
    assert failed.certificate.stderr[-1] == "RuntimeError: there is no database"
    assert "The last lines of its stderr:" in str(failed)


async def test_one_that_ends_well_at_once_is_no_storm_either(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = Service("job", target=serving.end_at_once, args=(str(tmp_path),), port=None, ready="message", restart=QUICK)
    failed = await failure(supervisor, spec)
    assert 2 <= len(told(tmp_path)) <= 6
    assert "exited with code 0" in failed.reason


async def test_one_that_dies_whenever_it_is_ready_is_given_up(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = Service(
        "flaky", target=serving.ready_then_die, args=(str(tmp_path),), port=None, ready="message", restart=QUICK
    )
    async with supervisor.service(spec) as service:
        await state(service, "failed")
        assert 3 <= len(told(tmp_path)) <= 6
        assert "exited with code 3" in service.reason
        await service.restart()  # somebody has mended it, perhaps
        assert service.state in ("starting", "ready", "backoff")


async def test_one_that_is_never_ready_is_killed_and_says_so(supervisor: Supervisor) -> None:
    spec = Service(
        "slow", target=serving.never_ready, start_timeout=6.0, stop=0.1, restart=RestartPolicy(max_restarts=0)
    )
    failed = await failure(supervisor, spec)
    assert "it was not ready within 6 s; nothing listens on 127.0.0.1 port" in failed.reason
    assert failed.certificate is not None
    assert failed.certificate.reason == "start" and failed.certificate.stderr == ("loading for ever",)
    if sys.platform != "win32":
        assert "in never_ready" in failed.certificate.stack and "It hung at:" in str(failed)
    assert failed.certificate.pid is not None and not lives(failed.certificate.pid)


async def test_a_page_that_never_gets_well_is_not_ready(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = Service(
        "page",
        target=serving.serve,
        ready=HttpProbe(f"/file{tmp_path}/none"),
        start_timeout=1.0,
        restart=RestartPolicy(max_restarts=0),
    )
    failed = await failure(supervisor, spec)
    assert "answered 500" in failed.reason


async def test_a_port_that_is_taken_is_named_at_once(supervisor: Supervisor) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        async with supervisor.service(Service("ui", target=serving.serve, port=port)) as service:
            assert service.state == "failed"
            assert service.reason == f"port {port} of 127.0.0.1 is taken by process {os.getpid()} (python)" or (
                service.reason.startswith(f"port {port} of 127.0.0.1 is taken by process {os.getpid()}")
            )
            with pytest.raises(ServiceFailed, match=f"port {port}"):
                await service.wait_ready(LONG)
            await service.restart()
            assert service.state == "failed"
            holder.close()
            await service.restart()
            await service.wait_ready(LONG)
            assert service.port == port


async def test_two_services_cannot_have_one_port(supervisor: Supervisor) -> None:
    async with supervisor.service(Service("one", target=serving.serve)) as one:
        async with supervisor.service(Service("two", target=serving.serve, port=one.port)) as two:
            assert two.state == "failed" and f"port {one.port}" in two.reason
        await one.wait_ready(LONG)


async def test_a_variable_of_ours_is_refused_with_its_name(supervisor: Supervisor) -> None:
    spec = Service("ui", target=serving.serve, env={"ORCHESTRATOR_DEPTH": "1"})
    assert "env['ORCHESTRATOR_DEPTH']" in (await failure(supervisor, spec)).reason
    async with supervisor.service(Service("ui", target=serving.serve)) as service:
        await service.wait_ready(LONG)


async def test_a_script_with_a_syntax_error_is_refused_with_its_line(supervisor: Supervisor, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("import os\n\nthis is no Python\n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"service 'ui': script: .*page\.py, line 3: SyntaxError"):
        supervisor.service(Service("ui", script=script))
    with pytest.raises(ConfigurationError, match="there is no file"):
        supervisor.service(Service("ui", script=tmp_path / "none.py"))
    with pytest.raises(ConfigurationError, match="there is no program 'no-such-program' on PATH"):
        supervisor.service(Service("ui", argv=["no-such-program"]))


async def test_a_script_that_is_broken_later_fails_like_any(supervisor: Supervisor, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("from http.server import test\nimport sys\ntest(port=int(sys.argv[1]), bind='127.0.0.1')\n")
    spec = Service("ui", script=script, args=["{port}"], restart=RestartPolicy(max_restarts=0))
    async with supervisor.service(spec) as service:
        await service.wait_ready(LONG)
        script.write_text("oh no\n")
        await service.restart()
        with pytest.raises(ServiceFailed, match="SyntaxError"):
            await service.wait_ready(LONG)


async def test_leaving_while_it_starts_leaves_nothing(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = Service("slow", target=serving.serve_after, args=(str(tmp_path / "gate"),))
    async with supervisor.service(spec) as service:
        assert service.state == "starting"
    async with supervisor.service(spec) as service:
        await state(service, "starting")
        await asyncio.sleep(0)
    assert service.state == "stopped"


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_cancel_at_any_await_leaves_nothing(turns: int, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def use() -> None:
        async with Supervisor(workers=0) as supervisor:
            begun.set()
            async with supervisor.service(Service("ui", target=serving.serve)) as service:
                await service.wait_ready(LONG)
                await ask(service)
                await service.restart()
                await service.wait_ready(LONG)

    task = asyncio.create_task(use())
    await begun.wait()
    for _ in range(turns):
        await asyncio.sleep(0.004)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancel_while_it_stops_waits_for_the_end(supervisor: Supervisor, tmp_path: Path) -> None:
    spec = Service("rock", target=serving.heed_nothing, args=(str(tmp_path),), port=None, ready="message", stop=0.5)
    service = supervisor.service(spec)

    async def use() -> None:
        async with service:
            await service.wait_ready(LONG)

    task = asyncio.create_task(use())
    while service._runner is None:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await state(service, "stopping")
    pid = service.pid
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pid is not None and not lives(pid) and service.state == "stopped"
