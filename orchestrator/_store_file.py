"""Open a journal's file for one user alone, or say why that cannot be."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from orchestrator import _database
from orchestrator import _store_schema as schema
from orchestrator._database import Database, Kind
from orchestrator._store_payloads import Payloads
from orchestrator.exceptions import JournalDamaged, JournalError, JournalInUse

if TYPE_CHECKING:
    import sqlite3

    from orchestrator._journal import Durability
    from orchestrator.exceptions import OrchestratorError

_SYNCHRONOUS = {"power": "FULL", "process": "NORMAL", "none": "OFF"}


@dataclass(slots=True)
class JournalDatabase(Database):
    """A journal that this process has to itself.

    Attributes:
        payloads: Its folder of large values.
    """

    payloads: Payloads


@lru_cache
def _kind(durability: Durability) -> Kind:
    pragmas = [
        "journal_mode=WAL",
        f"synchronous={_SYNCHRONOUS[durability]}",
        "wal_autocheckpoint=0",  # the writer does it, and sees how it goes
        "temp_store=MEMORY",
        "cache_size=-16384",  # 16 MiB: the pages of some ten thousand jobs that settle soon
    ]
    if durability == "power" and sys.platform == "darwin":
        # fsync leaves it in the drive's cache there.
        pragmas += ["fullfsync=ON", "checkpoint_fullfsync=ON"]
    return Kind(
        what="journal",
        application_id=schema.APPLICATION_ID,
        version=schema.VERSION,
        schema=schema.SCHEMA,
        pragmas=tuple(pragmas),
        synced=durability != "none",
        error=JournalError,
        in_use=JournalInUse,
        damaged=JournalDamaged,
    )


def open_journal(path: str, durability: Durability, *, create: bool = True) -> JournalDatabase:
    """Take a journal for this process alone.

    Args:
        path: The file.
        durability: How far commits go.
        create: Whether to make it if it is missing.

    Raises:
        JournalInUse: If another supervisor has it.
        JournalDamaged: If it is damaged, no journal, or written by a later version.
        JournalError: If it cannot be opened for another reason.
    """
    payloads = Payloads(os.path.realpath(path), sync=durability != "none")
    found = _database.open_database(path, _kind(durability), lambda _: bool(payloads.names()), create=create)
    return JournalDatabase(found.path, found.connection, payloads)


def refusal(path: str, real: str, error: sqlite3.Error) -> OrchestratorError:
    """Return what SQLite's error means for somebody who wants to open a journal."""
    return _database.refusal(path, real, _kind("power"), error)
