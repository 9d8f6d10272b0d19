"""The files beside the results: which records failed and why, and the numbers; each appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from orchestrator_adapters.batch import _store_rows as rows
from orchestrator_adapters.batch._encode import json_text
from orchestrator_adapters.batch._errors import RESUMABLE, BatchError, reason

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator

_BLOCK = 256


def failed_lines(connection: sqlite3.Connection, classes: Collection[str] | None = None) -> Iterator[bytes]:
    """Yield a JSON line for each failed record, in the order of the records.

    Args:
        connection: Of the run's journal.
        classes: Only those of these failure classes.
    """
    after = 0
    while found := rows.read_failed(connection, after, _BLOCK, classes):
        for number, place, failure_class, failure, attempts, usage in found:
            told: dict[str, Any] = json.loads(failure)  # msgspec reads no lone surrogates
            line = {
                "number": number,
                "place": place,
                "record": told["record"],
                "class": failure_class,
                "error": told["error"],
                "message": told["message"],
                "attempts": attempts,
                "usage": {} if usage is None else msgspec.json.decode(usage),
            }
            yield json_text(line).encode() + b"\n"
        after = found[-1][0]


def write_failed(connection: sqlite3.Connection, path: str) -> None:
    """Write `failed.jsonl`.

    Raises:
        BatchError: If it cannot be written; what was there is untouched.
    """

    def write(file: BinaryIO) -> None:
        file.writelines(failed_lines(connection))

    _replace(path, write)


def write_metrics(metrics: dict[str, Any], path: str) -> None:
    """Write `metrics.json`.

    Raises:
        BatchError: If it cannot be written; what was there is untouched.
    """
    text = msgspec.json.format(msgspec.json.encode(metrics), indent=2)
    _replace(path, lambda file: file.write(text + b"\n"))


def remove(path: str) -> None:
    """Remove a file of an earlier run that does not hold any more."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        os.unlink(path)


def check_place(what: str, path: str) -> None:
    """Hold that a file can be written when the run ends; makes its folder.

    Raises:
        BatchError: If it cannot.
    """
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise BatchError(f"{what}: {path!r} cannot be written: {reason(error)}; name another file") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BatchError(f"{what}: {path!r} cannot be written: its folder is read-only; name another file")


def _replace(path: str, write: Callable[[BinaryIO], object]) -> None:
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f".{name}.partial")
    try:
        os.makedirs(folder or ".", exist_ok=True)
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise BatchError(f"{path} cannot be written: {reason(error)}", RESUMABLE) from error
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
