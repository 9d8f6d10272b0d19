"""Open an SQLite file for one user alone, or say why that cannot be; nothing is changed in a file that is refused."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from orchestrator._store_payloads import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.exceptions import OrchestratorError

# STRICT tables; UPDATE FROM, VALUES as tables and upserts are older.
_OLDEST_SQLITE = (3, 37, 0)
# Somebody who is just closing the file is done by then; whoever is refused hears of it within a second.
_LOCK_SECONDS = 0.4
# SQLite's locks do not hold there, or only as long as the network does.
_NETWORK = frozenset(
    "afpfs afs cifs coda davfs fuse.davfs fuse.gcsfuse fuse.goofys fuse.rclone fuse.s3fs fuse.sshfs ncpfs nfs nfs3 "
    "nfs4 smb3 smbfs webdav".split()
)
# Statements for every kind of row in every size; each is prepared once.
_STATEMENTS = 256

_KEEP = "the file is left as it is; restore a backup, or name another file to begin anew"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is to hold.

    Attributes:
        what: In a word.
        application_id: Says so in the file.
        version: Of its tables; a file of a later one is refused.
        schema: Makes the tables.
        pragmas: Set when it is open.
        synced: Whether a new file must be on the disk when it is open.
        error: Makes what is raised of the path and the problem.
        in_use: Likewise, when another process or supervisor has it.
        damaged: Likewise, when it is damaged or something else.
    """

    what: str
    application_id: int
    version: int
    schema: str
    pragmas: tuple[str, ...]
    synced: bool
    error: Callable[[str, str], OrchestratorError]
    in_use: Callable[[str, str], OrchestratorError]
    damaged: Callable[[str, str], OrchestratorError]


@dataclass(slots=True)
class Database:
    """A file that this process has to itself.

    Attributes:
        path: Of the file, symbolic links resolved: the write-ahead log lies next to that.
        connection: In autocommit mode; used by one thread.
    """

    path: str
    connection: sqlite3.Connection

    @property
    def log_size(self) -> int:
        """Bytes of the write-ahead log."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    def checkpoint(self) -> None:
        """Bring the write-ahead log into the file, and make the log empty.

        Raises:
            sqlite3.Error: If the disk does not take it; the log stays, and nothing is lost.
        """
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close it; what is not checkpointed is in the log, where the next user finds it."""
        with contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()


def open_database(path: str, kind: Kind, has_files: Callable[[str], bool], *, create: bool = True) -> Database:
    """Take a file for this process alone.

    Args:
        path: The file.
        kind: What it is to hold.
        has_files: Returns whether files lie next to the (real) path that only belong to a file that is not empty.
        create: Whether to make it if it is missing.

    Raises:
        OrchestratorError: One of the kind's three.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise kind.error(path, f"needs SQLite 3.37 or later, and this Python has {sqlite3.sqlite_version}")
    real = os.path.realpath(path)
    _check_place(path, real, kind, create)
    try:
        if not os.path.exists(real):
            # Nobody else may read it from the first moment on; SQLite gives the log the same mode.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(
            real, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS
        )
    except (OSError, sqlite3.Error) as error:
        raise kind.error(path, f"cannot be opened: {error}; name a file in a folder that can be written") from error
    database = Database(real, connection)
    try:
        _take(database, path, kind, has_files, create)
    except BaseException:
        database.close()
        raise
    return database


def _check_place(path: str, real: str, kind: Kind, create: bool) -> None:
    folder = os.path.dirname(real)
    if os.path.isdir(real):
        raise kind.error(path, "is a folder; name a file")
    if not os.path.isdir(folder):
        raise kind.error(path, f"cannot be made: the folder {folder!r} does not exist; create it or name another file")
    if not os.path.exists(real) and not create:
        raise kind.error(path, "does not exist; check the path")
    if os.path.exists(real) and not os.path.isfile(real):
        raise kind.error(path, "is not a regular file; name another one")
    system = _file_system(folder)
    if system in _NETWORK:
        raise kind.error(
            path, f"is on a network file system ({system}), whose locks cannot be trusted; name a file on a local disk"
        )


def _file_system(folder: str) -> str:
    """Return the type of the file system that a folder is on; empty when nobody knows."""
    if sys.platform == "win32" and folder.startswith("\\\\") and not folder.startswith("\\\\?\\"):
        return "smbfs"
    best, kind = "", ""
    try:
        partitions = psutil.disk_partitions(all=True)
    except (OSError, psutil.Error):
        return ""
    for each in partitions:
        point = each.mountpoint.rstrip(os.sep)
        # Of several that are mounted at one place the last is the one that is seen.
        if (folder == point or folder.startswith(point + os.sep)) and len(point) >= len(best):
            best = point
            kind = "smbfs" if "remote" in each.opts.split(",") else each.fstype.lower()
    return kind


def _take(database: Database, path: str, kind: Kind, has_files: Callable[[str], bool], create: bool) -> None:
    """Lock, check, and make what is missing."""
    connection = database.connection
    is_empty = os.path.getsize(database.path) == 0
    if is_empty and (database.log_size or has_files(database.path)):
        # SQLite would throw the log away, for it belongs to no page of an empty file.
        raise kind.damaged(path, f"is empty, but its log or its files are not; {_KEEP}")
    if is_empty and not create:
        raise kind.damaged(path, f"is empty; {_KEEP}")
    try:
        # Exclusive before anything looks at the file: the index of the log is then in memory, and there is no -shm file
        # that a second process could meet us in.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA foreign_keys=ON")
        if is_empty:
            # It only does something before the first transaction, and would write to a file that has had one.
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("BEGIN EXCLUSIVE")
        has_tables = bool(_one(connection, "SELECT count(*) FROM sqlite_schema"))
        application, version = _one(connection, "PRAGMA application_id"), _one(connection, "PRAGMA user_version")
        connection.execute("ROLLBACK")
        if has_tables or application or version:
            _check_identity(path, kind, application, version)
            problem = _one(connection, "PRAGMA quick_check(1)")
            if problem != "ok":
                raise kind.damaged(path, f"is damaged ({problem}); {_KEEP}")
        elif not is_empty and not create:
            raise kind.damaged(path, f"is no {kind.what}; {_KEEP}")
        for pragma in kind.pragmas:
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if not has_tables:
            _create(connection, kind)
            if kind.synced:
                # A power failure may take what comes later; it is not to leave a file without tables.
                database.checkpoint()
                sync_folder(os.path.dirname(database.path))
    except OSError as error:
        raise kind.error(path, f"cannot be made: {error}; name a file on another disk") from error
    except sqlite3.Error as error:
        raise refusal(path, database.path, kind, error) from error


def _check_identity(path: str, kind: Kind, application: int, version: int) -> None:
    if application != kind.application_id:
        raise kind.damaged(path, f"is an SQLite database, but no {kind.what}; name another file")
    if version > kind.version:
        raise kind.damaged(
            path, f"was written by a later version (format {version}, known is {kind.version}); update this program"
        )


def _create(connection: sqlite3.Connection, kind: Kind) -> None:
    # One transaction: a crash leaves an empty database or a whole one.
    connection.executescript(
        f"BEGIN IMMEDIATE; {kind.schema} PRAGMA application_id={kind.application_id}; "
        f"PRAGMA user_version={kind.version}; COMMIT"
    )


def _one(connection: sqlite3.Connection, statement: str) -> Any:
    return connection.execute(statement).fetchone()[0]


def refusal(path: str, real: str, kind: Kind, error: sqlite3.Error) -> OrchestratorError:
    """Return what SQLite's error means for somebody who wants to open a file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        who = _holder(real)
        holder = "this process" if who == os.getpid() else "another process" if who is None else f"process {who}"
        return kind.in_use(
            path, f"is in use by another supervisor, in {holder}; wait until that has ended, or name another file"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return kind.damaged(path, f"is no {kind.what} ({error}); {_KEEP}")
    if code == sqlite3.SQLITE_CORRUPT:
        return kind.damaged(path, f"is damaged ({error}); {_KEEP}")
    return kind.error(path, f"cannot be used: {error}; name a file on a disk that has space and can be written")


def _holder(real: str) -> int | None:
    """Return the process that has a file locked, where the system tells; opening the file could drop its locks."""
    if sys.platform == "win32":
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        found = os.stat(real)
        wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        with open("/proc/locks", encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if fields[5] == wanted and int(fields[4]) > 0:
                    return int(fields[4])
    return None
