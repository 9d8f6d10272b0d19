"""Processes on macOS and Windows: seen and signalled through psutil."""

from __future__ import annotations

import os
import signal
import sys
import time

import psutil

from orchestrator._killset_process import MARKER, OUTER_MARKERS, Identity, Process


class PsutilSystem:
    """What psutil tells; start times are seconds since the epoch, as the kernel wrote them down at the start.

    A step of the wall clock moves no start time, but `now` against them: a job's moment may then be a little off.
    """

    # Windows stamps processes with a clock that ticks 64 times a second; macOS has microseconds.
    tick = 1 / 64
    parents_last = sys.platform == "win32"

    def now(self) -> float:
        return time.time()

    def look(self, pid: int) -> Process | None:
        try:
            return self._read(psutil.Process(pid))
        except (psutil.Error, OSError):
            return None

    def _read(self, process: psutil.Process) -> Process | None:
        started = self._started(process)
        try:
            alive = process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            parent = process.ppid()
        except psutil.ZombieProcess:
            alive, parent = False, 0
        except psutil.AccessDenied:
            alive, parent = True, 0
        group = session = 0
        uid = -1
        if sys.platform != "win32":
            try:
                group, session = os.getpgid(process.pid), os.getsid(process.pid)
                uid = process.uids().effective
            except (psutil.Error, OSError):
                pass  # another user's, or a zombie: its parent is all we know
        return Process(process.pid, started, parent, group, session, alive, uid)

    @staticmethod
    def _started(process: psutil.Process) -> float:
        # psutil corrects create_time() when the wall clock was set, so it changes in mid-life on macOS; what it
        # compares processes by does not.
        identity: tuple[int, float | None] = getattr(process, "_ident", (process.pid, None))
        return identity[1] or process.create_time()

    def children(self, pid: int) -> list[int]:
        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except (psutil.Error, OSError):
            return []

    def reaped(self, pid: int) -> int | None:
        return None

    def table(self) -> dict[int, Process]:
        found: dict[int, Process] = {}
        for pid in psutil.pids():
            try:
                handle = psutil.Process(pid)
                with handle.oneshot():
                    process = self._read(handle)
            except (psutil.Error, OSError):
                continue
            if process is not None:
                found[pid] = process
        return found

    def marks(self, process: Process) -> list[bytes] | None:
        if sys.platform != "win32" and process.uid != os.geteuid():
            return None
        try:
            environment = psutil.Process(process.pid).environ()
        except (psutil.Error, OSError):
            return None  # macOS hides it for programs of the system, Windows for those with more rights
        if not environment:
            return None
        return f"{environment.get(MARKER, '')} {environment.get(OUTER_MARKERS, '')}".encode(errors="replace").split()

    def is_changing(self, process: Process) -> bool:
        return False  # nobody tells

    def stop(self, identity: Identity) -> None:
        # Not on Windows: to suspend a process there is to suspend its threads one by one, from outside.
        if sys.platform != "win32":
            self._signal(identity, signal.SIGSTOP)

    def kill(self, identity: Identity) -> None:
        if sys.platform != "win32":
            self._signal(identity, signal.SIGKILL)
            return
        handle = self._find(identity)
        if handle is not None:
            try:
                handle.kill()
            except (psutil.Error, OSError):
                return  # gone meanwhile, or it has more rights than we

    def kill_group(self, leader: Identity) -> None:
        if sys.platform != "win32":
            self._signal_group(leader, signal.SIGKILL)

    def terminate_group(self, leader: Identity) -> None:
        if sys.platform != "win32":
            self._signal_group(leader, signal.SIGTERM)
            # A stopped process would not notice.
            self._signal_group(leader, signal.SIGCONT)
            return
        # CTRL_BREAK, the only request that Windows has, goes to who shares our console: children have one of their own.
        handle = self._find(leader)
        if handle is not None:
            try:
                handle.terminate()
            except (psutil.Error, OSError):
                return

    def _find(self, identity: Identity) -> psutil.Process | None:
        try:
            handle = psutil.Process(identity.pid)
            return handle if self._started(handle) == identity.started else None
        except (psutil.Error, OSError):
            return None

    def _signal(self, identity: Identity, number: signal.Signals) -> None:
        handle = self._find(identity)
        if handle is None:
            return
        try:
            handle.send_signal(number)
        except (psutil.Error, OSError):
            return  # gone meanwhile, or another user's

    def _signal_group(self, leader: Identity, number: signal.Signals) -> None:
        if sys.platform == "win32" or leader.pid == os.getpgrp():
            return
        # A zombie leader will do: until it is reaped nobody else can get its number.
        try:
            if self._find(leader) is not None and os.getpgid(leader.pid) == leader.pid:
                os.killpg(leader.pid, number)
        except OSError:
            return  # it was reaped meanwhile, or all that is left of the group are zombies (macOS: EPERM)

    def wait_gone(self, identity: Identity, timeout: float) -> bool:
        # Not psutil.Process.wait(): of our own children it would take the exit status from asyncio.
        end = time.monotonic() + timeout
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
