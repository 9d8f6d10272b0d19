"""The guardian process: waits until its supervisor is gone, then empties the kill sets that it was told of.

It reads lines of words from its stdin, and writes one, `armed`:

    supervisor PID STARTED          whom to watch; always the first
    born PID STARTED MARKER FOLDER  a child, its temp folder in hex
    buried PID STARTED              nothing is left of that child
    bye                             a planned end: leave, and do nothing

The supervisor is gone when the kernel says so, or when the pipe ends without a goodbye. Each alone would not do: a
process that the supervisor forked holds the pipe open as long as it lives, and a pid can be watched only while it is.

It starts beside the first child, which waits for the word `armed`: until then nothing may be imported that takes time.
"""

from __future__ import annotations

import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Watch(Protocol):
        """Waits for a line from the supervisor, or for its end."""

        def wait(self, timeout: float) -> tuple[bool, bool]:
            """Return whether there is something to read, or the end of it, and whether the supervisor is gone."""


# When nothing was said for so long, the first child is up and this process may take the time to import the rest: in
# time of peace, for when the supervisor is gone its files may be, too.
_QUIET = 0.25
_FOREVER = 3600.0
# Where only the parent's number tells whether it lives.
_ASK_AGAIN = 0.2
# A killed process that waits for a disk may take long; nobody waits for the guardian, but it shall not stay for ever.
_LONGEST_SWEEP = 10.0
# A path has at most 4,096 bytes; nobody who keeps to the protocol writes a longer line.
_LONGEST_LINE = 65_536

# Folders of one supervisor to remember: a second one is there when somebody has removed the first.
_FOLDERS = 4


class Ward:
    """One child, as its supervisor described it."""

    __slots__ = ("marker", "pid", "started", "temp")

    def __init__(self, pid: int, started: float, marker: str, temp: str) -> None:
        self.pid = pid
        self.started = started
        self.marker = marker
        self.temp = temp


class Ledger:
    """What the supervisor has said.

    Attributes:
        wards: Children that were born and not buried, by pid and start time.
        folders: Where the children's folders are; one, unless somebody removed it and the supervisor made another.
        supervisor: Its pid and start time, or None before the first line.
        dismissed: It has said goodbye.
    """

    def __init__(self) -> None:
        self.wards: dict[tuple[int, float], Ward] = {}
        self.folders: list[str] = []
        self.supervisor: tuple[int, float] | None = None
        self.dismissed = False
        self._rest = b""

    def read(self, data: bytes) -> None:
        """Take note of what came through the pipe."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            self._rest = b""
        for line in lines:
            match line.decode("ascii", "replace").split():
                case ["supervisor", pid, started]:
                    self.supervisor = int(pid), float(started)
                case ["born", pid, started, marker, folder]:
                    ward = Ward(int(pid), float(started), marker, os.fsdecode(bytes.fromhex(folder)))
                    self.wards[ward.pid, ward.started] = ward
                    self._note_folder(os.path.dirname(ward.temp))
                case ["buried", pid, started]:
                    self.wards.pop((int(pid), float(started)), None)
                case ["bye"]:
                    self.dismissed = True

    def _note_folder(self, folder: str) -> None:
        if folder not in self.folders:
            self.folders = [*self.folders[1 - _FOLDERS :], folder]


class PidfdWatch:
    """Linux: a file descriptor stands for the process, zombies count as gone."""

    def __init__(self, pid: int) -> None:
        system: Any = os  # not every system has what is used here, and type checkers know
        polls: Any = select
        self._fd: int = system.pidfd_open(pid)
        self._poll = polls.poll()
        for fd in (0, self._fd):
            self._poll.register(fd, polls.POLLIN)

    def wait(self, timeout: float) -> tuple[bool, bool]:
        ready = {fd for fd, _ in self._poll.poll(timeout * 1000)}
        return 0 in ready, self._fd in ready


class KqueueWatch:
    """macOS and the BSDs: the kernel's queue of events tells of the exit."""

    def __init__(self, pid: int, system: Any = select) -> None:
        self._system = system
        self._queue = system.kqueue()
        for ident, wanted, flags in (
            (0, system.KQ_FILTER_READ, 0),
            (pid, system.KQ_FILTER_PROC, system.KQ_NOTE_EXIT),
        ):
            self._queue.control([system.kevent(ident, wanted, system.KQ_EV_ADD, flags)], 0, 0)

    def wait(self, timeout: float) -> tuple[bool, bool]:
        seen = {event.filter for event in self._queue.control(None, 4, timeout)}
        return self._system.KQ_FILTER_READ in seen, self._system.KQ_FILTER_PROC in seen


class ParentWatch:
    """Elsewhere: whoever loses its parent gets another one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def wait(self, timeout: float) -> tuple[bool, bool]:
        ready = bool(select.select([0], [], [], min(timeout, _ASK_AGAIN))[0])
        return ready, os.getppid() != self._pid


class PipeWatch:
    """Where the supervisor is not even the parent (a loader stands between): the pipe alone tells."""

    def wait(self, timeout: float) -> tuple[bool, bool]:
        return bool(select.select([0], [], [], timeout)[0]), False


def watch(pid: int, started: float) -> Watch | None:
    """Return how to watch the supervisor, or None if it is gone already."""
    kind: type[PidfdWatch | KqueueWatch] | None = None
    if hasattr(os, "pidfd_open"):
        kind = PidfdWatch
    elif hasattr(select, "kqueue"):
        kind = KqueueWatch
    found: Watch | None = None
    if kind is not None:
        try:
            found = kind(pid)
        except ProcessLookupError:
            return None
        except OSError:
            found = None  # an old kernel, or a sandbox that forbids it
    # Asked after it was opened: if the pid is the supervisor's now, it was then.
    if os.getppid() == pid:
        return found or ParentWatch(pid)
    # No parent of ours any more, or never: its start time tells whether that pid is still the supervisor.
    from orchestrator._killset import KillSet

    if KillSet(pid, "", started=started).root_lives():
        return found or PipeWatch()
    return None


def main() -> None:
    """Be a guardian; returns never."""
    import _signal

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        # It ends when the supervisor does, and whoever ends all processes of a session or a service asks both at once.
        _signal.signal(getattr(_signal, name), _signal.SIG_IGN)
    ledger = Ledger()
    while ledger.supervisor is None:
        data = os.read(0, _LONGEST_LINE)
        if not data:
            os._exit(0)  # no supervisor, so no child either
        ledger.read(data)
    watcher = watch(*ledger.supervisor)
    try:
        os.write(1, b"armed\n")
    except OSError:
        watcher = None
    if watcher is not None:
        stand_by(ledger, watcher)
    if not ledger.dismissed:
        hear_the_rest(ledger)
    if not ledger.dismissed:
        empty(ledger)
    os._exit(0)


def stand_by(ledger: Ledger, watcher: Watch) -> None:
    """Listen until the supervisor is gone, or says goodbye."""
    timeout = _QUIET
    while not ledger.dismissed:
        readable, gone = watcher.wait(timeout)
        if gone:
            return
        if readable:
            data = os.read(0, _LONGEST_LINE)
            if not data:
                return
            ledger.read(data)
        elif timeout == _QUIET:
            prepare()
            timeout = _FOREVER


def prepare() -> None:
    """Import what will be needed."""
    from orchestrator import _leftovers  # noqa: F401

    if getattr(sys, "frozen", False):
        from orchestrator import _onefile  # noqa: F401


def hear_the_rest(ledger: Ledger) -> None:
    """Read what the supervisor said last, without waiting for the pipe's end: somebody may hold it open."""
    if sys.platform != "win32":
        os.set_blocking(0, False)
    try:
        while data := os.read(0, _LONGEST_LINE):
            ledger.read(data)
    except OSError:
        return


def empty(ledger: Ledger) -> None:
    """Kill the supervisor's children and all that they started, and remove their files."""
    from orchestrator import _leftovers
    from orchestrator.child import _orphan

    _leftovers.sweep_left_behind(ledger.wards.values(), _LONGEST_SWEEP)
    for folder in ledger.folders:
        _orphan.remove_tree(folder)
    if getattr(sys, "frozen", False):
        from orchestrator import _onefile

        _onefile.remove_unpacked()
