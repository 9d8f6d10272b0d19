"""Services: ready, on the same port after a crash, stopped with nothing left."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest
import serving

from orchestrator import Service, Supervisor
from orchestrator._service import ServiceHandle

LONG = 60.0


async def ask(service: ServiceHandle, path: str = "/") -> str:
    """Return the body of a page of a service."""
    reader, writer = await asyncio.open_connection(service.host, service.port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2].decode()


async def until(service: ServiceHandle, holds: Callable[[str], bool]) -> None:
    """Wait until a state of the service holds, from its first one on."""
    async for event in service.events():
        if event.kind == "state" and holds(event.state):
            return


async def restarted(service: ServiceHandle, times: int = 1) -> None:
    """Wait until the service is ready again for the nth time."""
    seen = 0

    def ready_again(state: str) -> bool:
        nonlocal seen
        seen += state == "ready"
        return seen > times

    async with asyncio.timeout(LONG):
        await until(service, ready_again)


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor(workers=1) as opened:
        yield opened


@pytest.mark.asyncio
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
