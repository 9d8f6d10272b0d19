"""The first failures of a run, a line each: whoever watches need not wait for its end to see what is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_adapters.batch._store_rows import EndRow

# So many show what kind they are; a thousand lines would hide everything else.
_MOST = 10
_LONGEST = 300


class FailureLines:
    """Shows what failed, as it is committed.

    Args:
        say: Shows a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._count = 0

    def show(self, row: EndRow) -> None:
        """Show a record that is given up, if it is one of the first."""
        self._count += 1
        if self._count <= _MOST:
            told = json.loads(row.failure or "{}")
            # What is said of a bad row names its file and line; an error's text alone may say nothing.
            name = "" if row.failure_class == "invalid" else f"{told.get('error')}: "
            text = f"failed: {row.place}: {row.failure_class}: {name}{told.get('message', '').partition(chr(10))[0]}"
            self._say(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
        elif self._count == _MOST + 1:
            self._say("failed: more records, not shown here; `orchestrator batch export --failed` tells of all of them")
