"""Windows Job Objects: one holds a child and all that it starts, and the kernel empties it when this process ends.

A job is stronger than what the kill set finds by itself: whatever a member starts is a member from its first
instruction, none can leave (nothing here allows breakaway), and all are ended by one call. The only handle is this
process's own and is not inherited, so that the kernel closes it when this process dies, however that happens; a job
that is closed kills its members. That is why no guardian is needed on Windows. Jobs nest (since Windows 8): a member
may put processes of its own into jobs of its own, as browsers do, and they stay in ours.

What can be outside: a process that somebody else started for a member (a service, the shell); and what the first
process of a child started before it was put in, which is why the process that says hello is put in as well.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Protocol

from orchestrator._wire import EXIT_KILLED

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Api", "JobObject", "JobObjects")


class Api(Protocol):
    """The calls of Windows that a job needs; those that can fail raise `OSError`."""

    def create(self) -> int:
        """Return the handle of a new job without a name, which nothing inherits."""

    def kill_on_close(self, job: int) -> None:
        """Have the kernel kill the members when the job's last handle is closed."""

    def open(self, pid: int) -> int:
        """Return a handle of a process, with the rights that `assign` needs."""

    def assign(self, job: int, process: int) -> None:
        """Put a process in."""

    def pids(self, job: int) -> list[int]:
        """Return the members that run."""

    def terminate(self, job: int, code: int) -> None:
        """End all members."""

    def close(self, handle: int) -> None:
        """Close a handle."""


class JobObject:
    """One Job Object; after `close` it has no members, and each method does nothing.

    Thread-safe: the loop may strike while a thread buries.

    Raises:
        OSError: If Windows refuses one.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._handle = api.create()
        try:
            api.kill_on_close(self._handle)
        except BaseException:
            self.close()
            raise

    def assign(self, pid: int, is_meant: Callable[[], bool] = lambda: True) -> None:
        """Put a process in, if it is not.

        Args:
            pid: Which.
            is_meant: Asked when the number cannot become another process's any more.

        Raises:
            OSError: If Windows refuses it: it ended, it has more rights than we, or its own job cannot be nested.
        """
        with self._lock:
            if not self._handle or pid in self._api.pids(self._handle):
                return
            process = self._api.open(pid)
            try:
                if is_meant():
                    self._api.assign(self._handle, process)
            finally:
                self._api.close(process)

    def pids(self) -> list[int]:
        """Return the members that run; none if Windows does not say."""
        with self._lock:
            try:
                return self._api.pids(self._handle) if self._handle else []
            except OSError:
                return []

    def terminate(self) -> None:
        """End all members at one blow, with an exit code that tells whose it was."""
        with self._lock:
            if self._handle:
                try:
                    self._api.terminate(self._handle, EXIT_KILLED)
                except OSError:
                    return  # one member has more rights than we: they are killed one by one

    def close(self) -> None:
        """Let go of the job; what is still in it is killed."""
        with self._lock:
            handle, self._handle = self._handle, 0
            if handle:
                self._api.close(handle)


class JobObjects:
    """Makes the jobs of a supervisor's children.

    Where that fails, children are killed by what `psutil` finds; that is logged once, and no child fails to start.

    Args:
        log: Logs for the supervisor.
        api: The calls of Windows; None on other systems.
    """

    def __init__(self, log: Callable[..., None], api: Api | None = None) -> None:
        self._log = log
        self._api = api or _API
        self._complained = False

    def hold(self, pid: int) -> JobObject | None:
        """Return a job with a process in it, or None."""
        if self._api is None:
            return None
        job: JobObject | None = None
        try:
            job = JobObject(self._api)
            job.assign(pid)
        except OSError as error:
            if job is not None:
                job.close()
            self.refused(error)
            return None
        return job

    def refused(self, error: OSError) -> None:
        """Say, once, that children are not held as they should be."""
        if not self._complained:
            self._complained = True
            self._log("child.not_in_job", "warning", detail=str(error))


_API: Api | None = None

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    # From <winnt.h>.
    _JOB_OBJECT_BASIC_PROCESS_ID_LIST = 3
    _JOB_OBJECT_EXTENDED_LIMIT_INFORMATION = 9
    _JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
    _PROCESS_TERMINATE = 0x0001
    _PROCESS_SET_QUOTA = 0x0100
    _ERROR_MORE_DATA = 234

    class _BasicLimits(ctypes.Structure):
        _fields_ = (
            ("per_process_user_time_limit", ctypes.c_int64),
            ("per_job_user_time_limit", ctypes.c_int64),
            ("limit_flags", wintypes.DWORD),
            ("minimum_working_set_size", ctypes.c_size_t),
            ("maximum_working_set_size", ctypes.c_size_t),
            ("active_process_limit", wintypes.DWORD),
            ("affinity", ctypes.c_size_t),
            ("priority_class", wintypes.DWORD),
            ("scheduling_class", wintypes.DWORD),
        )

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("basic", _BasicLimits),
            ("io_counters", ctypes.c_uint64 * 6),
            ("process_memory_limit", ctypes.c_size_t),
            ("job_memory_limit", ctypes.c_size_t),
            ("peak_process_memory_used", ctypes.c_size_t),
            ("peak_job_memory_used", ctypes.c_size_t),
        )

    class Kernel32:
        """The calls as kernel32.dll has them; each has its types declared, for a handle is wider than C's int."""

        def __init__(self) -> None:
            library = ctypes.WinDLL("kernel32", use_last_error=True)
            handle, dword, flag, pointer = wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, ctypes.c_void_p
            self._create = library.CreateJobObjectW
            self._create.argtypes, self._create.restype = (pointer, wintypes.LPCWSTR), handle
            self._set = library.SetInformationJobObject
            self._set.argtypes, self._set.restype = (handle, ctypes.c_int, pointer, dword), flag
            self._open = library.OpenProcess
            self._open.argtypes, self._open.restype = (dword, flag, dword), handle
            self._assign = library.AssignProcessToJobObject
            self._assign.argtypes, self._assign.restype = (handle, handle), flag
            self._query = library.QueryInformationJobObject
            self._query.argtypes = (handle, ctypes.c_int, pointer, dword, ctypes.POINTER(dword))
            self._query.restype = flag
            self._terminate = library.TerminateJobObject
            self._terminate.argtypes, self._terminate.restype = (handle, wintypes.UINT), flag
            self._close = library.CloseHandle
            self._close.argtypes, self._close.restype = (handle,), flag

        def create(self) -> int:
            return int(_checked(self._create(None, None)))

        def kill_on_close(self, job: int) -> None:
            limits = _ExtendedLimits()
            limits.basic.limit_flags = _JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
            size = ctypes.sizeof(limits)
            _checked(self._set(job, _JOB_OBJECT_EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), size))

        def open(self, pid: int) -> int:
            return int(_checked(self._open(_PROCESS_SET_QUOTA | _PROCESS_TERMINATE, False, pid)))

        def assign(self, job: int, process: int) -> None:
            _checked(self._assign(job, process))

        def pids(self, job: int) -> list[int]:
            room = 64
            while True:

                class Found(ctypes.Structure):
                    _fields_ = (
                        ("assigned", wintypes.DWORD),
                        ("listed", wintypes.DWORD),
                        ("pids", ctypes.c_size_t * room),
                    )

                found = Found()
                size = ctypes.sizeof(found)
                if self._query(job, _JOB_OBJECT_BASIC_PROCESS_ID_LIST, ctypes.byref(found), size, None):
                    return [int(pid) for pid in found.pids[: found.listed]]
                if ctypes.get_last_error() != _ERROR_MORE_DATA:
                    raise ctypes.WinError(ctypes.get_last_error())
                room = max(2 * room, found.assigned)

        def terminate(self, job: int, code: int) -> None:
            _checked(self._terminate(job, code))

        def close(self, handle: int) -> None:
            _checked(self._close(handle))

    def _checked(result: int | None) -> int:
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())
        return result

    _API = Kernel32()
