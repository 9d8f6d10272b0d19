"""What tests of services do again and again: ask one, wait until it was restarted, read what it wrote down."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psutil

LONG = 60.0


async def ask(service: Any, path: str = "/") -> str:
    """Return the body of a page of a service."""
    reader, writer = await asyncio.open_connection(service.host, service.port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2].decode()


async def restarted(service: Any, times: int = 1) -> None:
    """Wait until the service is ready for the nth time after its first."""
    seen = 0
    async with asyncio.timeout(LONG):
        async for event in service.events():
            seen += event.kind == "state" and event.state == "ready" and event.previous == "starting"
            if seen > times:
                return


async def state(service: Any, wanted: str) -> Any:
    """Wait until the service was in a state, and return the event that says so."""
    async with asyncio.timeout(LONG):
        async for event in service.events():
            if event.kind == "state" and event.state == wanted:
                return event
    raise AssertionError(f"{service} was never {wanted}")


def lives(pid: int) -> bool:
    """Return whether a process runs; a zombie does not, whoever has not reaped it."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def told(folder: Path) -> list[str]:
    """Return the lines that services wrote down."""
    path = folder / "told"
    return path.read_text("utf-8").splitlines() if path.exists() else []
