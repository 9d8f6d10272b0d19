"""A journal that no supervisor uses at the moment: look into it, and decide what becomes of quarantined jobs."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from orchestrator._store_file import open_journal
from orchestrator._store_payloads import outsourced
from orchestrator.exceptions import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

_COLUMNS = (
    "id, key, identity, target, CAST(head AS TEXT), CAST(body AS TEXT), options, effects, priority, attempts, deaths, "
    "created, settled, discarded, error, seconds, worker, files"
)
_RELEASE = """
UPDATE jobs SET status=NULL, value=NULL, typed=NULL, error=NULL, seconds=NULL, worker=NULL, settled=NULL,
    discarded=NULL, attempts=0, deaths=0, suspect=0,
    files=CASE WHEN files IS NOT NULL THEN nullif(json_remove(files, '$.value', '$.error'), '{}') END
WHERE id=? AND status='quarantined'
"""
_DISCARD = "UPDATE jobs SET discarded=? WHERE id=? AND status='quarantined' AND discarded IS NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedJob:
    """A job that was given up because it kills children.

    Attributes:
        call: What it is called with: `target`, `args`, `kwargs`, `init`, as the children got them.
        options: The rest of the job.
        effects: Its effects class, and those effects that were begun.
        deaths: Children that died while they ran it.
        created: Wall clock, as the other times.
        error: What its caller got, as data.
        attempts: Of all runs, in order, with the death certificates.
        platform: Python and system of the run that gave it up.
    """

    id: int
    key: str | None
    identity: str | None
    target: str
    call: dict[str, Any]
    options: dict[str, Any]
    effects: str
    begun: list[dict[str, Any]]
    priority: int
    deaths: int
    created: float
    settled: float
    discarded: float | None
    error: dict[str, Any]
    attempts: list[dict[str, Any]]
    platform: str

    @property
    def certificates(self) -> list[dict[str, Any]]:
        """The death certificates, oldest first."""
        return [each["certificate"] for each in self.attempts if each["certificate"] is not None]

    @property
    def stderr(self) -> list[str]:
        """The last lines of the child that died last."""
        found = self.certificates[-1:] or [self.error.get("certificate") or {}]
        return list(found[0].get("stderr", ()))


class JournalFile:
    """A journal, taken for this process alone; a context manager.

    Args:
        path: The file; it must be there.
        create: Make a journal of it if it is empty, as a run leaves it that was killed while it made it.

    Raises:
        JournalInUse: On entering, if a supervisor uses it.
        JournalDamaged: On entering, if it is damaged or no journal.
        JournalError: On entering, if it cannot be opened; later, if a job is not what it must be.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self._create = create

    def __enter__(self) -> Self:
        self._database = open_journal(self.path, "power", create=self._create)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._database.close()

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are of each status; those without an outcome are `open`."""
        rows = self._database.connection.execute(
            "SELECT CASE WHEN discarded IS NULL THEN coalesce(status, 'open') ELSE 'discarded' END AS kind, count(*) "
            "FROM jobs GROUP BY kind ORDER BY kind"
        )
        return dict(rows.fetchall())

    def meta(self, key: str) -> str | None:
        """Return what a program of its own recorded under a name."""
        row = self._database.connection.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def open_identities(self) -> list[str | None]:
        """Return the identities of the jobs without an outcome."""
        return [row[0] for row in self._database.connection.execute("SELECT identity FROM jobs WHERE status IS NULL")]

    def call_of(self, identity: str) -> tuple[bytes, bytes] | None:
        """Return the hash of the job with an identity, and its arguments as JSON members (empty if they are large)."""
        row = self._database.connection.execute("SELECT hash, body FROM jobs WHERE identity=?", (identity,)).fetchone()
        return None if row is None else (bytes(row[0]), bytes(row[1]))

    def quarantined(self) -> Iterator[QuarantinedJob]:
        """Yield the jobs that somebody has to decide on, oldest first."""
        numbers = self._database.connection.execute(
            "SELECT id FROM jobs WHERE status='quarantined' AND discarded IS NULL ORDER BY id"
        ).fetchall()
        for (number,) in numbers:
            yield self.job(number)

    def job(self, number: int) -> QuarantinedJob:
        """Return one quarantined job, discarded or not.

        Raises:
            JournalError: If there is none with this number.
        """
        connection = self._database.connection
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE id=? AND status='quarantined'", (number,)
        ).fetchone()
        if row is None:
            raise self._no_such(number)
        id, key, identity, target, head, body, options, effects, priority, _, deaths, *rest = row
        created, settled, discarded, error, _, _, files = rest
        if files is not None:
            try:
                head, body, error = outsourced(self._database.payloads, files, head=head, body=body, error=error)
            except OSError as problem:
                raise JournalError(self.path, f"lacks a file of job {number}: {problem}; restore it") from problem
        platform = connection.execute(
            "SELECT platform FROM runs WHERE started <= ? ORDER BY number DESC LIMIT 1", (settled,)
        ).fetchone()
        return QuarantinedJob(
            id=id,
            key=key,
            identity=identity,
            target=target,
            call=json.loads("{" + head + body + "}"),
            options=json.loads(options),
            effects=effects,
            begun=self._effects(number),
            priority=priority,
            deaths=deaths,
            created=created,
            settled=settled,
            discarded=discarded,
            error=json.loads(error) if error else {},
            attempts=self._attempts(number),
            platform=platform[0] if platform else "",
        )

    def release(self, numbers: Sequence[int]) -> None:
        """Make quarantined jobs open again, with all their attempts: the next run begins with them. All or none.

        Raises:
            JournalError: If one of them is not quarantined.
        """
        with self._transaction():
            for number in numbers:
                self._change(number, _RELEASE, (number,), "release")

    def discard(self, numbers: Sequence[int]) -> None:
        """Give quarantined jobs up for good: they stay quarantined, are listed no more, and go in time. All or none.

        Raises:
            JournalError: If one of them is not quarantined, or was discarded before.
        """
        with self._transaction():
            for number in numbers:
                self._change(number, _DISCARD, (time.time(), number), "discard")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._database.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise JournalError(self.path, f"cannot be changed: {error}; make room, then try again") from error
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _change(self, number: int, statement: str, parameters: tuple[object, ...], verb: str) -> None:
        connection = self._database.connection
        before = connection.execute("SELECT attempts, deaths, error FROM jobs WHERE id=?", (number,)).fetchone()
        if not connection.execute(statement, parameters).rowcount:
            raise self._no_such(number)
        detail = json.dumps({"attempts": before[0], "deaths": before[1], "error": before[2], "pid": os.getpid()})
        connection.execute(
            "INSERT INTO audit (at, verb, job, detail) VALUES (?, ?, ?, ?)", (time.time(), verb, number, detail)
        )

    def _attempts(self, number: int) -> list[dict[str, Any]]:
        rows = self._database.connection.execute(
            "SELECT number, worker, generation, state, outcome, certificate, refunded FROM attempts "
            "WHERE job=? ORDER BY fence",
            (number,),
        ).fetchall()
        names = ("number", "worker", "generation", "state", "outcome", "certificate", "refunded")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        for each in found:
            each["certificate"] = None if each["certificate"] is None else json.loads(each["certificate"])
            each["refunded"] = bool(each["refunded"])
        return found

    def _effects(self, number: int) -> list[dict[str, Any]]:
        rows = self._database.connection.execute(
            "SELECT key, phase, ref FROM effects WHERE job=? ORDER BY key", (number,)
        ).fetchall()
        return [
            {"key": key, "phase": phase, "ref": None if ref is None else json.loads(ref)} for key, phase, ref in rows
        ]

    def _no_such(self, number: int) -> JournalError:
        row = self._database.connection.execute("SELECT status, discarded FROM jobs WHERE id=?", (number,)).fetchone()
        if row is None:
            problem = "there is no such job"
        elif row[0] is None:
            problem = "it is open"
        elif row[1] is not None:
            problem = "it was discarded"
        else:
            problem = f"it ended as {row[0]}"
        return JournalError(
            self.path,
            f"has no job {number} in quarantine: {problem}; `orchestrator quarantine list` has those that are",
        )
