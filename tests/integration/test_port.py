"""A port that is reserved for a service: real servers get it, again and again, and nobody else does."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from orchestrator._port import PortUnavailable, Reservation, reserve, who_holds

SERVERS = Path(__file__).parents[1] / "targets" / "small_servers.py"
# On Windows the option steals a port, and on macOS it lets one have the same port on another address.
OTHERS = (True, False) if sys.platform == "linux" else (False,)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets two sockets share a port like that")


def command(kind: str, port: int, folder: Path) -> list[str]:
    if kind == "http.server":
        return [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    if kind == "streamlit":
        page = folder / "page.py"
        page.write_text("import streamlit\n", "utf-8")
        options = ["--server.address", "127.0.0.1", "--server.port", str(port), "--server.headless", "true"]
        return [sys.executable, "-m", "streamlit", "run", str(page), *options]
    return [sys.executable, str(SERVERS), kind, str(port)]


def wait_until_it_listens(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:  # nobody tells when a foreign server listens
            assert server.poll() is None, f"it ended with {server.returncode}"
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.02)


def refusal(port: int, *, shares: bool, host: str = "127.0.0.1") -> int:
    """Return why another server may not have a port, or 0 when it may."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shares)
        try:
            other.bind((host, port))
            other.listen()
        except OSError as error:
            return error.errno or -1
    return 0


@pytest.fixture
def reservation() -> Iterator[Reservation]:
    with closing(reserve("127.0.0.1", 0)) as found:
        yield found


@pytest.mark.parametrize("kind", ["asyncio", "uvicorn", "http.server", "streamlit"])
def test_server_is_started_again_on_its_port(kind: str, reservation: Reservation, tmp_path: Path) -> None:
    if kind in ("uvicorn", "streamlit") and importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed")
    port = reservation.port
    for _ in range(2):
        reservation.lend()
        with subprocess.Popen(
            command(kind, port, tmp_path), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            try:
                wait_until_it_listens(server, port)
                for shares in OTHERS:
                    assert refusal(port, shares=shares) == errno.EADDRINUSE
            finally:
                server.kill()
        reservation.take_back()
        # Although connections of the server that was killed are still known to the system.
        for shares in OTHERS:
            assert refusal(port, shares=shares) == errno.EADDRINUSE
            assert sys.platform != "linux" or refusal(port, shares=shares, host="0.0.0.0") == errno.EADDRINUSE


@linux_only
def test_server_that_cannot_share_its_port_has_it_yielded(reservation: Reservation, tmp_path: Path) -> None:
    port = reservation.port
    reservation.lend()
    failed = subprocess.run(command("strict", port, tmp_path), capture_output=True, timeout=60, check=False)
    assert failed.returncode == 1 and b"Address already in use" in failed.stderr
    reservation.take_back()
    assert reservation.yield_port()
    for _ in range(2):
        reservation.lend()
        with subprocess.Popen(command("strict", port, tmp_path)) as server:
            try:
                wait_until_it_listens(server, port)
            finally:
                server.kill()
        reservation.take_back()
        assert reservation.held
        assert refusal(port, shares=True) == refusal(port, shares=False) == errno.EADDRINUSE
    assert not reservation.yield_port()


def test_port_is_free_after_the_end() -> None:
    reservation = reserve("127.0.0.1", 0)
    reservation.lend()
    reservation.take_back()
    reservation.close()
    assert refusal(reservation.port, shares=False) == 0


def test_port_with_a_listener_is_taken_and_its_holder_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortUnavailable, match=rf"^port {port} of 127\.0\.0\.1 is taken$") as caught:
            reserve("127.0.0.1", port)
        assert caught.value.taken
        with pytest.raises(PortUnavailable):
            reserve("0.0.0.0", port)
        for host in ("127.0.0.1", "0.0.0.0"):
            assert who_holds(host, port).startswith(f"process {os.getpid()} (")
    assert who_holds("127.0.0.1", port) == ""


@linux_only
@pytest.mark.parametrize("lent", [False, True])
def test_port_of_another_reservation_is_taken(reservation: Reservation, lent: bool) -> None:
    if lent:
        reservation.lend()
    with pytest.raises(PortUnavailable, match="is taken"):
        reserve("127.0.0.1", reservation.port)


def test_connections_of_a_server_that_has_ended_are_not_in_the_way() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        server.accept()[0].close()  # who closes first keeps the connection in mind for a minute
        assert client.recv(1) == b""
    assert sys.platform != "linux" or refusal(port, shares=False) == errno.EADDRINUSE
    with closing(reserve("127.0.0.1", port)) as reservation:
        assert refusal(port, shares=False) == errno.EADDRINUSE
        reservation.lend()
        assert refusal(port, shares=sys.platform != "win32") == 0


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as found:
            found.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_address_of_the_sixth_version(host: str) -> None:
    with closing(reserve(host, 0)) as reservation:
        port = reservation.port
        assert (reservation.address, reservation.url) == ("::1", f"http://[::1]:{port}")
        for shares in OTHERS:
            assert refusal(port, shares=shares, host=host) == errno.EADDRINUSE
        reservation.lend()
        assert refusal(port, shares=OTHERS[0], host=host) == 0
    with socket.create_server((host, port), family=socket.AF_INET6), pytest.raises(PortUnavailable, match="is taken"):
        reserve(host, port)


def test_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortUnavailable, match=r"^192\.0\.2\.1 is no address of this machine: "):
        reserve("192.0.2.1", 0)


def test_name_of_this_machine() -> None:
    with closing(reserve("localhost", 0)) as reservation:
        assert reservation.address in ("127.0.0.1", "::1")
        assert reservation.url == f"http://localhost:{reservation.port}"
        assert refusal(reservation.port, shares=False, host=reservation.address) == errno.EADDRINUSE
