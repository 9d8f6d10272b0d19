"""What a kill set knows of one process, and what it asks of an operating system."""

from __future__ import annotations

from typing import NamedTuple, Protocol

# In a child's environment: the marker of its generation, and those of the children that this one is nested in.
MARKER = "ORCHESTRATOR_MARKER"
OUTER_MARKERS = "ORCHESTRATOR_OUTER_MARKERS"


class Identity(NamedTuple):
    """A process that cannot be mistaken for a later one with the same number.

    Attributes:
        pid: Its number.
        started: When it started, in seconds of the clock that `_killset.now` reads.
    """

    pid: int
    started: float


class Process(NamedTuple):
    """One process as a scan saw it; group and session are 0 where there is no such thing.

    Attributes:
        alive: False of a zombie: it runs nothing any more, but its numbers are not free yet.
        uid: Who it belongs to, or -1.
    """

    pid: int
    started: float
    parent: int
    group: int
    session: int
    alive: bool
    uid: int = -1

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.started)


class System(Protocol):
    """The operating system, as far as killing needs it.

    No method raises for a process that is gone or not ours; whatever signals checks the identity first.

    Attributes:
        tick: Resolution of start times, in seconds.
        parents_last: Whether a process keeps its parent's number when the parent has ended (Windows), so that the
            number may meanwhile be another's.
    """

    tick: float
    parents_last: bool

    def now(self) -> float:
        """Return the time on the clock of `Identity.started`."""

    def look(self, pid: int) -> Process | None:
        """Return one process, zombie or not."""

    def children(self, pid: int) -> list[int]:
        """Return the children of a process, without looking at all processes if that can be had."""

    def reaped(self, pid: int) -> int | None:
        """Return a number that grows when a process hears of the end of its children; None if it cannot be had."""

    def table(self) -> dict[int, Process]:
        """Return all processes, zombies included."""

    def marks(self, process: Process) -> list[bytes] | None:
        """Return the markers in a process's environment; None when it cannot be read (yet)."""

    def is_changing(self, process: Process) -> bool:
        """Return whether a process has no environment for the moment: it is between two programs, or at its end."""

    def stop(self, identity: Identity) -> None:
        """Freeze a process, so that it starts no further one."""

    def kill(self, identity: Identity) -> None:
        """Kill a process."""

    def kill_group(self, leader: Identity) -> None:
        """Kill the process group that a process leads, at one blow; nothing if it leads none or was reaped."""

    def terminate_group(self, leader: Identity) -> None:
        """Ask the process group that a process leads to end."""

    def wait_gone(self, identity: Identity, timeout: float) -> bool:
        """Wait until a process has ended (a zombie has); return whether it did."""
