"""Ask a service whether it is there: one connection or one HTTP request, and one sentence of what is wrong."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import cast
from urllib.parse import quote

from orchestrator._port import url_of
from orchestrator._service_spec import HttpProbe, TcpProbe

__all__ = ("ask",)

# A body this large is read, for some servers complain of those who leave in the middle; of a larger one, or of one
# that says no length, only the head.
_READ = 65_536
_SHOWN = 60  # characters of what is not HTTP
_SAFE = "/?&=%#:;,+~@!$'()*[]"  # as people write paths; nothing with which a line ends


async def ask(probe: HttpProbe | TcpProbe, address: str, port: int, *, host: str | None = None) -> str | None:
    """Return None when all is well, or else one sentence that says what is not.

    It raises nothing but a cancellation, ends within the probe's timeout, and leaves no connection.

    Args:
        probe: What is asked.
        address: Where the service listens: an address, not a name, so that nobody has to look it up.
        port: Its port.
        host: How the service is called in an HTTP request; the address unless given.
    """
    http = probe if isinstance(probe, HttpProbe) else None
    timeout = cast("float", probe.timeout)
    place = f"{address} port {port}"
    what = place if http is None else f"GET {url_of(host or address, port)}{http.path}"
    found: str | None = f"{place} did not accept a connection within {timeout:g} s"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(address, port)
            if http is None:
                found = None
            else:
                found = f"{what} was not answered within {timeout:g} s"
                status = await _get(reader, writer, http.path, url_of(host or address, port).removeprefix("http://"))
                if isinstance(status, str):
                    found = f"{what} {status}"
                else:
                    found = None if status in http.status else f"{what} answered {status}"
                    # It has answered: whatever else goes wrong with the connection is not of interest.
                    with suppress(OSError):
                        await _read_body(reader)
    except TimeoutError:
        pass
    except ConnectionRefusedError:
        found = f"nothing listens on {place}"
    except OSError as error:
        found = f"{what}: {os.strerror(error.errno) if error.errno else error}"
    finally:
        if writer is not None:
            writer.transport.abort()  # nothing is left to be sent
            await asyncio.sleep(0)  # the loop closes the socket in its next turn
    return found


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, host: str) -> int | str:
    """Return the status of an answer, or what is wrong with it."""
    lines = (f"GET {quote(path, _SAFE)} HTTP/1.1", f"Host: {host}", "User-Agent: orchestrator", "Accept: */*")
    writer.write("\r\n".join((*lines, "Connection: close", "", "")).encode("ascii"))
    while True:
        first = await _line(reader)
        if first is None:
            return "was answered with an endless line, which is not HTTP"
        if not first:
            return "was not answered: the service closed the connection"
        parts = first.split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit() or len(parts[1]) != 3:
            return f"was answered with something that is not HTTP: {first[:_SHOWN].decode('latin-1')!r}"
        if not 100 <= (status := int(parts[1])) < 200:
            return status
        await _read_head(reader)  # a hint that comes before the answer


async def _read_body(reader: asyncio.StreamReader) -> None:
    length = await _read_head(reader)
    if length is not None and length <= _READ:
        await reader.read(length)


async def _read_head(reader: asyncio.StreamReader) -> int | None:
    """Read headers, and return how long the body will be, if that is said."""
    length: int | None = None
    while (line := await _line(reader)) and (name := line.partition(b":")[0].strip()):
        if name.lower() == b"content-length":
            value = line.partition(b":")[2].strip()
            length = int(value) if value.isdigit() else None
    return length


async def _line(reader: asyncio.StreamReader) -> bytes | None:
    """Return one line, empty at the end, or None for one that is too long."""
    try:
        return await reader.readline()
    except ValueError:
        return None
