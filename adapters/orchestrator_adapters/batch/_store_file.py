"""Open a run's journal for this process alone, or say why that cannot be; one SQLite file, no lock files."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys

from orchestrator_adapters.batch._errors import RESUMABLE, USAGE, BatchError, reason

JOURNAL = "journal.db"
# "ORCB": says to `file` and to us that a database is the journal of a batch.
APPLICATION_ID = 0x4F524342
VERSION = 1
# Somebody who is just closing the journal is done by then; whoever is refused hears of it within a second.
_LOCK_SECONDS = 0.4
# STRICT tables and VALUES as tables.
_OLDEST_SQLITE = (3, 37, 0)
# Statements for every kind of row in every size; each is prepared once.
_STATEMENTS = 64

_RECORD = """
    number INTEGER PRIMARY KEY, -- of the record in the source, from 1
    hash BLOB NOT NULL,         -- of the record
    place TEXT NOT NULL,        -- where it stood in the source, for people
    value TEXT,                 -- JSON: what the handler returned; NULL if the record failed
    class TEXT,                 -- failure class; NULL if it succeeded
    failure TEXT,               -- JSON object: record, error, message
    attempts INTEGER NOT NULL,  -- all of them, by all runs
    usage TEXT,                 -- JSON object of sums over them
    seconds REAL NOT NULL,      -- of the last attempt
    inline INTEGER NOT NULL     -- whether that ran in the process of the batch
"""
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- A record that is done. One without a row here is pending.
CREATE TABLE records ({_RECORD}) STRICT;
CREATE INDEX records_failed ON records (number) WHERE class IS NOT NULL;

-- A failed attempt that is, or was, followed by another one.
CREATE TABLE tries (
    number INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    attempts INTEGER NOT NULL,  -- made in it: more than one when children crashed
    charged INTEGER NOT NULL,   -- attempts that count against the record's bound, after it
    throttles INTEGER NOT NULL, -- how often the record was throttled, after it
    class TEXT NOT NULL,
    error TEXT NOT NULL,
    message TEXT NOT NULL,
    usage TEXT,
    seconds REAL NOT NULL,
    PRIMARY KEY (number, sequence)
) STRICT, WITHOUT ROWID;

-- Records that are done, of an input that has changed since: those that come again keep their results.
CREATE TABLE kept ({_RECORD}) STRICT;
CREATE INDEX kept_by_hash ON kept (hash, number);
"""


def open_store(folder: str, *, create: bool = True) -> sqlite3.Connection:
    """Take the journal of a run for this process alone; the connection may be handed to one other thread.

    Args:
        folder: Of the run.
        create: Whether to make it if it is missing.

    Raises:
        BatchError: If another process has it (75), if the disk does not take it (75), or if it is damaged or of another
            kind (2); it is left as it is then.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise BatchError(f"a batch needs SQLite 3.37 or later, and this Python has {sqlite3.sqlite_version}")
    path = os.path.join(folder, JOURNAL)
    if not create and not os.path.isfile(path):
        raise BatchError(f"there is no run in {folder!r}: it has no {JOURNAL}")
    try:
        if create:
            _make_folder(folder)
            # Nobody else may read it from the first moment on; SQLite gives the log the same mode.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        text = f"the run's folder {folder!r} cannot be written: {reason(error)}; name another one, or make room"
        never = isinstance(error, NotADirectoryError | FileExistsError)  # a file is in its place
        raise BatchError(text, USAGE if never else RESUMABLE) from error
    connection = sqlite3.connect(
        path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS
    )
    try:
        _take(connection, path)
    except sqlite3.Error as error:
        refused = refusal(path, error)
        connection.close()
        raise refused from error
    except BaseException:
        connection.close()
        raise
    return connection


def _make_folder(folder: str) -> None:
    if os.path.isdir(folder):
        return
    os.makedirs(folder, exist_ok=True)
    # <root>/batch/<name>: what lies in the root is not for version control, whoever made the root.
    root = os.path.dirname(os.path.dirname(folder))
    with contextlib.suppress(FileExistsError), open(os.path.join(root, ".gitignore"), "x", encoding="ascii") as file:
        file.write("*\n")


def _take(connection: sqlite3.Connection, path: str) -> None:
    """Lock, check, and make the tables if there are none."""
    # Exclusive before anything looks at the file: the index of the log is then in memory, and there is no -shm file
    # that a second process could meet us in.
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    has_tables = bool(_one(connection, "SELECT count(*) FROM sqlite_schema"))
    application, version = _one(connection, "PRAGMA application_id"), _one(connection, "PRAGMA user_version")
    connection.execute("ROLLBACK")
    if has_tables or application:
        if application != APPLICATION_ID:
            raise BatchError(f"{path!r} is an SQLite database, but no journal of a batch; name another folder")
        if version != VERSION:
            raise BatchError(
                f"{path!r} has format {version}, and this version writes format {VERSION}; use the version that made "
                "it, or remove the folder to begin anew"
            )
        problem = _one(connection, "PRAGMA quick_check(1)")
        if problem != "ok":
            raise BatchError(f"{path!r} is damaged ({problem}); restore it, or remove its folder to begin anew")
    for pragma in (
        "journal_mode=WAL",
        # A commit survives the death of the process. After a power failure the file is whole, and may lack the last
        # seconds: those records are computed again. Waiting for the disk would cost each small commit milliseconds.
        "synchronous=NORMAL",
        "temp_store=MEMORY",
        "cache_size=-16384",  # 16 MiB
        "wal_autocheckpoint=2000",  # pages: the log stays below some 8 MiB
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    if not has_tables:
        # One transaction: a crash leaves an empty database or a journal.
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}; COMMIT"
        )


def _one(connection: sqlite3.Connection, statement: str) -> object:
    return connection.execute(statement).fetchone()[0]


def refusal(path: str, error: sqlite3.Error) -> BatchError:
    """Return what SQLite's error means to whoever runs a batch."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        who = holder(path)
        by = "this process" if who == os.getpid() else "another process" if who is None else f"process {who}"
        return BatchError(f"the run is in use by {by} ({path!r}); wait until that has ended", RESUMABLE)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return BatchError(f"{path!r} is damaged ({error}); restore it, or remove its folder to begin anew")
    if code == sqlite3.SQLITE_FULL:
        return BatchError(f"the disk is full: {path!r} takes no more; make room", RESUMABLE)
    return BatchError(f"the disk does not take {path!r}: {error}; look at the disk and its permissions", RESUMABLE)


def holder(path: str) -> int | None:
    """Return the process that has a file locked, where the system tells; opening the file could drop its locks."""
    if sys.platform == "win32":
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        found = os.stat(path)
        wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        with open("/proc/locks", encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if fields[5] == wanted and int(fields[4]) > 0:
                    return int(fields[4])
    return None
