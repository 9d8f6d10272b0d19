"""Services that go wrong: each ends in a state and with a reason that a person understands; nothing hangs or storms."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import bad_services
import psutil
import pytest
import pytest_asyncio

from orchestrator import HttpProbe, RestartPolicy, Service, Supervisor, TcpProbe
from orchestrator.exceptions import ConfigurationError, ServiceFailed, TargetError

pytestmark = [
    pytest.mark.usefixtures("no_task_left"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX"),
]

PATIENCE = 60.0
MUTE = """import sys, time
print("still looking for my glasses", file=sys.stderr, flush=True)
time.sleep(3600)
"""
# Waits short enough for a test, and few enough starts to be counted.
BRISK = RestartPolicy(backoff=0.02, max_backoff=0.05, max_restarts=2)
MOST_STARTS = 3


@pytest_asyncio.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor(workers=0, env={"PYTHONPATH": str(Path(__file__).parents[1] / "targets")}) as found:
        yield found


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    return tmp_path / "starts"


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text("ascii").split()] if path.exists() else []


def bad(target: Any, starts: Path, **options: Any) -> Service:
    more = options.pop("args", ())
    return Service("bad", target=target, args=(str(starts), *more), **{"restart": BRISK, **options})


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def ask(url: str, path: str = "/") -> str:
    """Return what a service answers; it may be starting again just now."""

    def get() -> str:
        with urllib.request.urlopen(url + path, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(get)


async def until_ready_again(service: Any, before: int | None) -> None:
    """Wait until another process of a service is ready."""
    async with asyncio.timeout(PATIENCE):
        async for _ in service.events():
            if service.state == "ready" and service.pid != before:
                return


async def failure_of(service: Any) -> ServiceFailed:
    with pytest.raises(ServiceFailed) as caught:
        await service.wait_ready(PATIENCE)
    assert (service.state, service.reason, service.pid) == ("failed", caught.value.reason, None)
    assert caught.value.state == "failed"
    # Known at once to whoever asks later.
    with pytest.raises(ServiceFailed):
        await service.wait_ready()
    return caught.value


# A port


async def test_port_that_is_taken(supervisor: Supervisor, starts: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with supervisor.service(bad(bad_services.good, starts, port=port)) as service:
            failed = await failure_of(service)
            assert str(port) in failed.reason and str(os.getpid()) in failed.reason
            assert service.restarts == 0 and pids(starts) == []
            listener.close()
            # Another try, now that it is free.
            await service.restart()
            await service.wait_ready(PATIENCE)
            assert service.url == f"http://127.0.0.1:{port}" and await ask(service.url) == str(service.pid)


async def test_two_services_want_the_same_port(supervisor: Supervisor, starts: Path) -> None:
    async with supervisor.service(bad(bad_services.good, starts)) as first:
        second = Service("second", target=bad_services.good, args=(str(starts),), port=first.port)
        async with supervisor.service(second) as service:
            failed = await failure_of(service)
            assert str(first.port) in failed.reason
        await first.wait_ready(PATIENCE)


async def test_address_of_another_machine(supervisor: Supervisor, starts: Path) -> None:
    async with supervisor.service(bad(bad_services.good, starts, host="192.0.2.1")) as service:
        assert "192.0.2.1 is no address of this machine" in (await failure_of(service)).reason


async def test_server_that_cannot_share_its_port(supervisor: Supervisor, tmp_path: Path) -> None:
    servers = Path(__file__).parents[1] / "targets" / "small_servers.py"
    spec = Service("strict", argv=[sys.executable, servers, "strict", "{port}"], restart=BRISK)
    async with supervisor.service(spec) as service:
        await service.wait_ready(PATIENCE)
        assert service.restarts <= 1


# What never becomes ready


async def test_service_that_never_listens(supervisor: Supervisor, tmp_path: Path) -> None:
    script = tmp_path / "mute.py"  # it imports little, so that a busy machine lets it speak in time
    script.write_text(MUTE, "utf-8")
    once = RestartPolicy(max_restarts=0)
    async with supervisor.service(Service("bad", script=script, start_timeout=4, restart=once)) as service:
        failed = await failure_of(service)
        assert "not ready within 4 s" in failed.reason and "nothing listens" in failed.reason
        assert failed.certificate is not None
        assert "still looking for my glasses" in failed.certificate.stderr
        assert failed.certificate.pid is not None and not lives(failed.certificate.pid)
        assert service.restarts == 0


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        (bad_services.answers_500, {"ready": HttpProbe("/")}, "answered 500"),
        (bad_services.speaks_no_http, {"ready": HttpProbe("/")}, "not HTTP"),
        (bad_services.good, {"ready": "message"}, "it has not called child.ready()"),
    ],
)
async def test_service_that_is_there_but_not_well(
    supervisor: Supervisor, starts: Path, target: Any, options: dict[str, Any], said: str
) -> None:
    async with supervisor.service(bad(target, starts, **options)) as service, asyncio.timeout(PATIENCE):
        # It has a minute for starting; whoever waits for less is told what is wrong up to now.
        problem = ""
        while said not in problem:
            with pytest.raises(TimeoutError) as caught:
                await service.wait_ready(0.2)
            problem = str(caught.value)
        assert (service.state, service.restarts) == ("starting", 0)
    assert not any(map(lives, pids(starts)))


# What ends


@pytest.mark.parametrize(
    ("target", "told", "tail"),
    [
        (bad_services.exits, "3", "there is no such database"),
        (bad_services.raises, "", "KeyError: 'no such setting'"),
        (bad_services.crashes_in_c, "SIGSEGV", ""),
        ("bad_services:nothing_of_the_kind", "", "nothing_of_the_kind"),
    ],
)
async def test_service_that_dies_at_once(
    supervisor: Supervisor, starts: Path, target: Any, told: str, tail: str
) -> None:
    async with supervisor.service(bad(target, starts)) as service:
        failed = await failure_of(service)
        assert told in failed.reason and tail in str(failed), failed
        assert service.last_death is not None and service.last_death == failed.certificate
        assert service.restarts <= MOST_STARTS - 1
    assert len(pids(starts)) <= MOST_STARTS


async def test_target_that_is_not_there(supervisor: Supervisor) -> None:
    with pytest.raises(TargetError, match="no_such_module_at_all"):
        async with supervisor.service(Service("bad", target="no_such_module_at_all:serve")):
            raise AssertionError("it must not be started")
    assert supervisor.statistics().services == ()


async def test_service_that_ends_well_again_and_again(supervisor: Supervisor, starts: Path) -> None:
    spec = bad(bad_services.ready_and_gone, starts, port=None, ready="message")
    async with supervisor.service(spec) as service:
        async with asyncio.timeout(PATIENCE):
            async for event in service.events():
                if event.kind == "state" and event.state == "failed":
                    break
        await failure_of(service)
    # One more than of those that never became ready: after a first death it is started at once.
    assert 2 <= len(pids(starts)) <= MOST_STARTS + 1


async def test_program_that_is_not_there(supervisor: Supervisor) -> None:
    for program in ("/no/such/program", "no-such-program-anywhere"):
        with pytest.raises(ConfigurationError, match=f"there is no program '{program}'"):
            async with supervisor.service(Service("bad", argv=[program, "{port}"])):
                raise AssertionError("it must not be started")


async def test_program_that_cannot_be_run(supervisor: Supervisor, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF and so on")
    program.chmod(0o755)
    async with supervisor.service(Service("bad", argv=[program], restart=BRISK)) as service:
        assert str(program) in (await failure_of(service)).reason


async def test_script_with_a_syntax_error(supervisor: Supervisor, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("import os\n\nif os:\nprint('indented too little')\n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"broken\.py.*\b4\b"):
        async with supervisor.service(Service("bad", script=script)):
            raise AssertionError("it must not be started")
    with pytest.raises(ConfigurationError, match=r"missing\.py"):
        async with supervisor.service(Service("bad", script=tmp_path / "missing.py")):
            raise AssertionError("it must not be started")


async def test_script_that_is_broken_later(supervisor: Supervisor, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import http.server, os\nhttp.server.test(port=int(os.environ['PORT']), bind='127.0.0.1')\n", "utf-8"
    )
    async with supervisor.service(Service("bad", script=script, restart=BRISK)) as service:
        await service.wait_ready(PATIENCE)
        script.write_text("def broken(:\n", "utf-8")
        assert service.pid is not None
        os.kill(service.pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            async for event in service.events():
                if event.kind == "state" and event.state == "failed":
                    break
        failed = await failure_of(service)
        assert "SyntaxError" in str(failed) and "broken.py" in str(failed)
        # Repaired, it is asked to try again.
        script.write_text(
            "import http.server, os\nhttp.server.test(port=int(os.environ['PORT']), bind='127.0.0.1')\n", "utf-8"
        )
        await service.restart()
        await service.wait_ready(PATIENCE)


# What goes wrong later


async def test_service_that_is_killed_comes_back_on_its_port(supervisor: Supervisor, starts: Path) -> None:
    async with supervisor.service(bad(bad_services.good, starts)) as service:
        await service.wait_ready(PATIENCE)
        url, first = service.url, service.pid
        os.kill(first, signal.SIGKILL)
        await until_ready_again(service, first)
        assert (service.url, service.restarts, service.last_death.signal) == (url, 1, "SIGKILL")
        assert await ask(url) == str(service.pid)
        assert service.last_death.pid == first


async def test_service_that_becomes_deaf(supervisor: Supervisor, starts: Path) -> None:
    health = HttpProbe("/", timeout=2, every=0.1, failures=2)
    async with supervisor.service(bad(bad_services.good, starts, ready=HttpProbe("/"), health=health)) as service:
        await service.wait_ready(PATIENCE)
        url, first = service.url, service.pid
        states = asyncio.create_task(until_ready_again(service, first))
        assert await ask(url, "/deafen") == str(first)
        await states
        assert service.url == url and await ask(url) == str(service.pid) != str(first)
        assert "not answered within 2 s" in str(service.last_death)
    assert not any(map(lives, pids(starts)))


async def test_service_that_leaks(supervisor: Supervisor, starts: Path) -> None:
    async with supervisor.service(bad(bad_services.good, starts, max_rss=120_000_000)) as service:
        await service.wait_ready(PATIENCE)
        url, first = service.url, service.pid
        with contextlib.suppress(OSError, HTTPException):  # it may be gone before it has answered
            await ask(url, "/leak")
        await until_ready_again(service, first)
        assert service.url == url and await ask(url) == str(service.pid)
        assert "memory" in str(service.last_death)


async def test_service_that_ignores_the_request_to_stop(supervisor: Supervisor, starts: Path) -> None:
    async with supervisor.service(bad(bad_services.ignores_the_request_to_stop, starts, stop=0.5)) as service:
        await service.wait_ready(PATIENCE)
        pid, began = service.pid, time.monotonic()
        await service.stop()
        assert 0.4 < time.monotonic() - began < 30
        assert service.state == "stopped" and not lives(pid)
        with pytest.raises(ServiceFailed, match="stopped"):
            await service.wait_ready(PATIENCE)
    assert len(pids(starts)) == 1


async def test_service_that_starts_what_runs_away(supervisor: Supervisor, starts: Path, tmp_path: Path) -> None:
    strays = tmp_path / "strays"
    spec = bad(bad_services.forks_away, starts, args=(str(strays),))
    async with supervisor.service(spec) as service:
        await service.wait_ready(PATIENCE)
        first = service.pid
        assert [lives(pid) for pid in pids(strays)] == [True]
        os.kill(first, signal.SIGKILL)
        await until_ready_again(service, first)
        # What the first one left is gone, and the second one's is there.
        assert [lives(pid) for pid in pids(strays)] == [False, True]
    assert [lives(pid) for pid in pids(strays)] == [False, False]


async def test_stray_that_has_the_port(supervisor: Supervisor, starts: Path) -> None:
    async with supervisor.service(bad(bad_services.leaves_its_port_to_a_stray, starts, stop=0.5)) as service:
        await service.wait_ready(PATIENCE)
        url, first = service.url, service.pid
        os.kill(first, signal.SIGKILL)
        await until_ready_again(service, first)
        assert (service.url, service.restarts) == (url, 1)


async def test_service_that_talks_too_much(supervisor: Supervisor, starts: Path) -> None:
    async with supervisor.service(bad(bad_services.talks_too_much, starts)) as service:
        await service.wait_ready(PATIENCE)
        for _ in range(20):
            assert await ask(service.url) == str(service.pid)
    assert len(pids(starts)) == 1


# Others


async def test_neighbours_of_a_bad_service_do_not_notice(supervisor: Supervisor, starts: Path, tmp_path: Path) -> None:
    well = Service("well", target=bad_services.good, args=(str(tmp_path / "others"),))
    async with supervisor.service(well) as good, supervisor.service(bad(bad_services.exits, starts)) as service:
        await good.wait_ready(PATIENCE)
        pid = good.pid
        await failure_of(service)
        assert (good.state, good.pid, good.restarts) == ("ready", pid, 0)
        assert await ask(good.url) == str(pid)


async def test_who_depends_on_a_bad_service_is_told(supervisor: Supervisor, starts: Path, tmp_path: Path) -> None:
    waits = Service("waits", target=bad_services.good, args=(str(tmp_path / "others"),), depends_on=["bad"])
    async with supervisor.service(bad(bad_services.exits, starts)) as first, supervisor.service(waits) as service:
        with pytest.raises(ServiceFailed, match="bad") as caught:
            await service.wait_ready(PATIENCE)
        assert (caught.value.state, service.state, first.state) == ("waiting", "waiting", "failed")
    assert pids(tmp_path / "others") == []


@pytest.mark.parametrize("target", [bad_services.never_ready, bad_services.ignores_the_request_to_stop])
async def test_leaving_is_bounded_whatever_a_service_does(starts: Path, target: Any) -> None:
    began = time.monotonic()
    async with Supervisor(workers=0, env={"PYTHONPATH": str(Path(__file__).parents[1] / "targets")}) as supervisor:
        service = await supervisor.service(bad(target, starts, stop=0.2, ready=TcpProbe())).__aenter__()
        async with asyncio.timeout(PATIENCE):
            while not pids(starts):  # noqa: ASYNC110  a file cannot tell
                await asyncio.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 30
    assert service.state == "stopped" and not any(map(lives, pids(starts)))
