"""The rows of a run's journal, and the few statements that write and read many of them at once.

Each statement makes its thread wait for Python's lock when it returns, and each row that is fetched once more, for up
to five milliseconds when the event loop is busy. So rows go in as one VALUES list and come out as one JSON text.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from orchestrator_adapters.batch._classes import CLASSES
from orchestrator_adapters.batch._encode import json_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Sequence

# Rows of one statement. SQLite takes 32,766 parameters; what is rounded up is NULL, and left out by every statement.
_SIZES = (1, 4, 16, 64, 256, 1024)

_COLUMNS = "number,hash,place,value,class,failure,attempts,usage,seconds,inline"
_END = f"INSERT INTO records ({_COLUMNS}) SELECT * FROM ({{values}}) WHERE column1 IS NOT NULL"
_TRY = (
    "INSERT INTO tries (number,sequence,hash,attempts,charged,throttles,class,error,message,usage,seconds) "
    "SELECT * FROM ({values}) WHERE column1 IS NOT NULL"
)
# Bytes of values that are read at once.
_MOST_READ = 4 * 2**20


class EndRow(NamedTuple):
    """A record that is done, as `records` has it."""

    number: int
    hash: bytes
    place: str
    value: str | None
    failure_class: str | None
    failure: str | None
    attempts: int
    usage: str | None
    seconds: float
    inline: bool


class TryRow(NamedTuple):
    """A failed attempt that is followed by another one, as `tries` has it."""

    number: int
    sequence: int
    hash: bytes
    attempts: int
    charged: int
    throttles: int
    failure_class: str
    error: str
    message: str
    usage: str | None
    seconds: float


class KeptRow(NamedTuple):
    """A record that is found again at another place of a changed input."""

    number: int
    hash: bytes
    place: str


class Known(NamedTuple):
    """What an earlier run has of one record that is done."""

    number: int
    hash: str  # in hexadecimal
    failure_class: str | None
    attempts: int
    usage: str | None
    inline: bool


class Begun(NamedTuple):
    """What an earlier run has of one record that was tried and is not done."""

    number: int
    hash: str
    sequence: int
    attempts: int
    charged: int
    throttles: int
    usages: list[str | None]


_decode_known = msgspec.json.Decoder(list[Known]).decode
_decode_begun = msgspec.json.Decoder(list[Begun]).decode
_decode_values = msgspec.json.Decoder(list[tuple[int, str | None]]).decode
_decode_usage = msgspec.json.Decoder(dict[str, float | int]).decode
_texts: dict[tuple[str, int, int], str] = {}


def _text(statement: str, width: int, size: int) -> str:
    found = _texts.get((statement, width, size))
    if found is None:
        row = f"({','.join('?' * width)})"
        found = _texts[statement, width, size] = statement.format(values=f"VALUES {','.join([row] * size)}")
    return found


def _execute(connection: sqlite3.Connection, statement: str, rows: Iterable[Sequence[object]], width: int) -> None:
    rest = iter(rows)
    while taken := list(islice(rest, _SIZES[-1])):
        size = next(size for size in _SIZES if size >= len(taken))
        padding = [None] * (width * (size - len(taken)))
        connection.execute(_text(statement, width, size), [*chain.from_iterable(taken), *padding])


def write(
    connection: sqlite3.Connection, ends: Sequence[EndRow], tries: Sequence[TryRow], kept: Sequence[KeptRow]
) -> list[Known]:
    """Commit rows, all or none; return what those have that were kept.

    Raises:
        sqlite3.Error: If the disk does not take them.
    """
    if not tries and not kept and len(ends) <= _SIZES[-1]:
        _execute(connection, _END, ends, len(EndRow._fields))  # a transaction of its own
        return []
    connection.execute("BEGIN IMMEDIATE")
    try:
        _execute(connection, _END, ends, len(EndRow._fields))
        _execute(connection, _TRY, tries, len(TryRow._fields))
        found = [_adopt(connection, row) for row in kept]
        connection.execute("COMMIT")
        return found
    except BaseException:
        if connection.in_transaction:  # SQLite may have rolled it back itself
            connection.execute("ROLLBACK")
        raise


def _adopt(connection: sqlite3.Connection, row: KeptRow) -> Known:
    """Give a record the result that an equal one had."""
    query = "SELECT number,class,attempts,usage,inline FROM kept WHERE hash=? ORDER BY number LIMIT 1"
    number, failure_class, attempts, usage, inline = connection.execute(query, (row.hash,)).fetchone()
    columns = _COLUMNS.removeprefix("number,hash,place,")
    connection.execute(
        f"INSERT INTO records ({_COLUMNS}) SELECT ?,hash,?,{columns} FROM kept WHERE number=?",
        (row.number, row.place, number),
    )
    connection.execute("DELETE FROM kept WHERE number=?", (number,))
    return Known(row.number, row.hash.hex().upper(), failure_class, attempts, usage, bool(inline))


def usage_of(known: Known) -> dict[str, float] | None:
    """Return what a known record used."""
    return None if known.usage is None else _decode_usage(known.usage)


# What an earlier run left


def read_known(connection: sqlite3.Connection, first: int, most: int) -> list[Known]:
    """Return records that are done, in order, from a number on."""
    return _decode_known(
        _json(
            connection,
            "SELECT json_group_array(json_array(number,hex(hash),class,attempts,usage,"
            "json(iif(inline,'true','false')))) FROM (SELECT * FROM records WHERE number>=? ORDER BY number LIMIT ?)",
            (first, most),
        )
    )


def read_begun(connection: sqlite3.Connection) -> list[Begun]:
    """Return records that were tried and are not done."""
    return _decode_begun(
        _json(
            connection,
            "SELECT json_group_array(json_array(number,hash,sequence,attempts,charged,throttles,json(usages))) FROM ("
            "SELECT number, hex(max(hash)) AS hash, max(sequence) AS sequence, sum(attempts) AS attempts, "
            "max(charged) AS charged, max(throttles) AS throttles, json_group_array(usage) AS usages FROM tries "
            "WHERE number NOT IN (SELECT number FROM records) GROUP BY number)",
        )
    )


def read_kept(connection: sqlite3.Connection) -> list[int]:
    """Return the first eight bytes of the hash of each record that an earlier input had, as numbers in order."""
    text = _json(connection, "SELECT group_concat(hex(substr(hash,1,8))) FROM (SELECT hash FROM kept ORDER BY hash)")
    return [int(part, 16) for part in text.split(",")] if text else []


def read_values(connection: sqlite3.Connection, first: int, beyond: int, most: int) -> list[tuple[int, str | None]]:
    """Return numbers and values of records that are done, in order; None is the value of one that failed."""
    query = f"SELECT number,value FROM records WHERE number>={first} AND number<{beyond} ORDER BY number LIMIT {most}"
    sizes = f"SELECT number, sum(coalesce(length(value),4)) OVER (ORDER BY number) AS size, value FROM ({query})"
    # The first one is read however large it is.
    return _decode_values(
        _json(
            connection,
            f"SELECT json_group_array(json_array(number,value)) FROM ({sizes}) WHERE size<=? OR number=("
            f"SELECT min(number) FROM records WHERE number>={first})",
            (_MOST_READ,),
        )
    )


def read_failed(connection: sqlite3.Connection, after: int, most: int, classes: Collection[str] | None = None) -> Any:
    """Return failed records, in order, as lists of number, place, class, failure, attempts and usage."""
    among = "" if classes is None else f"AND class IN ({_quoted(classes)})"
    return msgspec.json.decode(
        _json(
            connection,
            "SELECT json_group_array(json_array(number,place,class,failure,attempts,usage)) "
            f"FROM (SELECT * FROM records WHERE class IS NOT NULL AND number>? {among} ORDER BY number LIMIT ?)",
            (after, most),
        )
    )


def read_meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what the journal says of its run."""
    text = _json(connection, "SELECT json_group_object(key,json(value)) FROM meta")
    found: dict[str, Any] = msgspec.json.decode(text)
    return found


def write_meta(connection: sqlite3.Connection, facts: dict[str, Any]) -> None:
    """Note facts of the run, JSON values by name."""
    rows = [(key, json_text(value)) for key, value in facts.items()]
    statement = "INSERT INTO meta SELECT * FROM ({values}) WHERE column1 IS NOT NULL ON CONFLICT DO UPDATE SET "
    _execute(connection, statement + "value=excluded.value", rows, 2)


def displace(connection: sqlite3.Connection, first: int) -> None:
    """Set records aside from a number on: the input is another one from there."""
    columns = _COLUMNS.removeprefix("number,")
    _transact(
        connection,
        # Their old numbers may be those of others that were set aside before.
        f"INSERT INTO kept ({columns}) SELECT {columns} FROM records WHERE number>={first} ORDER BY number",
        f"DELETE FROM records WHERE number>={first}",
        f"DELETE FROM tries WHERE number>={first}",
    )


def forget_kept(connection: sqlite3.Connection) -> None:
    """Drop records of earlier inputs that did not come again."""
    connection.execute("DELETE FROM kept")


def begin_anew(connection: sqlite3.Connection, facts: dict[str, Any]) -> None:
    """Forget everything, and note facts of the run that begins."""
    _transact(connection, *(f"DELETE FROM {table}" for table in ("records", "tries", "kept", "meta")))
    write_meta(connection, facts)


def retry_failed(connection: sqlite3.Connection, classes: Collection[str] | None = None) -> int:
    """Make failed records pending again, with all their attempts anew, and return how many.

    What their attempts have cost still counts.

    Args:
        connection: Of the journal.
        classes: Only those of these failure classes.
    """
    among = "class IS NOT NULL" if classes is None else f"class IN ({_quoted(classes)})"
    count = connection.execute(f"SELECT count(*) FROM records WHERE {among}").fetchone()[0]
    _transact(
        connection,
        f"DELETE FROM tries WHERE number IN (SELECT number FROM records WHERE {among})",
        "INSERT INTO tries SELECT number,1,hash,attempts,0,0,class,'','',usage,seconds FROM records "
        f"WHERE attempts>0 AND {among}",
        f"DELETE FROM records WHERE {among}",
    )
    return int(count)


def count_records(connection: sqlite3.Connection) -> tuple[int, dict[str, int]]:
    """Return how many records succeeded, and how many failed by class."""
    text = _json(
        connection,
        "SELECT json_group_object(class,n) FROM ("
        "SELECT coalesce(class,'') AS class, count(*) AS n FROM records GROUP BY 1)",
    )
    counts: dict[str, int] = msgspec.json.decode(text)
    return counts.pop("", 0), counts


def _quoted(classes: Collection[str]) -> str:
    return ",".join(f"'{name}'" for name in classes if name in CLASSES) or "NULL"


def _transact(connection: sqlite3.Connection, *statements: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _json(connection: sqlite3.Connection, statement: str, parameters: Sequence[object] = ()) -> str:
    text: str | None = connection.execute(statement, parameters).fetchone()[0]
    return text or ""
