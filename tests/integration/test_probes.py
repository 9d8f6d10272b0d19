"""What a probe says of services of all kinds: one sentence each, in time, and no connection is left."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from orchestrator._probes import ask
from orchestrator._service_spec import HttpProbe, TcpProbe

try:
    import uvloop
except ImportError:
    uvloop = None
else:
    uvloop.new_event_loop().close()  # its library opens two pipes with the first loop, and keeps them

pytestmark = pytest.mark.usefixtures("no_task_left")

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Long enough for a machine that is busy; what is expected to pass is expected sooner.
PATIENT = 30.0
SHORT = 0.3


@asynccontextmanager
async def service(answer: Answer, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Answer connections, and wait at the end until all of them are closed: the probe hangs on to none."""
    under_way: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            await answer(reader, writer)
        except (ConnectionError, EOFError):
            pass
        finally:
            writer.close()
            under_way.discard(task)

    server = await asyncio.start_server(serve, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        async with asyncio.timeout(PATIENT):
            await asyncio.gather(*under_way)


def answering(text: str, *, then: Answer | None = None) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text.encode("latin-1"))
        await writer.drain()
        if then is not None:
            await then(reader, writer)

    return answer


async def until_left(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Say no more until the other side has gone."""
    await reader.read()


async def endlessly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(65_536))
        await writer.drain()


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "302 Found", "399 Whatever", "200"])
async def test_good_answer(status: str) -> None:
    async with service(answering(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")) as port:
        assert await ask(HttpProbe(timeout=PATIENT), "127.0.0.1", port) is None


@pytest.mark.parametrize("status", [100, 199, 400, 404, 500, 503])
async def test_bad_status(status: int) -> None:
    text = f"HTTP/1.1 {status} Whatever\r\n\r\n"
    async with service(answering(text)) as port:
        said = await ask(HttpProbe("/health", timeout=PATIENT), "127.0.0.1", port)
    url = f"GET http://127.0.0.1:{port}/health"
    # What begins with 1 announces an answer, and none came.
    assert said == (
        f"{url} was not answered: the service closed the connection" if status < 200 else f"{url} answered {status}"
    )


async def test_statuses_that_are_asked_for() -> None:
    async with service(answering("HTTP/1.0 401 Who are you\r\n\r\n")) as port:
        assert await ask(HttpProbe(status=(401, 403), timeout=PATIENT), "127.0.0.1", port) is None
        assert await ask(HttpProbe(status=[200], timeout=PATIENT), "127.0.0.1", port) is not None


async def test_hints_come_before_the_answer() -> None:
    hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" * 3
    async with service(answering(hints + "HTTP/1.1 200 OK\r\n\r\n")) as port:
        assert await ask(HttpProbe(timeout=PATIENT), "127.0.0.1", port) is None


async def test_request_is_one_that_servers_understand() -> None:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with service(answer) as port:
        probe = HttpProbe("/a b/ü?q=[1]&r=%20", timeout=PATIENT)
        assert await ask(probe, "127.0.0.1", port, host="localhost") is None
        assert await ask(HttpProbe(timeout=PATIENT), "127.0.0.1", port, host="::1") is None
    first, *headers = heard[0].decode("ascii").split("\r\n")
    assert first == "GET /a%20b/%C3%BC?q=[1]&r=%20 HTTP/1.1"
    assert f"Host: localhost:{port}" in headers and "Connection: close" in headers
    assert f"\r\nHost: [::1]:{port}\r\n".encode() in heard[1]


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("Content-Length: 12\r\n\r\nall is well.", until_left),
        ("Content-Length: 12\r\n\r\nall", None),
        ("Content-Length: 1000000000000\r\n\r\n", endlessly),
        ("Transfer-Encoding: chunked\r\n\r\n", endlessly),
        ("Content-Length: what?\r\n\r\n", until_left),
        ("no header at all\r\n\r\n", until_left),
        ("Content-Length: 12\r\n\r\nall", reset),
        ("X-Long: " + "x" * 200_000, until_left),
    ],
)
async def test_body_is_of_no_interest(text: str, then: Answer | None) -> None:
    async with service(answering(f"HTTP/1.1 200 OK\r\n{text}", then=then)) as port:
        assert await ask(HttpProbe(timeout=PATIENT), "127.0.0.1", port) is None
    async with service(answering(f"HTTP/1.1 500 Error\r\n{text}", then=then)) as port:
        said = await ask(HttpProbe(timeout=PATIENT), "127.0.0.1", port)
    assert said == f"GET http://127.0.0.1:{port}/ answered 500"


@pytest.mark.parametrize("text", ["Content-Length: 12\r\n\r\nall", "Content-Length"])
async def test_service_that_stops_in_the_middle_has_answered(text: str) -> None:
    async with service(answering(f"HTTP/1.1 200 OK\r\n{text}", then=until_left)) as port:
        assert await ask(HttpProbe(timeout=SHORT), "127.0.0.1", port) is None


@pytest.mark.parametrize("text", ["", "HTTP/1.1 ", "HTTP/1.1 200 OK"])
async def test_service_that_does_not_answer(text: str) -> None:
    async with service(answering(text, then=until_left)) as port:
        said = await ask(HttpProbe(timeout=SHORT), "127.0.0.1", port)
    assert said == f"GET http://127.0.0.1:{port}/ was not answered within 0.3 s"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "was not answered: the service closed the connection"),
        ("SSH-2.0-Server\r\n", "was answered with something that is not HTTP: 'SSH-2.0-Server\\r\\n'"),
        ("HTTP/1.1 OK\r\n\r\n", "was answered with something that is not HTTP: 'HTTP/1.1 OK\\r\\n'"),
        (
            "\x15\x03\x01\0\x02\x02\n",
            "was answered with something that is not HTTP: '\\x15\\x03\\x01\\x00\\x02\\x02\\n'",
        ),
        ("x" * 200_000, "was answered with an endless line, which is not HTTP"),
    ],
)
async def test_service_that_speaks_something_else(text: str, said: str) -> None:
    async with service(answering(text)) as port:
        assert await ask(HttpProbe(timeout=PATIENT), "127.0.0.1", port) == f"GET http://127.0.0.1:{port}/ {said}"


async def test_connection_that_is_reset() -> None:
    async with service(answering("", then=reset)) as port:
        said = await ask(HttpProbe(timeout=PATIENT), "127.0.0.1", port)
    assert said == f"GET http://127.0.0.1:{port}/: {os.strerror(errno.ECONNRESET)}"


async def test_connection_is_all_that_a_tcp_probe_asks_for() -> None:
    async with service(until_left) as port:
        assert await ask(TcpProbe(timeout=PATIENT), "127.0.0.1", port) is None


@pytest.mark.parametrize("probe", [TcpProbe(timeout=PATIENT), HttpProbe(timeout=PATIENT)], ids=["tcp", "http"])
async def test_port_without_a_listener(probe: TcpProbe | HttpProbe) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        assert await ask(probe, "127.0.0.1", port) == f"nothing listens on 127.0.0.1 port {port}"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux leaves those waiting for whom it has no room")
@pytest.mark.parametrize("probe", [TcpProbe(timeout=SHORT), HttpProbe(timeout=SHORT)], ids=["tcp", "http"])
async def test_service_that_accepts_nobody(probe: TcpProbe | HttpProbe) -> None:
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        first.connect(deaf.getsockname())
        port = deaf.getsockname()[1]
        said = await ask(probe, "127.0.0.1", port)
    assert said == f"127.0.0.1 port {port} did not accept a connection within 0.3 s"


async def test_question_that_is_given_up_leaves_nothing() -> None:
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()  # until the other side has gone

    async with service(answer) as port:
        question = asyncio.create_task(ask(HttpProbe(timeout=PATIENT), "127.0.0.1", port))
        await asked.wait()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question


@pytest.mark.skipif(uvloop is None, reason="uvloop is not installed")
def test_on_another_loop() -> None:
    async def main() -> list[str | None]:
        async with service(answering("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell")) as port:
            good = [
                await ask(probe, "127.0.0.1", port) for probe in (HttpProbe(timeout=PATIENT), TcpProbe(timeout=PATIENT))
            ]
        async with service(answering("", then=reset)) as port:
            bad = await ask(HttpProbe(timeout=PATIENT), "127.0.0.1", port)
        return [*good, bad and bad.rpartition(": ")[2], await ask(TcpProbe(timeout=PATIENT), "127.0.0.1", port)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        *good, bad, gone = runner.run(main())
    assert good == [None, None]
    assert bad == os.strerror(errno.ECONNRESET)
    assert gone is not None and gone.startswith("nothing listens on 127.0.0.1 port ")
