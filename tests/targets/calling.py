"""Jobs that call a server with permits of a limit."""

from __future__ import annotations

import asyncio
import json
import time
from http.client import HTTPConnection

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
