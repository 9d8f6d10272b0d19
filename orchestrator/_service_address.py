"""Where one service is found: its port, reserved once, lent to each of its processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from orchestrator import _port
from orchestrator.exceptions import LaunchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

# What servers, and systems, say of a port that somebody has.
_TAKEN = ("address already in use", "eaddrinuse", "only one usage of each socket address")


class Address:
    """A host with a port perhaps.

    Args:
        host: As the service's author wrote it.
        wanted: The port that is wanted, or None.
        in_thread: Runs a blocking function in a thread.
    """

    def __init__(
        self, host: str, wanted: int | Literal["auto"] | None, in_thread: Callable[..., Awaitable[Any]]
    ) -> None:
        self.host = host
        self._wanted = wanted
        self._in_thread = in_thread
        self._reservation: _port.Reservation | None = None
        self._closed = False

    @property
    def port(self) -> int | None:
        """The port, once it is reserved."""
        return None if self._reservation is None else self._reservation.port

    @property
    def url(self) -> str | None:
        """Where people find it."""
        return None if self._reservation is None else self._reservation.url

    @property
    def numeric(self) -> str:
        """Where it listens, as an address that nobody has to look up."""
        return "" if self._reservation is None else self._reservation.address

    @property
    def is_there(self) -> bool:
        """Whether there is nothing to reserve any more."""
        return self._wanted is None or self._reservation is not None

    async def reserve(self) -> str:
        """Take the port, for as long as the service is there; returns why that is not possible."""
        if self.is_there:
            return ""
        try:
            # Kept by the thread itself: `close` finds it also when nobody waits for that any more.
            await self._in_thread(self._take)
        except _port.PortUnavailable as error:
            return await self._explain(error)
        return ""

    def _take(self) -> None:
        found = _port.reserve(self.host, 0 if self._wanted in (None, "auto") else int(self._wanted))
        self._reservation = found
        if self._closed:
            found.close()

    async def _explain(self, error: _port.PortUnavailable) -> str:
        holder = await self._in_thread(_port.who_holds, error.host, error.port) if error.taken else ""
        return f"{error} by {holder}" if holder else str(error)

    async def lend(self) -> None:
        """Let the process that is started next have the port.

        Raises:
            LaunchError: If somebody took it meanwhile, where it cannot be kept.
        """
        if self._reservation is not None:
            try:
                self._reservation.lend()
            except _port.PortUnavailable as error:
                raise LaunchError(await self._explain(error)) from error

    def take_back(self) -> None:
        """Keep it from everybody, now that the process is gone with all that it started."""
        if self._reservation is not None:
            self._reservation.take_back()

    def gave_way(self, stderr: Sequence[str]) -> bool:
        """Return whether a process could not have its port because it minds that we are bound to it, and now can."""
        said = "\n".join(stderr).lower()
        return (
            self._reservation is not None and any(words in said for words in _TAKEN) and self._reservation.yield_port()
        )

    def close(self) -> None:
        """Let go of it for good."""
        self._closed = True
        if self._reservation is not None:
            self._reservation.close()
