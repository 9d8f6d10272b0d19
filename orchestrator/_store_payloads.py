"""Values too long for a row: one file for each content, in a folder next to the journal."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

_TEMPORARY = ".new"


class Payloads:
    """The folder `<journal>.payloads`; it is made when it is first needed.

    Args:
        journal: Path of the journal's file.
        sync: Whether a file must be on the disk before a row names it.
    """

    def __init__(self, journal: str, sync: bool) -> None:
        self.folder = f"{journal}.payloads"
        self._sync = sync

    def write(self, content: bytes) -> str:
        """Keep a content and return its name; what is there already is not written again.

        Raises:
            OSError: If the disk does not take it.
        """
        name = hashlib.sha256(content).hexdigest()
        path = os.path.join(self.folder, name)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_size == len(content):
                return name
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
            if self._sync:
                sync_folder(os.path.dirname(self.folder))
        temporary = path + _TEMPORARY
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                if self._sync:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # the disk may be full: not a byte is to be wasted
            raise
        if self._sync:
            sync_folder(self.folder)
        return name

    def read(self, name: str) -> bytes:
        """Return a content.

        Raises:
            OSError: If it is gone.
        """
        with open(os.path.join(self.folder, name), "rb") as file:
            return file.read()

    def names(self) -> list[str]:
        """Return what is in the folder."""
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:
            return []

    def remove(self, names: Iterable[str]) -> None:
        """Remove contents that no row names; one that cannot be removed now is tried again by the next sweep."""
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, name))
        with contextlib.suppress(OSError):
            os.rmdir(self.folder)  # only when it is empty


def outsourced(payloads: Payloads, files: str, **columns: str | None) -> list[str | None]:
    """Return the texts of columns, of which files may hold some.

    Raises:
        OSError: If a file is gone.
    """
    names = json.loads(files)
    return [
        payloads.read(names[column]).decode("utf-8", "surrogatepass") if column in names else text
        for column, text in columns.items()
    ]


def lost(number: int, error: OSError) -> str:
    """Return the error of a job of which a file is gone, as outcomes have theirs."""
    return json.dumps({"type": "JobError", "message": f"the journal lacks a file of job {number}: {error}"})


def remove_unused(connection: sqlite3.Connection, payloads: Payloads, names: Iterable[str]) -> None:
    """Remove those of the named files that no row names."""
    used = connection.execute(
        "SELECT json_group_array(json_each.value) FROM jobs, json_each(jobs.files) WHERE jobs.files IS NOT NULL"
    ).fetchone()[0]
    unused = set(names) - set(json.loads(used))
    if unused:
        payloads.remove(unused)


def sync_folder(path: str) -> None:
    """Put a folder's entries on the disk."""
    if sys.platform == "win32":
        return  # NTFS keeps entries itself, and a folder cannot be opened
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
