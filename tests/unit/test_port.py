"""A reserved port where two sockets cannot share one, with pretended sockets, and what is said when it is refused."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from orchestrator import _port
from orchestrator._port import PortUnavailable, Reservation, url_of

ANYBODY = 49_152


class FakePorts:
    """The ports of a system as macOS and Windows keep them: one socket each.

    Attributes:
        theirs: Ports of other processes.
        ours: Ports that a socket made here has.
        refusing: What is raised for an address.
    """

    def __init__(self) -> None:
        self.theirs: set[tuple[str, int]] = set()
        self.ours: set[tuple[str, int]] = set()
        self.refusing: dict[str, int] = {}
        self._next = ANYBODY

    def bind(self, address: str, port: int) -> Any:
        if address in self.refusing:
            raise OSError(self.refusing[address], "refused")
        if not port:
            port, self._next = self._next, self._next + 1
        if (address, port) in self.theirs | self.ours:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.ours.add((address, port))
        return FakeSocket(self, address, port)

    def reserve(self, host: str = "127.0.0.1", port: int = 0) -> Reservation:
        return Reservation(host, port, bind=self.bind, shares=False)


class FakeSocket:
    def __init__(self, ports: FakePorts, address: str, port: int) -> None:
        self._ports = ports
        self._name = (address, port)

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def close(self) -> None:
        self._ports.ours.discard(self._name)

    def setsockopt(self, *_: object) -> None:
        raise AssertionError("where ports cannot be shared no option helps")


@pytest.fixture
def ports() -> FakePorts:
    return FakePorts()


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: found)


def test_port_is_held_but_while_the_child_has_it(ports: FakePorts) -> None:
    reservation = ports.reserve()
    place = ("127.0.0.1", reservation.port)
    assert ports.ours == {place}
    for _ in range(2):
        reservation.lend()
        reservation.lend()
        assert ports.ours == set() and not reservation.held
        reservation.take_back()
        reservation.take_back()
        assert ports.ours == {place} and reservation.held
    reservation.close()
    reservation.close()
    assert ports.ours == set()


def test_port_that_was_taken_meanwhile_is_told_at_the_next_start(ports: FakePorts) -> None:
    reservation = ports.reserve(port=8501)
    reservation.lend()
    ports.theirs.add(("127.0.0.1", 8501))
    reservation.take_back()
    with pytest.raises(PortUnavailable, match=r"^port 8501 of 127\.0\.0\.1 is taken$") as caught:
        reservation.lend()
    assert caught.value.taken
    ports.theirs.clear()
    reservation.lend()  # as soon as it is free all is well again
    reservation.take_back()
    assert ports.ours == {("127.0.0.1", 8501)}
    reservation.close()


def test_after_the_end_nothing_is_taken_again(ports: FakePorts) -> None:
    reservation = ports.reserve()
    reservation.lend()
    reservation.close()
    reservation.take_back()
    reservation.lend()
    assert ports.ours == set()


@pytest.mark.usefixtures("two_addresses")
def test_all_addresses_of_a_name_are_held(ports: FakePorts) -> None:
    reservation = ports.reserve("localhost")
    assert ports.ours == {("::1", ANYBODY), ("127.0.0.1", ANYBODY)}
    assert (reservation.address, reservation.url) == ("::1", f"http://localhost:{ANYBODY}")
    reservation.close()
    assert ports.ours == set()


@pytest.mark.usefixtures("two_addresses")
def test_any_port_means_one_that_is_free_on_all_addresses(ports: FakePorts) -> None:
    ports.theirs = {("127.0.0.1", ANYBODY), ("127.0.0.1", ANYBODY + 1)}
    reservation = ports.reserve("localhost")
    assert ports.ours == {("::1", ANYBODY + 2), ("127.0.0.1", ANYBODY + 2)}
    reservation.close()


@pytest.mark.usefixtures("two_addresses")
def test_search_for_a_port_ends(ports: FakePorts) -> None:
    ports.theirs = {("127.0.0.1", port) for port in range(ANYBODY, 65_536)}
    with pytest.raises(PortUnavailable, match="free on every address of localhost"):
        ports.reserve("localhost")
    assert ports.ours == set()


@pytest.mark.usefixtures("two_addresses")
@pytest.mark.parametrize("lacking", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_address_that_the_machine_lacks_is_left_out(ports: FakePorts, lacking: int) -> None:
    ports.refusing["::1"] = lacking
    reservation = ports.reserve("localhost", 8501)
    assert ports.ours == {("127.0.0.1", 8501)}
    reservation.close()
    ports.refusing["127.0.0.1"] = lacking
    with pytest.raises(PortUnavailable, match="localhost is no address of this machine") as caught:
        ports.reserve("localhost", 8501)
    assert not caught.value.taken


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EADDRINUSE, "port 80 of 127.0.0.1 is taken"),
        (10048, "port 80 of 127.0.0.1 is taken"),  # as Windows has it
        (errno.EACCES, "port 80 of 127.0.0.1 is not allowed to this user: refused"),
        (10013, "port 80 of 127.0.0.1 is not allowed to this user: refused"),
        (errno.EADDRNOTAVAIL, "127.0.0.1 is no address of this machine: refused"),
        (errno.ENOBUFS, "port 80 of 127.0.0.1 cannot be had: refused"),
    ],
)
def test_refusal_is_told_in_words(ports: FakePorts, number: int, told: str) -> None:
    ports.refusing["127.0.0.1"] = number
    with pytest.raises(PortUnavailable) as caught:
        ports.reserve(port=80)
    assert str(caught.value) == told
    assert (caught.value.host, caught.value.port) == ("127.0.0.1", 80)


def test_name_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(PortUnavailable, match="'nowhere' is not the name of a machine: Name or service not known"):
        Reservation("nowhere", 0)
    assert _port.who_holds("nowhere", 1) == ""


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8501"),
        ("localhost", "http://localhost:8501"),
        ("0.0.0.0", "http://127.0.0.1:8501"),
        ("::1", "http://[::1]:8501"),
        ("::", "http://[::1]:8501"),
    ],
)
def test_address_for_browsers(host: str, url: str) -> None:
    assert url_of(host, 8501) == url
