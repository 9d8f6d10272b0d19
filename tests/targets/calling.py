"""Jobs that call a server with permits of a limit."""

from __future__ import annotations

import asyncio
import json
import time
from http.client import HTTPConnection

from standing import stand, stand_async

from orchestrator import child


class Refused(Exception):
    """An answer with status 429."""

    status_code = 429

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"refused for {retry_after} s")
        self.retry_after = retry_after


def call(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        body = json.loads(response.read())
    finally:
        connection.close()
    if response.status == 429:
        raise Refused(body["retry_after"])


async def call_async(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 429 " in head.partition(b"\r\n")[0]:
        raise Refused(json.loads(body)["retry_after"])


def keep_calling(port: int, name: str, until: float) -> int:
    """Call until then, on the clock of the machine; returns how many calls were answered."""
    answered = 0
    while time.monotonic() < until:
        try:
            with child.permit(name):
                call(port)
            answered += 1
        except Refused:
            continue  # the permit has told the supervisor
    return answered


async def keep_calling_async(port: int, name: str, until: float) -> int:
    answered = 0
    while time.monotonic() < until:
        try:
            async with child.permit(name):
                await call_async(port)
            answered += 1
        except Refused:
            continue
    return answered


def hold(port: int, name: str) -> None:
    """Hold a permit until the end of time, or of the child."""
    with child.permit(name):
        stand(port, "holding")


def take(name: str, timeout: float | None = None) -> float:
    """Take a permit, and return when."""
    with child.permit(name, timeout=timeout):
        return time.monotonic()


async def take_async(name: str, timeout: float | None = None) -> float:
    async with child.permit(name, timeout=timeout):
        return time.monotonic()


def take_too_late(name: str, timeout: float) -> tuple[float, float]:
    """Return for how long a permit was asked for in vain, and when it could be had."""
    began = time.monotonic()
    try:
        with child.permit(name, timeout=timeout):
            raise AssertionError("it was granted")
    except TimeoutError as error:
        return time.monotonic() - began, error.retry_after  # type: ignore[attr-defined]


async def take_too_late_async(name: str, timeout: float) -> tuple[float, float]:
    began = time.monotonic()
    try:
        async with child.permit(name, timeout=timeout):
            raise AssertionError("it was granted")
    except TimeoutError as error:
        return time.monotonic() - began, error.retry_after  # type: ignore[attr-defined]


def spend(name: str, estimate: float, used: float) -> None:
    with child.permit(name, tokens=estimate) as permit:
        permit.report(tokens=used)


async def spend_async(name: str, estimate: float, used: float) -> None:
    async with child.permit(name, tokens=estimate) as permit:
        permit.report(tokens=used)


def report_nonsense(name: str) -> list[str]:
    """Return what is said of reports that cannot be."""
    said = []
    permit = child.permit(name, tokens=1)
    for units in ({"tokens": 1}, {"words": 1}, {"tokens": -1}):
        try:
            if units == {"tokens": 1}:
                permit.report(**units)
            with child.permit(name, tokens=1) as held:
                held.report(**units)
        except (RuntimeError, ValueError) as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def be_refused(name: str, retry_after: object, attribute: str = "status_code") -> None:
    """Leave a permit by the exception of a 429."""
    error = RuntimeError("429 Too Many Requests")
    setattr(error, attribute, 429)
    if retry_after is not None:
        error.retry_after = retry_after  # type: ignore[attr-defined]
    with child.permit(name):
        raise error


async def be_refused_async(name: str, retry_after: object, attribute: str = "status_code") -> None:
    error = RuntimeError("429 Too Many Requests")
    setattr(error, attribute, 429)
    error.retry_after = retry_after  # type: ignore[attr-defined]
    async with child.permit(name):
        raise error


def nest(port: int, *names: str) -> None:
    """Hold permits inside each other."""
    if not names:
        pass_by(port)
        return
    with child.permit(names[0]):
        nest(port, *names[1:])


async def gather_inside(port: int, outer: str, inner: str, count: int) -> None:
    """Hold a permit, and several at once inside it."""

    async def one() -> None:
        async with child.permit(inner):
            await stand_async(port, "inside")

    async with child.permit(outer):
        await asyncio.gather(*(one() for _ in range(count)))


def pass_by(port: int) -> None:
    """Be counted as somebody who is here."""
    stand(port, "here")


def take_and_stand(port: int, name: str) -> None:
    with child.permit(name):
        stand(port, "here")


async def take_repeatedly(name: str, weight: float, until: float) -> list[float]:
    """Take a permit again and again; return for how long each was waited for."""
    waits = []
    while (began := time.monotonic()) < until:
        async with child.permit(name, weight):
            waits.append(time.monotonic() - began)
    return waits
