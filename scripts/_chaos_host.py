"""The host of the chaos run, a program of its own: has the jobs run with a journal, and notes what it is told."""

from __future__ import annotations

import _sqlite3
import argparse
import asyncio
import ctypes
import faulthandler
import hashlib
import json
import os
import signal
import sys
import time
from typing import Any

import _chaos_jobs
import psutil
import structlog

from orchestrator import Job, JobHandle, Journal, Outcome, RestartPolicy, Supervisor
from orchestrator.exceptions import JobError

# Of jobs that were told in an earlier life so many are asked for again: the journal must say the same.
_ASK_AGAIN = 0.02
_TWICE = 0.01
_WINDOW = 300
# Between two looks at its own size.
_VITALS = 0.25
# Children that are replaced after so many jobs take with them what jobs left.
MAX_JOBS = 400
# Not all could be run: the next one shall go on.
EXIT_AGAIN = 75


class Log:
    """A file to which lines are added whole."""

    def __init__(self, folder: str, name: str) -> None:
        self._fd = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *values: Any) -> None:
        """Add one JSON list."""
        os.write(self._fd, json.dumps(values, default=str).encode() + b"\n")


def digest(value: Any) -> str:
    """Return what tells two values apart."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


class Host:
    """One life of the program."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._seed: int = options.seed
        self._life: int = options.life
        self._count: int = options.jobs
        self._folder: str = options.folder
        self._told = Log(self._folder, "told")
        self._accepted = Log(self._folder, "accepted")
        self._vitals = Log(self._folder, "vitals")
        self._window = asyncio.Semaphore(_WINDOW)
        self._outcomes = 0
        self._refused = 0

    async def run(self, workers: int) -> int:
        """Submit what was not told yet, wait for all, and return the exit code."""
        known = self._known()
        supervisor = Supervisor(
            workers=workers,
            name="chaos",
            concurrency=4,
            max_jobs=MAX_JOBS,
            grace=0.2,
            restart=RestartPolicy(backoff=0.05, max_backoff=0.5, max_restarts=200, cooldown=0.5),
            journal=Journal(os.path.join(self._folder, "journal")),
        )
        async with asyncio.TaskGroup() as tasks:
            async with supervisor:
                self._vitals.write("opened", time.time(), self._life, os.getpid())
                watching = tasks.create_task(self._watch(supervisor))
                async with asyncio.TaskGroup() as waiting:
                    for number in range(self._count):
                        if number % 50 == 0 and self._is_stopped():
                            break
                        await self._submit(supervisor, number, known, waiting)
            watching.cancel()
        self._vitals.write("closed", time.time(), self._life, os.getpid())
        return EXIT_AGAIN if self._refused else 0

    def _is_stopped(self) -> bool:
        return os.path.exists(os.path.join(self._folder, "stop"))

    def _known(self) -> set[int]:
        found = set()
        with open(os.path.join(self._folder, "told"), encoding="utf-8") as file:
            for line in file:
                found.add(int(json.loads(line)[0].rpartition("-")[2]))
        return found

    async def _submit(self, supervisor: Supervisor, number: int, known: set[int], tasks: asyncio.TaskGroup) -> None:
        # What happens to a job may differ from life to life; that of each life follows from the seed.
        chance = _chaos_jobs.chance(self._seed, self._life, number)
        if number in known and chance >= _ASK_AGAIN:
            return
        job = _chaos_jobs.make(self._seed, number)
        for _ in range(2 if chance < _TWICE else 1):
            await self._window.acquire()
            handle = await supervisor.submit(job)
            self._accepted.write(job.key, self._life)
            tasks.create_task(self._hear(job, handle, cancel=_chaos_jobs.is_cancelled(chance)))

    async def _hear(self, job: Job, handle: JobHandle, *, cancel: bool) -> None:
        if cancel:
            await asyncio.sleep(0.02)
            handle.cancel()
        outcome = await handle.outcome()
        self._window.release()
        if isinstance(outcome.error, JobError) or outcome.succeeded:
            self._outcomes += 1
            self._told.write(job.key, str(outcome.status), digest(outcome.value), outcome.job_id, self._life, cancel)
        else:
            # Nobody ran it: the pool was broken, say. In the journal it is open.
            self._refused += 1
            self._accepted.write("refused", job.key, self._life, _story(outcome))

    async def _watch(self, supervisor: Supervisor) -> None:
        own = psutil.Process()
        while True:
            rss, fds = own.memory_info().rss, _descriptors()
            now = supervisor.statistics()
            done = sum(now.settled.values())
            cache = _pages()
            self._vitals.write("alive", time.time(), self._life, done, rss - cache, fds, cache, now.restarts, now.state)
            await asyncio.sleep(_VITALS)


def _pages() -> int:
    """Return the bytes that SQLite has: its page cache fills up to 16 MiB, however long that takes, and no further."""
    try:
        used = ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used
    except (OSError, AttributeError):
        return 0  # it keeps its symbols to itself
    used.restype = ctypes.c_longlong
    return int(used())


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _story(outcome: Outcome) -> str:
    return f"{outcome.status}: {type(outcome.error).__name__}: {outcome.error}"


def _log_to(folder: str, life: int) -> None:
    file = open(os.path.join(folder, "events"), "a", buffering=1, encoding="utf-8")  # noqa: SIM115

    def write(logger: Any, level: str, event: structlog.types.EventDict) -> str:
        # What jobs print is of no interest; what a child says for itself may tell why it died.
        if event["event"] == "child.line_written" and (event.get("job") or event["text"].startswith("y")):
            raise structlog.DropEvent
        event.pop("exc_info", None)
        return json.dumps({"at": time.time(), "life": life, "level": level, **event}, default=str)

    structlog.configure(
        processors=[structlog.processors.format_exc_info, write], logger_factory=structlog.WriteLoggerFactory(file)
    )


def main() -> int:
    """Run one life."""
    parser = argparse.ArgumentParser(prog="_chaos_host.py", description=__doc__)
    parser.add_argument("folder")
    for name in ("seed", "life", "jobs", "workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    if sys.platform != "win32":
        faulthandler.register(signal.SIGUSR1)  # asked by whoever finds that it hangs
    _log_to(options.folder, options.life)

    async def run() -> int:
        return await Host(options).run(options.workers)

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
