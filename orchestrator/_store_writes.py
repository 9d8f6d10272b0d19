"""Write a batch in one transaction, with a fixed number of statements whatever the number of rows.

Each statement makes the thread wait for Python's lock when it returns, for up to five milliseconds when the event loop
is busy. So rows go in by the thousand, as one VALUES list; sizes are rounded up, so that few statements are prepared.
"""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from orchestrator._faults import FAULTS, strike
from orchestrator._store_batch import LARGE
from orchestrator._store_payloads import lost, outsourced, remove_unused
from orchestrator._store_rows import Known, StoredOutcome

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from orchestrator._store_batch import Batch
    from orchestrator._store_file import JournalDatabase
    from orchestrator._store_payloads import Payloads

# Rows of one statement. SQLite takes 32,766 parameters; what is rounded up is NULL, and left out by every statement.
_SIZES = (1, 4, 16, 64, 256, 1024)

_JOB = "id,identity,key,target,head,body,options,effects,priority,hash,attempts,deaths,suspect,created"
_OUTCOME = "status,value,typed,error,attempts,deaths,seconds,worker"

_NEW_JOB = (
    f"INSERT INTO jobs ({_JOB},files) SELECT * FROM ({{values}}) WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING"
)
# With jobs that begin and end in the batch; attempts and deaths are the outcome's, which come last.
_NEW_OR_WHOLE_JOB = (
    "INSERT INTO jobs (id,identity,key,target,head,body,options,effects,priority,hash,suspect,created,"
    f"{_OUTCOME},settled,files) SELECT * FROM ({{values}}) WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING"
)
_UPDATE = (
    "UPDATE jobs SET attempts=v.column2, deaths=v.column3, suspect=v.column4 FROM ({values}) AS v "
    "WHERE jobs.id=v.column1 AND jobs.status IS NULL"
)
# A cancelled job is not done: whoever submits it again has it run, as a new one.
_SETTLE = (
    "UPDATE jobs SET identity=CASE WHEN v.column2 IN ('cancelled','expired') THEN NULL ELSE identity END, "
    "status=v.column2, value=v.column3, typed=v.column4, error=v.column5, attempts=v.column6, "
    "deaths=v.column7, seconds=v.column8, worker=v.column9, settled=v.column10, "
    "options=CASE WHEN v.column12 IS NULL THEN options ELSE json_set(options,'$.ran',json(v.column12)) END, "
    "files=CASE WHEN v.column11 IS NULL THEN files ELSE json_patch(coalesce(files,'{{}}'), v.column11) END "
    "FROM ({values}) AS v WHERE jobs.id=v.column1 AND jobs.status IS NULL"
)
_ATTEMPT = (
    "INSERT INTO attempts SELECT v.* FROM ({values}) AS v JOIN jobs ON jobs.id=v.column1 WHERE true "
    "ON CONFLICT DO UPDATE SET number=excluded.number, worker=excluded.worker, generation=excluded.generation, "
    "state=excluded.state, outcome=excluded.outcome, certificate=excluded.certificate, refunded=excluded.refunded"
)
_EFFECT = (
    "INSERT INTO effects SELECT v.* FROM ({values}) AS v JOIN jobs ON jobs.id=v.column1 WHERE true "
    "ON CONFLICT DO UPDATE SET phase=excluded.phase, fence=excluded.fence, ref=excluded.ref"
)
_BIRTH = (
    "INSERT INTO births (marker,name,worker,generation,pid,started,temp,run) SELECT * FROM ({values}) "
    "WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING"
)
_BURIAL = (
    "UPDATE births SET ended=v.column2, certificate=v.column3 FROM ({values}) AS v "
    "WHERE births.marker=v.column1 AND births.ended IS NULL"
)
_META = (
    "INSERT INTO meta SELECT * FROM ({values}) WHERE column1 IS NOT NULL ON CONFLICT DO UPDATE SET value=excluded.value"
)
# One row, for each row that is fetched is one more wait for Python's lock.
_KNOWN = (
    "SELECT json_group_array(json_array(v.column2, jobs.id, hex(jobs.hash), jobs.status, jobs.value, jobs.typed, "
    "jobs.error, jobs.attempts, jobs.deaths, jobs.seconds, jobs.worker, jobs.files, "
    "json_extract(jobs.options,'$.ran')||'')) "
    "FROM ({values}) AS v "
    "JOIN jobs ON jobs.identity=v.column1 WHERE jobs.id<>v.column2"
)


class _Statements:
    """The texts of the statements, made once for each size."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, int], str] = {}

    def text(self, statement: str, width: int, size: int) -> str:
        found = self._texts.get((statement, size))
        if found is None:
            row = f"({','.join('?' * width)})"
            found = statement.format(values=f"VALUES {','.join([row] * size)}")
            self._texts[statement, size] = found
        return found


_statements = _Statements()


def _execute(
    connection: sqlite3.Connection, statement: str, rows: Iterable[Sequence[object]], width: int
) -> list[sqlite3.Cursor]:
    """Run a statement over rows, a thousand at a time."""
    rest = iter(rows)
    cursors = []
    while taken := list(islice(rest, _SIZES[-1])):
        size = next(size for size in _SIZES if size >= len(taken))
        parameters = [*chain.from_iterable(taken), *[None] * (width * (size - len(taken)))]
        cursors.append(connection.execute(_statements.text(statement, width, size), parameters))
    return cursors


def write(database: JournalDatabase, batch: Batch, run_id: str, now: float) -> dict[int, Known]:
    """Commit a batch; return what was known already, by the number of the job that was not written for it.

    Raises:
        sqlite3.Error: If the disk does not take it; then none of it is written.
        OSError: Likewise.
    """
    if batch.is_empty:
        return {}
    connection = database.connection
    jobs, width, settled, files = _rows(batch, database.payloads)
    if FAULTS:
        if batch.outcomes:
            strike("C8")
        if batch.births:
            strike("C14")
    connection.execute("BEGIN IMMEDIATE")
    try:
        known = _write(connection, batch, run_id, now, jobs, width, settled)
        if FAULTS:
            strike("C12")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite may have rolled it back itself
            connection.execute("ROLLBACK")
        raise
    if FAULTS:
        if batch.jobs:
            strike("C2")
        if any(row.state in ("leased", "started") for row in batch.attempts.values()):
            strike("C3")
        if any(row.phase == "begun" for row in batch.effects.values()):
            strike("C6")
    found = {number: _known(row, database.payloads) for number, *row in known}
    if found and files:
        remove_unused(connection, database.payloads, files)
    return found


def _rows(batch: Batch, payloads: Payloads) -> tuple[list[Any], int, list[Any], set[str]]:
    """Return the rows of jobs and how wide they are, those of outcomes, and the files made for them."""
    made: set[str] = set()

    def outsource(column: str, content: bytes, names: dict[str, str]) -> None:
        names[column] = payloads.write(content)
        made.add(names[column])

    jobs: list[Any] = []
    settled: list[Any] = []
    outcomes = batch.outcomes
    # All in one statement, in the order of the calls: of two with one identity the first is the job.
    has_whole = not outcomes.keys().isdisjoint(batch.jobs)
    for job in batch.jobs.values():
        files: dict[str, str] = {}
        if batch.has_large:
            if len(job.head) > LARGE:
                outsource("head", job.head, files)
                job = job._replace(head=b"")
            if len(job.body) > LARGE:
                outsource("body", job.body, files)
                job = job._replace(body=b"")
        if not has_whole:
            jobs.append((*job, _names(files)))
            continue
        outcome, when = outcomes.get(job.id, (None, None))
        if outcome is None:
            end: tuple[Any, ...] = (None, None, None, None, job.attempts, job.deaths, None, None)
        else:
            end = (_without_large(outcome, files, outsource) if batch.has_large else outcome)[:-1]
            job = job._replace(options=_with_ran(job.options, outcome.ran))
            if outcome.status in ("cancelled", "expired"):
                job = job._replace(identity=None)
        jobs.append((*job[:10], job.suspect, job.created, *end, when, _names(files)))
    for number, (outcome, when) in outcomes.items():
        if number not in batch.jobs:
            files = {}
            outcome = _without_large(outcome, files, outsource) if batch.has_large else outcome
            settled.append((number, *outcome[:-1], when, _names(files), outcome.ran))
    return jobs, 22 if has_whole else 15, settled, made


def _with_ran(options: str, ran: str | None) -> str:
    if ran is None:
        return options
    rest = options[1:].lstrip()
    return f'{{"ran":{ran}{"" if rest == "}" else ","}{rest}'


def _names(files: dict[str, str]) -> str | None:
    return json.dumps(files, separators=(",", ":")) if files else None


def _without_large(outcome: StoredOutcome, files: dict[str, str], outsource: Any) -> StoredOutcome:
    value, error = outcome.value, outcome.error
    if value is not None and len(value) > LARGE:
        outsource("value", value.encode("utf-8", "surrogatepass"), files)
        outcome = outcome._replace(value=None)
    if error is not None and len(error) > LARGE:
        outsource("error", error.encode("utf-8", "surrogatepass"), files)
        outcome = outcome._replace(error=None)
    return outcome


def _write(
    connection: sqlite3.Connection,
    batch: Batch,
    run_id: str,
    now: float,
    jobs: list[Any],
    width: int,
    settled: list[Any],
) -> list[list[Any]]:
    # First, for it may free an identity.
    _execute(connection, _SETTLE, settled, 12)
    _execute(connection, _NEW_JOB if width == 15 else _NEW_OR_WHOLE_JOB, jobs, width)
    _execute(connection, _ATTEMPT, batch.attempts.values(), 9)
    _execute(connection, _EFFECT, batch.effects.values(), 5)
    _execute(connection, _UPDATE, [(number, *used) for number, used in batch.updates.items()], 4)
    _execute(connection, _BIRTH, [(*row, run_id) for row in batch.births], 8)
    _execute(connection, _BURIAL, [(marker, now, text) for marker, text in batch.burials.items()], 3)
    _execute(connection, _META, batch.meta.items(), 2)
    identities = ((batch.jobs[number].identity, number) for number in batch.identified)
    cursors = _execute(connection, _KNOWN, identities, 2)
    return [row for cursor in cursors for row in json.loads(cursor.fetchone()[0])]


def _known(row: list[Any], payloads: Payloads) -> Known:
    number, digest, status, value, typed, error, attempts, deaths, seconds, worker, files, ran = row
    if status is None:
        return Known(number, bytes.fromhex(digest), None)
    if files is not None:
        try:
            value, error = outsourced(payloads, files, value=value, error=error)
        except OSError as problem:
            # It is committed: to try again would help nobody.
            status, value, error = "failed", None, lost(number, problem)
    outcome = StoredOutcome(status, value, bool(typed), error, attempts, deaths, seconds, worker, ran)
    return Known(number, bytes.fromhex(digest), outcome)
