"""Jobs that leave processes behind on purpose; run as a program, a host that has eight of them and is to be killed."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import json
import os
import signal
import subprocess
import sys
import time

from orchestrator import Job, Supervisor, child
from orchestrator.exceptions import LaunchError

# What ignores every request to end, in a session of its own, and holds the pipes of who started it.
_STUBBORN = "trap '' TERM INT HUP; echo $$; exec sleep 1000 >&2"
_WORKERS = 8


def start_stubborn(*, session: bool = True) -> int:
    """Start a process that ignores signals, and return its pid when it does."""
    process = subprocess.Popen(["sh", "-c", _STUBBORN], stdout=subprocess.PIPE, start_new_session=session)
    assert process.stdout is not None
    return int(process.stdout.readline())


def daemonise() -> int:
    """Start a daemon as daemons start: forked twice, in a session of its own, its parent gone; return its pid."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            os.write(writing, str(os.getpid()).encode())
            while True:
                signal.pause()
        os._exit(0)
    os.wait()
    pid = int(os.read(reading, 20))
    os.close(reading)
    os.close(writing)
    return pid


def hold() -> None:
    """Busy, with a process beside it that will not go."""
    child.emit([start_stubborn(), daemonise()])
    while True:
        time.sleep(1)


def hold_the_lock() -> None:
    """Busy in C code that does not let go of the interpreter: no other thread of this process runs any more."""
    child.emit([start_stubborn()])
    time.sleep(0.2)  # what was emitted leaves through another thread
    ctypes.PyDLL(None).sleep(1000)


def take_no_hint() -> None:
    """Go on whatever is raised in here."""
    for seconds in (0, *[1] * 1000):
        try:
            if not seconds:
                child.emit(os.getpid())
            time.sleep(seconds)
        except BaseException:
            continue


def leave_a_group_member() -> int:
    """Leave a process in the child's own group that ignores every request to end."""
    return start_stubborn(session=False)


def leave_one_and_hang_at_exit() -> int:
    """The same, and only a signal ends this child: no thread of it hears anything any more."""
    atexit.register(ctypes.PyDLL(None).sleep, 1000)
    return start_stubborn(session=False)


def pid() -> int:
    """Return the child's own."""
    return os.getpid()


def ignore_everything() -> int:
    """Let nothing but a kill end this child."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    atexit.register(ctypes.PyDLL(None).sleep, 1000)
    return os.getpid()


def fork_two_hundred() -> None:
    """Become two hundred processes, in as many groups and sessions as there are, and stay."""
    for number in range(200):
        if os.fork() == 0:
            if number % 3 == 0:
                os.setsid()
            elif number % 3 == 1:
                os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
    child.emit(os.getpid())
    while True:
        time.sleep(1)


def _say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def _fork_siblings() -> list[int]:
    """Fork as multiprocessing does: copies of this process, file descriptors and all, that live on."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    found = []
    for _ in range(2):
        process = context.Process(target=signal.pause)
        process.start()
        found.append(process.pid)
    return [each for each in found if each]


async def _host(mode: str) -> None:
    """Start a supervisor with eight jobs, say so, and wait to be killed."""
    from orchestrator import _guardian

    guardians: list[_guardian.Guardian] = []
    births: list[dict[str, object]] = []
    born = _guardian.Guardian.born

    async def note(self: _guardian.Guardian, birth: object) -> None:
        if self not in guardians:
            guardians.append(self)
        births.append({name: getattr(birth, name) for name in ("pid", "started", "marker", "temp")})
        await born(self, birth)  # type: ignore[arg-type]

    _guardian.Guardian.born = note  # type: ignore[method-assign]
    if mode == "unguarded":

        def refuse() -> None:
            raise LaunchError("there is no guardian here")

        _guardian._launch.describe_guardian = refuse  # type: ignore[attr-defined]
    _say(opening=os.getpid())
    if mode == "importing":
        # Each child stays in the import of its job's module, which says so in a file.
        async with Supervisor(workers=_WORKERS) as supervisor:
            for _ in range(_WORKERS):
                await supervisor.submit(Job("imported_for_ever:anything"))
            await asyncio.sleep(1000)
    target = hold_the_lock if mode in ("lock", "unguarded") else hold
    async with Supervisor(workers=_WORKERS, grace=0.2) as supervisor:
        handles = [await supervisor.submit(f"surviving:{target.__name__}") for _ in range(_WORKERS)]
        strays: list[int] = []
        for handle in handles:
            async for event in handle.events():
                if event.kind == "item":
                    strays += event.value
                    break
        siblings = _fork_siblings() if mode == "siblings" else []
        _say(
            workers=[worker.pid for worker in supervisor.statistics().workers],
            strays=strays,
            siblings=siblings,
            guardian=guardians[0].pid,
            births=births,
        )
        # Another guardian, if somebody kills this one.
        first = guardians[0].pid
        while guardians[0].pid in (first, None):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        _say(guardian=guardians[0].pid)
        await asyncio.sleep(1000)


if __name__ == "__main__":
    asyncio.run(_host(sys.argv[1]))
