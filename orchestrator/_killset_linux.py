"""Processes on Linux: read from /proc, signalled through pidfds."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import contextmanager

from orchestrator._killset_process import MARKER, OUTER_MARKERS, Identity, Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

assert sys.platform == "linux", "nobody else imports this"  # type checkers for others stop reading here

_KERNEL_THREAD = 0x00200000
# From Linux 6.9 on a pidfd can stand for the group that its process leads.
_TO_GROUP = 4
# ARG_MAX is 2 MiB unless somebody raised the stack limit; a marker beyond it is not worth the memory.
_LONGEST_ENVIRONMENT = 4 * 2**20
_PREFIXES = tuple(f"\0{name}=".encode() for name in (MARKER, OUTER_MARKERS))


class LinuxSystem:
    """What /proc tells; start times are seconds since boot, which no change of the wall clock moves."""

    _ticks = os.sysconf("SC_CLK_TCK")
    tick = 1 / _ticks
    parents_last = False

    def __init__(self) -> None:
        own = os.getpid()
        self._lists_children = os.path.exists(f"/proc/{own}/task/{own}/children")

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def look(self, pid: int) -> Process | None:
        try:
            fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        except OSError:
            return None
        try:
            text = os.read(fd, 2048)
            uid = os.fstat(fd).st_uid
        except OSError:
            return None  # it was reaped between open and read
        finally:
            os.close(fd)
        # The name in parentheses may itself contain spaces and parentheses.
        fields = text[text.rfind(b")") + 2 :].split(None, 20)
        if len(fields) < 20 or int(fields[6]) & _KERNEL_THREAD:
            return None
        # The leader of a program whose other threads still run is shown as a zombie too: count the threads.
        alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1
        # Divided, as psutil does: the same start must be the same number, whoever looked.
        started = int(fields[19]) / self._ticks
        return Process(pid, started, int(fields[1]), int(fields[2]), int(fields[3]), alive, uid)

    def children(self, pid: int) -> list[int]:
        if not self._lists_children:  # a kernel built without that file
            return [process.pid for process in self.table().values() if process.parent == pid]
        found: list[int] = []
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                fd = os.open(f"/proc/{pid}/task/{thread}/children", os.O_RDONLY)
                try:
                    while text := os.read(fd, 65536):
                        found += map(int, text.split())
                finally:
                    os.close(fd)
        except (OSError, ValueError):
            return found  # it ended meanwhile
        return found

    def reaped(self, pid: int) -> int | None:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                # Page faults of the children that it waited for; every process has some.
                return int(file.read(2048).rpartition(b")")[2].split(None, 9)[8])
        except OSError:
            return None  # gone

    def table(self) -> dict[int, Process]:
        found: dict[int, Process] = {}
        for name in os.listdir("/proc"):
            if name.isdecimal():
                process = self.look(int(name))
                if process is not None:
                    found[process.pid] = process
        return found

    def marks(self, process: Process) -> list[bytes] | None:
        # Another user's environment is none of our business, even to root.
        if process.uid != os.geteuid():
            return None
        try:
            fd = os.open(f"/proc/{process.pid}/environ", os.O_RDONLY)
        except OSError:
            return None
        try:
            text = b"\0"
            while len(text) < _LONGEST_ENVIRONMENT and (more := os.read(fd, 65536)):
                text += more
        except OSError:
            return None
        finally:
            os.close(fd)
        if len(text) == 1:
            return None  # in the middle of an exec, perhaps: look again at the next scan
        found: list[bytes] = []
        for prefix in _PREFIXES:
            found += text.partition(prefix)[2].partition(b"\0")[0].split()
        return found

    def is_changing(self, process: Process) -> bool:
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                if file.read(1):
                    return False
            with open(f"/proc/{process.pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return False  # gone, or it shows nothing to us
        # Where its environment ends. An empty one has an address, too; none has it while its memory is set up or gone.
        return fields[0] not in (b"Z", b"X") and len(fields) > 48 and fields[48] == b"0"

    def stop(self, identity: Identity) -> None:
        self._signal(identity, signal.SIGSTOP)

    def kill(self, identity: Identity) -> None:
        self._signal(identity, signal.SIGKILL)

    def kill_group(self, leader: Identity) -> None:
        self._signal_group(leader, signal.SIGKILL)

    def terminate_group(self, leader: Identity) -> None:
        self._signal_group(leader, signal.SIGTERM)
        # A stopped process would not notice.
        self._signal_group(leader, signal.SIGCONT)

    @contextmanager
    def _open(self, identity: Identity) -> Iterator[tuple[int | None, Process | None]]:
        """Hold a pidfd (None if there can be none) and what the process is; (None, None) if it is gone.

        The identity is compared after the pidfd was opened: if it fits then, it fitted when the pidfd was opened, and
        what is sent through the pidfd can reach no later process of that number.
        """
        fd: int | None = None
        try:
            fd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            yield None, None
            return
        except (OSError, AttributeError):
            fd = None  # an old kernel, a sandbox, or no file descriptor left: the pid alone has to do
        try:
            process = self.look(identity.pid)
            yield fd, process if process is not None and process.started == identity.started else None
        finally:
            if fd is not None:
                os.close(fd)

    def _signal(self, identity: Identity, number: signal.Signals) -> None:
        with self._open(identity) as (fd, process):
            if process is None or not process.alive:
                return
            try:
                if fd is not None:
                    signal.pidfd_send_signal(fd, number)
                else:
                    os.kill(identity.pid, number)
            except OSError:
                return  # gone meanwhile, or another user's

    def _signal_group(self, leader: Identity, number: signal.Signals) -> None:
        # A zombie leader will do: until it is reaped nobody else can get its number.
        with self._open(leader) as (fd, process):
            if process is None or process.group != leader.pid or leader.pid == os.getpgrp():
                return  # gone, or it shares its group with others, perhaps with us
            if fd is not None:
                try:
                    signal.pidfd_send_signal(fd, number, None, _TO_GROUP)
                except OSError as error:
                    if not isinstance(error, ProcessLookupError | PermissionError):
                        fd = None  # before Linux 6.9
            if fd is None:
                try:
                    os.killpg(leader.pid, number)
                except OSError:
                    return

    def wait_gone(self, identity: Identity, timeout: float) -> bool:
        end = time.monotonic() + timeout
        with self._open(identity) as (fd, process):
            if process is None or not process.alive:
                return True
            if fd is not None:
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                return bool(poll.poll(max(0, timeout) * 1000))
        pause = 0.0005
        while True:
            process = self.look(identity.pid)
            if process is None or process.started != identity.started or not process.alive:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, 0.02)
