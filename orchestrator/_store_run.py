"""One run's entry in the journal, and what earlier runs left."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from orchestrator._store_payloads import lost, outsourced
from orchestrator._store_retention import LAST_FENCE, LAST_JOB
from orchestrator._store_rows import OpenJob, StoredAttempt, StoredBirth, StoredEffect, StoredJob

if TYPE_CHECKING:
    from orchestrator._store_file import JournalDatabase

# Open jobs that are read at once.
SLICE = 500
# Seconds by which the time of boot may differ where it is all there is: it follows the clock's corrections.
_CLOCK_STEP = 60.0


class Left(NamedTuple):
    """What a run begins with; the open jobs are read as they are asked for."""

    run_id: str
    same_boot: bool
    births: list[StoredBirth]
    last_job: int
    last_fence: int
    meta: dict[str, str]


def boot_identity() -> str:
    """Return what is the same for all processes between two starts of the machine, or of the container."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            # Process numbers of another namespace say nothing here, although the machine is the same.
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{sys.platform}:{psutil.boot_time():.0f}"


def is_same_boot(one: str, other: str) -> bool:
    """Return whether two runs were on one machine without a start between them."""
    if one == other:
        return True
    first, _, began = one.partition(":")
    second, _, also = other.partition(":")
    return bool(began and also) and first == second and abs(float(began) - float(also)) <= _CLOCK_STEP


def begin_run(database: JournalDatabase) -> Left:
    """Enter this run, and return what earlier ones left.

    Raises:
        sqlite3.Error: If the disk does not take it.
    """
    connection = database.connection
    boot, run_id = boot_identity(), uuid.uuid4().hex
    boots = dict(connection.execute("SELECT id, boot FROM runs ORDER BY number").fetchall())
    births = [
        StoredBirth(marker, run, is_same_boot(boots.get(run, ""), boot), *rest)
        for marker, run, *rest in connection.execute(
            "SELECT marker, run, name, worker, generation, pid, started, temp FROM births WHERE ended IS NULL"
        ).fetchall()
    ]
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    (last_job,) = connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
    (last_fence,) = connection.execute("SELECT coalesce(max(fence), 0) FROM attempts").fetchone()
    connection.execute(
        "INSERT INTO runs (id, boot, host, platform, pid, started) VALUES (?, ?, ?, ?, ?, ?)",
        (run_id, boot, socket.gethostname(), f"Python {sys.version} on {sys.platform}", os.getpid(), time.time()),
    )
    return Left(
        run_id=run_id,
        same_boot=bool(boots) and is_same_boot([*boots.values()][-1], boot),
        births=births,
        last_job=max(last_job, int(meta.pop(LAST_JOB, "0"))),
        last_fence=max(last_fence, int(meta.pop(LAST_FENCE, "0"))),
        meta=meta,
    )


def end_run(database: JournalDatabase, run_id: str) -> None:
    """Say that a run ended with all it was told recorded, and leave nothing in the log.

    Raises:
        sqlite3.Error: If the disk does not take it.
    """
    database.connection.execute("UPDATE runs SET ended=?, clean=1 WHERE id=?", (time.time(), run_id))
    database.checkpoint()


def read_open_jobs(database: JournalDatabase, after: int, last: int) -> tuple[list[OpenJob], int | None]:
    """Return the next jobs without an outcome, and after which number to go on, if there are more.

    Args:
        database: The journal.
        after: Number of the job that came last.
        last: The highest number that is asked for.

    Raises:
        sqlite3.Error, OSError: If the disk does not give it.
    """
    # Each in one row: every row that is fetched may wait five milliseconds for Python's lock.
    jobs = _json(
        database,
        "json_array(id, identity, key, target, CAST(head AS TEXT), CAST(body AS TEXT), options, effects, priority, "
        "hex(hash), attempts, deaths, suspect, printf('%!.17g', created), files)",
        f"(SELECT * FROM jobs WHERE status IS NULL AND id > ? AND id <= ? ORDER BY id LIMIT {SLICE})",
        (after, last),
    )
    if not jobs:
        return [], None
    span = (jobs[0][0], jobs[-1][0])
    attempts: dict[int, StoredAttempt] = {}
    for row in _json(
        database,
        "json_array(job, fence, number, worker, generation, state, outcome, certificate, refunded)",
        "(SELECT attempts.* FROM attempts JOIN jobs ON jobs.id=attempts.job WHERE jobs.status IS NULL "
        "AND job BETWEEN ? AND ? ORDER BY job, fence)",
        span,
    ):
        latest = StoredAttempt(*row)  # of a job the last one stays
        attempts[latest.job] = latest._replace(refunded=bool(latest.refunded))
    effects: dict[int, list[StoredEffect]] = {}
    for row in _json(
        database,
        "json_array(job, key, phase, fence, ref)",
        "(SELECT * FROM effects WHERE job BETWEEN ? AND ? ORDER BY job, key)",
        span,
    ):
        effects.setdefault(row[0], []).append(StoredEffect(*row))
    found = []
    for row in jobs:
        try:
            job = _job(database, row)
        except OSError as error:
            # What it is to be called with is gone. That is its outcome; the other jobs are not to wait for a file.
            database.connection.execute(
                "UPDATE jobs SET status='failed', error=?, settled=? WHERE id=?",
                (lost(row[0], error), time.time(), row[0]),
            )
            continue
        found.append(OpenJob(job, attempts.get(job.id), tuple(effects.get(job.id, ()))))
    return found, jobs[-1][0] if len(jobs) == SLICE else None


def _json(database: JournalDatabase, columns: str, source: str, parameters: tuple[int, int]) -> list[list[Any]]:
    text = database.connection.execute(f"SELECT json_group_array({columns}) FROM {source}", parameters).fetchone()[0]
    rows: list[list[Any]] = json.loads(text)
    return rows


def _job(database: JournalDatabase, row: list[Any]) -> StoredJob:
    number, identity, key, target, head, body, options, effects, priority, digest, *rest, files = row
    attempts, deaths, suspect, created = rest
    if files is not None:
        head, body = outsourced(database.payloads, files, head=head, body=body)
    return StoredJob(
        number, identity, key, target, head.encode(), body.encode(), options, effects, priority, bytes.fromhex(digest),
        attempts, deaths, bool(suspect), float(created),
    )  # fmt: skip
