"""The right to a profile's folder: one browser at a time may have it open."""

from __future__ import annotations

import os
import socket
import sys

import psutil

from orchestrator_adapters.playwright._errors import LaunchFailed

_LEASE = ".orchestrator-lease"


class Lease:
    """Holds a profile; the system takes it back when this process dies.

    Args:
        folder: The profile's folder; made if it is not there.

    Raises:
        LaunchFailed: With `reason="profile_locked"`, if another browser or job has it.
    """

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        # Looked at first: Chromium would open a window of the browser that has the profile, and end.
        owner = _browser_with(folder)
        if owner is not None:
            raise _locked(folder, f"process {owner} has it open")
        self._file = os.open(os.path.join(folder, _LEASE), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._file)
        except OSError:
            os.close(self._file)
            raise _locked(folder, "another job has it open") from None

    def close(self) -> None:
        """Give it back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _locked(folder: str, detail: str) -> LaunchFailed:
    remedy = "close that browser, or give each job a profile of its own"
    return LaunchFailed(f"the profile {folder!r} is in use, {detail}: {remedy}", "profile_locked")


def _browser_with(folder: str) -> int | None:
    """Return the process that has the profile open, as far as Chromium's own lock tells."""
    try:
        # A link to `host-pid`; left behind by a browser that was killed, so the process is looked at.
        host, _, pid = os.readlink(os.path.join(folder, "SingletonLock")).rpartition("-")
    except OSError:
        return None
    if host != socket.gethostname() or not pid.isdigit() or int(pid) == 0:
        return None
    try:
        process = psutil.Process(int(pid))
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        # The number may be that of anything by now.
        return int(pid) if os.path.realpath(folder) in " ".join(process.cmdline()) else None
    except psutil.Error:
        return None


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
