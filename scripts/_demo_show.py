"""Show how far the demo's publishing is: a bar on a terminal, else a line for each pin."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from orchestrator import Outcome


class Show:
    """What a person sees on stderr while pins are published; a context manager.

    Args:
        number: How many there are.
        progress: `bar`, `log` (lines), `none`, or `auto`: a bar on a terminal, else lines.
    """

    def __init__(self, number: int, progress: str) -> None:
        self._number = number
        self._done = 0
        console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._lines = progress == "log" or (progress == "auto" and not sys.stderr.isatty())
        if progress == "bar" or (progress == "auto" and not self._lines):
            columns = (TextColumn("  publishing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.description}", markup=False), console=console)
            self._task = self._bar.add_task("", total=number)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def settled(self, outcome: Outcome) -> None:
        """Count one more."""
        self._done += 1
        said = str(outcome.key)
        if not outcome.succeeded:
            said += f": {outcome.status}: {str(outcome.error).splitlines()[0]}"
        if outcome.attempts > 1:
            said += f", attempt {outcome.attempts}"
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=said)
        elif self._lines:
            print(f"Published: {self._done}/{self._number} - {said}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Show a line beside."""
        if self._bar is not None:
            self._bar.console.print(f"  {text}", soft_wrap=True, markup=False)
        elif self._lines:
            print(text, file=sys.stderr, flush=True)
