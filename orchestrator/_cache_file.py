"""What the cache keeps on a disk: a file for each large value, and, of a persistent one, the database of the rest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import sqlite3
import time
from typing import TYPE_CHECKING, NamedTuple

from orchestrator import _database
from orchestrator._cache_index import Content, Index, Removed
from orchestrator.exceptions import CacheDamaged, CacheError, CacheInUse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SCHEMA = """
CREATE TABLE contents (
    hash BLOB PRIMARY KEY,      -- SHA-256 of the kind, a NUL and the bytes
    kind TEXT NOT NULL,         -- json or bytes
    size INTEGER NOT NULL,
    value BLOB                  -- NULL when it is a file, whose name is the hash in hex
) STRICT;

CREATE TABLE entries (
    key BLOB PRIMARY KEY,       -- SHA-256 of the cache's name and the key, as JSON
    content BLOB NOT NULL,
    born REAL NOT NULL,         -- wall clock
    used REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""

_KIND = _database.Kind(
    what="cache",
    application_id=0x4F524343,  # "ORCC": says to `file` and to us what it is
    version=1,
    schema=_SCHEMA,
    pragmas=(
        "journal_mode=WAL",
        # Survives the end of any process; what a power failure takes is computed again.
        "synchronous=NORMAL",
        "temp_store=MEMORY",
        "cache_size=-32768",  # 32 MiB: keys are hashes, so that each new one is in another place of the file
    ),
    synced=False,
    error=CacheError,
    in_use=CacheInUse,
    damaged=CacheDamaged,
)

# Folders for what children write begin like that; a run has one of its own.
_INCOMING = "new-"
_READ = 2**20


class Value(NamedTuple):
    """A value that is to be kept.

    Attributes:
        content: What it is said to be.
        data: Its bytes; None when they are in a file that a child wrote.
        name: Of that file, in the folder for what children write.
    """

    content: Content
    data: bytes | None
    name: str = ""


def digest(kind: str, data: bytes) -> bytes:
    """Return what a value is known by."""
    found = hashlib.sha256(f"{kind}\0".encode())
    found.update(data)
    return found.digest()


class Files:
    """The folder of large values.

    Args:
        folder: Its path; it is made when it is first needed.
        durable: Whether what is in it outlives this process.
    """

    def __init__(self, folder: str, *, durable: bool) -> None:
        self.folder = folder
        # No orphan of an earlier run may write over what a child of this one is writing.
        self.incoming = os.path.join(folder, f"{_INCOMING}{secrets.token_hex(6)}")
        self._durable = durable
        self._made = False

    def make(self) -> None:
        """Have the folder for what children write.

        Raises:
            OSError: If the disk does not take it.
        """
        if not self._made:
            for folder in (self.folder, self.incoming):
                os.makedirs(folder, 0o700, exist_ok=True)
            self._made = True

    def doubt(self) -> None:
        """Look again whether the folder is there: systems remove temp files that are old."""
        self._made = False

    def path(self, content: Content) -> str:
        """Return where a content is, or would be."""
        return os.path.join(self.folder, content.hash.hex())

    def has(self, content: Content) -> bool:
        """Return whether the file of a content is there, as far as its size tells."""
        with contextlib.suppress(OSError):
            return os.stat(self.path(content)).st_size == content.size
        return False

    def take(self, value: Value) -> None:
        """Keep what a child wrote if it is what the child says.

        Raises:
            ValueError: If it is something else.
            OSError: If it cannot be read, or not be kept.
        """
        name, content = value.name, value.content
        if not name or name != os.path.basename(name) or name in (os.curdir, os.pardir):
            raise ValueError(f"{name[:200]!r} is not the name of a file")
        path = os.path.join(self.incoming, name)
        try:
            with open(
                os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)), "r+b"
            ) as file:
                found = hashlib.sha256(f"{content.kind}\0".encode())
                size = 0
                while part := file.read(_READ):
                    size += len(part)
                    found.update(part)
                if size != content.size or found.digest() != content.hash:
                    raise ValueError(
                        f"a value of {size} bytes is not the one of {content.size} bytes that was announced"
                    )
                if self._durable:
                    os.fsync(file.fileno())
            if not self.has(content):  # on Windows one that is being read cannot be replaced
                os.replace(path, self.path(content))
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def remove(self, contents: Iterable[Content]) -> None:
        """Remove the files of contents; one that somebody reads just now, on Windows, goes at the next start."""
        for content in contents:
            if content.is_file:
                with contextlib.suppress(OSError):
                    os.unlink(self.path(content))

    def remove_incoming(self, prefixes: Sequence[str]) -> None:
        """Remove what children wrote and nobody will name any more."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.incoming):
                if name.startswith(tuple(prefixes)):
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(self.incoming, name))

    def sweep(self, contents: Iterable[Content]) -> None:
        """Remove what no content is in, and what children of earlier runs left."""
        kept = {content.hash.hex() for content in contents if content.is_file}
        with contextlib.suppress(FileNotFoundError):
            for entry in list(os.scandir(self.folder)):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False) and entry.name.startswith(_INCOMING):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    elif entry.name not in kept:
                        os.unlink(entry.path)

    def close(self) -> None:
        """Leave nothing behind that the next run does not need."""
        if not self._durable:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        shutil.rmtree(self.incoming, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(self.folder)  # only when it is empty


class CacheFile:
    """The database of a persistent cache; for one thread.

    Args:
        path: Of the file; large values are in the folder `<path>.values`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.files = Files(f"{os.path.realpath(path)}.values", durable=True)
        self._database: _database.Database | None = None

    def open(self, most_bytes: int, most_age: float | None) -> Index:
        """Take the file, and return the index of what is in it.

        Raises:
            CacheError: If it cannot be opened, is damaged, or somebody else has it.
        """
        # Without the file that names them its values are of no use; they are no reason to refuse one that is empty.
        self._database = database = _database.open_database(self._path, _KIND, lambda _: False)
        try:
            return self._load(most_bytes, most_age)
        except (sqlite3.Error, OSError) as error:
            self.close()
            if isinstance(error, OSError):
                raise CacheError(self._path, f"cannot be used: {error}") from error
            raise _database.refusal(self._path, database.path, _KIND, error) from error
        except BaseException:
            self.close()
            raise

    def _load(self, most_bytes: int, most_age: float | None) -> Index:
        assert self._database is not None
        index = Index(most_bytes, most_age)
        removed = Removed()
        now = time.time()
        connection = self._database.connection
        # Two walks from end to end: a join would look for each content in another place of the file.
        contents = {
            found: Content(found, kind, size, bool(is_file))
            for found, kind, size, is_file in connection.execute("SELECT hash, kind, size, value IS NULL FROM contents")
        }
        entries = connection.execute("SELECT used, key, content, born FROM entries").fetchall()
        entries.sort()
        there = self._sizes()
        for _, key, found, born in entries:
            content = contents.get(found)
            lacks = content is None or (content.is_file and there.get(found.hex()) != content.size)
            if content is None or lacks or not index.fits(content.size):
                removed.keys.append(key)
            else:
                # What is from the future was born under a clock that was wrong: it is not to live for ever.
                removed.add(index.put(key, content, now, born=min(born, now)))
        index.evicted = 0
        index.sort_births()
        kept = {content.hash for content in index.contents()}
        removed.contents = [content for content in contents.values() if content.hash not in kept]
        removed = index.still(removed)
        if removed:
            try:
                self.write((), removed)
            except sqlite3.OperationalError:
                pass  # the disk is full, which is no reason to do without what is there; the next start tries again
        self.files.sweep(index.contents())
        return index

    def _sizes(self) -> dict[str, int]:
        try:
            with os.scandir(self.files.folder) as entries:
                return {entry.name: entry.stat().st_size for entry in entries}
        except FileNotFoundError:
            return {}

    def write(
        self, entries: Iterable[tuple[bytes, Value]], removed: Removed, used: Iterable[tuple[float, bytes]] = ()
    ) -> None:
        """Commit new entries, and the end of others; in this order of their making, the ends come first.

        Raises:
            sqlite3.Error: If the disk does not take it; then none of it is written.
        """
        assert self._database is not None
        connection = self._database.connection
        now = time.time()
        entries = list(entries)
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany("DELETE FROM entries WHERE key=?", [(key,) for key in removed.keys])
            connection.executemany("DELETE FROM contents WHERE hash=?", [(each.hash,) for each in removed.contents])
            connection.executemany("UPDATE entries SET used=? WHERE key=?", used)
            connection.executemany(
                "INSERT INTO contents VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
                [(value.content.hash, value.content.kind, value.content.size, value.data) for _, value in entries],
            )
            connection.executemany(
                "INSERT INTO entries VALUES (?,?,?,?) "
                "ON CONFLICT DO UPDATE SET content=excluded.content, born=excluded.born, used=excluded.used",
                # Of those that came together the last counts as used last.
                [(key, value.content.hash, now, now + place * 1e-6) for place, (key, value) in enumerate(entries)],
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite may have rolled it back itself
                connection.execute("ROLLBACK")
            raise
        # One that went may have come again since.
        new = {value.content.hash for _, value in entries}
        self.files.remove(each for each in removed.contents if each.hash not in new)

    def read(self, hashes: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return values that are in rows, as far as they are there.

        Raises:
            sqlite3.Error: If the disk cannot be read.
        """
        assert self._database is not None
        found = {}
        for each in hashes:
            row = self._database.connection.execute("SELECT value FROM contents WHERE hash=?", (each,)).fetchone()
            if row is not None and row[0] is not None:
                found[each] = row[0]
        return found

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None
