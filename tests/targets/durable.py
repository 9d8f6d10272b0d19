"""A program that runs keyed jobs with a journal, to be killed at any point and started again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from orchestrator import Job, Journal, RetryPolicy, Supervisor, child


def note(path: str, line: str) -> None:
    """Add one line to a file, whole."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


def double(path: str, number: int) -> int:
    """Note that it runs, and return twice the number."""
    note(path, f"ran {number}")
    return 2 * number


def publish(path: str, number: int) -> str:
    """Make one outside effect, whichever attempt this is."""
    note(path, f"entered {number}")
    effect = child.effect_begin("post")
    if not effect.done:
        note(path, f"published {number}")
        child.effect_done("post", number)
    return f"post {number}"


def once(path: str, number: int) -> int:
    """Note that it runs."""
    note(path, f"once {number}")
    return number


def is_published(key: str | None, path: str, number: int) -> bool:
    """Look the effect up."""
    with open(path, encoding="utf-8") as file:
        return f"published {number}\n" in file


def slow(path: str, number: int) -> int:
    """Take long if this is one of the first two that run at all."""
    note(path, f"slow {number}")
    with open(path, encoding="utf-8") as file:
        time.sleep(60 if len(file.readlines()) <= 2 else 0)
    return number


def jobs(log: str, count: int, kind: str) -> list[Job]:
    """Return the jobs of one run, the same in each."""
    target = {"double": double, "publish": publish, "once": once, "reconciled": publish, "slow": slow}[kind]
    effects = {"publish": "external", "reconciled": "external", "once": "at_most_once"}.get(kind, "pure")
    return [
        Job(
            target,
            args=(log, number),
            key=f"job-{number}",
            effects=effects,  # type: ignore[arg-type]
            reconcile=is_published if kind == "reconciled" else None,
            retry=None if kind == "once" else RetryPolicy(attempts=5, on="crash", backoff=0.01),
        )
        for number in range(count)
    ]


async def main(journal: str, log: str, out: str, count: int, kind: str, durability: str) -> None:
    """Run the jobs, and note each outcome that this process was told of."""
    supervisor = Supervisor(workers=2, journal=Journal(journal, durability=durability), name="durable")  # type: ignore[arg-type]
    async with supervisor:
        note(out, f"opened {os.getpid()}")
        async with supervisor.map(jobs(log, count, kind)) as outcomes:
            async for outcome in outcomes:
                note(out, json.dumps([outcome.key, str(outcome.status), outcome.value, outcome.job_id]))
    note(out, "closed")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], sys.argv[6]))
