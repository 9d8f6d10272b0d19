"""A port that is a service's own for its whole life: nobody takes it while the service's child is started again.

On Linux a socket stays bound to the port, and never listens. As long as no child runs, the socket has no SO_REUSEADDR,
and everybody is refused. `lend` gives it that option, and then the kernel lets another socket that has it too, as
servers have on POSIX systems, be bound to the port and listen; once that listens, nobody else can. The kernel asks for
the option at each bind, so that it works on a socket that is bound already, and picks no port that is held for others.

Elsewhere two sockets cannot share a port like that: `lend` lets go of it, and `take_back` takes it again. A server that
is bound without SO_REUSEADDR needs the same on Linux (`yield_port`).
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("PortUnavailable", "Reservation", "reserve", "url_of", "who_holds")

# A port that is free on one address of a host name may be taken on its other one; two in a row is rare already.
_TRIES = 20
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where a server that listens on every address is reached
_LISTEN = "0A"  # in /proc/net/tcp
_EXCLUSIVE: int = getattr(socket, "SO_EXCLUSIVEADDRUSE", -5)  # Windows only; it is defined as ~SO_REUSEADDR
# Windows says the second when the one who has the port wants it for itself.
_TAKEN = frozenset({errno.EADDRINUSE, 10048})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, 10013})
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, 10049, 10047})


class PortUnavailable(Exception):
    """Raised when a service cannot have its port; its text is the whole reason, for people.

    Attributes:
        host: Where.
        port: Which; 0 for any.
        taken: Whether somebody has it, so that `who_holds` may know who.
    """

    def __init__(self, host: str, port: int, problem: str, *, taken: bool = False) -> None:
        super().__init__(problem)
        self.host = host
        self.port = port
        self.taken = taken


def reserve(host: str, port: int) -> Reservation:
    """Take a port.

    Args:
        host: An address of this machine or a name of one; all addresses that a name has are taken.
        port: Which; 0 for one that nobody has.

    Raises:
        PortUnavailable: If it is taken, or cannot be had here.
    """
    return Reservation(host, port)


class Reservation:
    """A port that is held until `close`; not thread-safe.

    Attributes:
        host: As it was asked for.
        port: The port.
        address: Where a server that listens on the host is reached: an address, never a name.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        bind: Callable[[str, int], socket.socket] | None = None,
        shares: bool = sys.platform == "linux",
    ) -> None:
        self.host = host
        self._bind = _bind if bind is None else bind
        self._shares = shares
        self._closed = False
        self._shared = False  # the child may have it too
        self._sockets: list[socket.socket] = []
        self._addresses = _resolve(host, port)
        self.port = port
        for _ in range(_TRIES):
            try:
                self.port = self._take(port)
                break
            except PortUnavailable as error:
                if port or not error.taken:
                    raise
        else:
            raise PortUnavailable(host, 0, f"found no port that is free on every address of {host}")
        self.address = _ANY.get(self._addresses[0], self._addresses[0])

    @property
    def url(self) -> str:
        """Where a web server that listens there is reached."""
        return url_of(self.host, self.port)

    @property
    def held(self) -> bool:
        """Whether a socket is bound to the port here."""
        return bool(self._sockets)

    def lend(self) -> None:
        """Let the child that is started next have the port; nothing when it was lent already.

        Raises:
            PortUnavailable: If somebody took it meanwhile, which cannot happen where the port is shared.
        """
        if self._closed:
            return
        if not self._sockets:
            self._take(self.port)
        if self._shares:
            self._share(True)
        else:
            self._release()

    def take_back(self) -> None:
        """Keep everybody from the port, once nothing is left of the child; what fails is told by the next `lend`."""
        if self._closed:
            return
        if self._sockets:
            if self._shared:
                self._share(False)
            return
        try:
            self._take(self.port)
        except PortUnavailable:
            pass  # most often something of the system's own, which lets go of it in a moment

    def yield_port(self) -> bool:
        """From the next `lend` on let go of the port, for a server that cannot share one; say whether that is new.

        Its start failed because the address was in use: by the socket here.
        """
        new, self._shares = self._shares, False
        return new

    def close(self) -> None:
        """Let go of the port for good."""
        self._closed = True
        self._release()

    def _take(self, port: int) -> int:
        """Bind a socket to each address that this machine has, and return the port."""
        taken: list[socket.socket] = []
        problem: PortUnavailable | None = None
        try:
            for address in self._addresses:
                try:
                    taken.append(self._bind(address, port))
                except OSError as error:
                    problem = _explain(error, self.host, port)
                    # `localhost` may mean ::1 on a machine that has no IPv6.
                    if error.errno not in _NOT_HERE:
                        raise problem from None
                else:
                    port = taken[-1].getsockname()[1]
            if problem is not None and not taken:
                raise problem
        except BaseException:
            for each in taken:
                each.close()
            raise
        self._sockets = taken
        return port

    def _share(self, on: bool) -> None:
        self._shared = on
        for each in self._sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, on)

    def _release(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets = []
        self._shared = False


def url_of(host: str, port: int) -> str:
    """Return where a browser finds a web server that listens there."""
    name = _ANY.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def who_holds(host: str, port: int) -> str:
    """Say which process has a port, as far as this user may know; empty when not. It looks at all processes.

    What is bound and does not listen, another supervisor's reservation for instance, is in no list.
    """
    found: list[tuple[Any, int | None]] = []
    try:
        found += [(entry, entry.pid) for entry in psutil.net_connections(kind="tcp")]
    except (psutil.Error, OSError):
        for process in psutil.process_iter():  # macOS shows an ordinary user only the user's own
            try:
                found += [(entry, process.pid) for entry in process.net_connections(kind="tcp")]
            except (psutil.Error, OSError):
                continue
    addresses = {*_addresses_of(host), *_ANY}
    here = [
        (entry.status != psutil.CONN_LISTEN, pid)
        for entry, pid in found
        if pid and entry.laddr and entry.laddr.port == port and (host in _ANY or entry.laddr.ip in addresses)
    ]
    if not here:
        return ""
    _, holder = min(here)  # one that listens, else one whose connection is in the way
    try:
        return f"process {holder} ({psutil.Process(holder).name()})"
    except psutil.Error:
        return f"process {holder}"


def _addresses_of(host: str) -> list[str]:
    try:
        return _resolve(host, 0)
    except PortUnavailable:
        return []


def _resolve(host: str, port: int) -> list[str]:
    """Return the addresses that a host has, each once."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PortUnavailable(host, port, f"{host!r} is not the name of a machine: {text}") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _explain(error: OSError, host: str, port: int) -> PortUnavailable:
    if error.errno in _TAKEN:
        return PortUnavailable(host, port, f"port {port} of {host} is taken", taken=True)
    if error.errno in _FORBIDDEN:
        return PortUnavailable(host, port, f"port {port} of {host} is not allowed to this user: {error.strerror}")
    if error.errno in _NOT_HERE:
        return PortUnavailable(host, port, f"{host} is no address of this machine: {error.strerror}")
    return PortUnavailable(host, port, f"port {port} of {host} cannot be had: {error.strerror or error}")


def _bind(address: str, port: int) -> socket.socket:
    """Return a socket that is bound to the port and keeps everybody else from it."""
    if sys.platform == "linux":
        return _bind_strictly(address, port)
    if sys.platform == "win32":
        try:
            return _bound(address, port, _EXCLUSIVE)
        except OSError as error:
            # Connections of a server that has just ended keep a port from one who wants it exclusively.
            if not port or error.errno not in _TAKEN | _FORBIDDEN:
                raise
            return _bound(address, port)
    # There such a bind is refused all the same when the address is taken, but not for connections that have ended.
    return _bound(address, port, socket.SO_REUSEADDR)


def _bind_strictly(address: str, port: int) -> socket.socket:
    try:
        return _bound(address, port)
    except OSError as error:
        # Connections of a server that ended up to a minute ago are in the way too, and must not be; only a socket that
        # can share passes them. But that would also share a port with another supervisor's reservation.
        if error.errno not in _TAKEN or not port or not _has_connections(port):
            raise
    bound = _bound(address, port, socket.SO_REUSEADDR)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, False)
    return bound


def _bound(address: str, port: int, option: int | None = None) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if option is not None:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind((address, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _has_connections(port: int) -> bool:
    """Whether the kernel still knows connections to a port on this machine, and nobody who listens on it."""
    states = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(os.path.join("/proc/net", name), encoding="ascii") as file:
                lines = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        states |= {fields[3] for fields in lines if int(fields[1].rpartition(":")[2], 16) == port}
    return bool(states) and _LISTEN not in states
