"""Where a run that is going on stands, for `orchestrator batch status`: its journal is nobody else's to open."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_adapters.batch._accounts import Snapshot

FILE = "counts.json"
# What somebody who asks is told may be so old.
INTERVAL = 2.0


class LiveCounts:
    """A small file in the folder of a run, there only while it is going on.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, FILE)
        self._shown_at: float | None = None

    def show(self, snapshot: Callable[[], Snapshot]) -> None:
        """Write where the run is, at most every two seconds; what cannot be written is not shown."""
        now = time.monotonic()
        if self._shown_at is not None and now < self._shown_at + INTERVAL:
            return
        self._shown_at = now
        counts = snapshot()
        told = {
            "pid": os.getpid(),
            "total": counts.total,
            "successful": counts.succeeded,
            "by_class": {name: count for name, count in counts.by_class.items() if count},
        }
        with contextlib.suppress(OSError):
            with open(f"{self._path}.partial", "w", encoding="utf-8") as file:
                json.dump(told, file)
            os.replace(f"{self._path}.partial", self._path)

    def remove(self) -> None:
        """Remove the file: the journal can be asked now."""
        for path in (self._path, f"{self._path}.partial"):
            with contextlib.suppress(OSError):
                os.unlink(path)


def last_counts(folder: str) -> dict[str, Any]:
    """Return what the process that had, or has, a run's journal wrote last; empty if there is nothing."""
    with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, FILE), encoding="utf-8") as file:
        told = json.load(file)
        if isinstance(told, dict):
            return told
    return {}
