"""What the demo shows at its end: tables of results, and whether every file has exactly one outcome."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pathlib import Path

    from _demo_kill import Kill
    from rich.console import Console

SHOWN = 8
# A table that is wider is hard to read along its lines.
WIDEST = 100


class Report:
    """The outcomes of one run, read from the file that it wrote.

    Args:
        paths: The files that went in.
        root: The folder they are in.
        output: The outcomes that came out, as JSON lines.
        kill: What was done to one child.
    """

    def __init__(self, paths: list[str], root: Path, output: Path, kill: Kill) -> None:
        self._paths = paths
        self._root = root
        self._kill = kill
        with output.open(encoding="utf-8") as file:
            self._outcomes: list[dict[str, Any]] = [json.loads(line) for line in file]
        self._surveys = [outcome["value"] for outcome in self._outcomes if outcome["status"] == "succeeded"]

    def print(self, console: Console) -> bool:
        """Show tables and checks; return whether every check holds."""
        checks = self.checks()
        width = min(console.width, WIDEST)
        for table in (self._largest(), self._longest()):
            console.print()
            console.print(Padding(table, (0, 0, 0, 2)), width=width)
        console.print(f"\n{self._totals()}", soft_wrap=True)
        console.print("\nNothing was lost:" if all(ok for ok, _ in checks) else "\nThis does not hold:", style="bold")
        for ok, text in checks:
            mark = Text("  ok    ", "green") if ok else Text("  FAIL  ", "bold red")
            console.print(mark + Text(text), soft_wrap=True)
        return all(ok for ok, _ in checks)

    def checks(self) -> list[tuple[bool, str]]:
        """Return what must hold, each with a sentence."""
        count = Counter(outcome["line"] for outcome in self._outcomes)
        missing, twice = len(self._paths) - len(count), sum(number > 1 for number in count.values())
        # A line of the input is a file: what came back for it must be of that very file.
        expected = dict(enumerate(self._paths, 1))
        strange = sum(
            outcome["status"] == "succeeded" and outcome["value"]["path"] != expected.get(outcome["line"])
            for outcome in self._outcomes
        )
        said = "each exactly once"
        if missing or twice:
            said = f"{missing:,} missing, {twice:,} more than once"
        elif strange:
            said = f"{strange:,} of another file"
        once = not (missing or twice or strange)
        checks = [(once, f"{len(self._paths):,} files in, {len(self._outcomes):,} outcomes out, {said}")]
        bad = [outcome for outcome in self._outcomes if outcome["status"] != "succeeded"]
        checks.append((not bad, "every job succeeded" if not bad else f"{len(bad):,} jobs did not succeed"))
        return [*checks, *self._checks_of_the_kill()]

    def _checks_of_the_kill(self) -> list[tuple[bool, str]]:
        kill = self._kill
        if kill.pid is None:
            return [(False, "no child was killed: the run was over too soon; try more files")]
        told = f"child {kill.pid} of worker {kill.worker} was killed when {kill.done:,} files were done"
        checks = [(True, told)]
        if kill.successor is None:
            checks.append((True, "the others did the rest before its worker had another child"))
        else:
            checks.append((True, f"child {kill.successor} took its place {kill.seconds * 1e3:.0f} ms later"))
        again = [outcome for outcome in self._outcomes if outcome["attempts"] > 1]
        for outcome in again:
            name = self._name(self._paths[outcome["line"] - 1])
            told = f"{name} was being parsed: attempted again, {outcome['status']} at attempt {outcome['attempts']}"
            checks.append((outcome["status"] == "succeeded", told))
        if not again:
            checks.append((True, "it had just finished a job and not begun the next: nothing had to be repeated"))
        return checks

    def _largest(self) -> Table:
        table = _table("Largest files", "lines", "KB", "functions")
        for each in sorted(self._surveys, key=lambda each: -each["bytes"])[:SHOWN]:
            table.add_row(
                self._name(each["path"]), f"{each['lines']:,}", f"{each['bytes'] / 1e3:,.0f}", f"{each['functions']:,}"
            )
        return table

    def _longest(self) -> Table:
        table = _table("Longest functions", "lines", left="in")
        found = [each for each in self._surveys if each["longest"] is not None]
        for each in sorted(found, key=lambda each: -each["longest"][2])[:SHOWN]:
            name, line, length = each["longest"]
            table.add_row(name, f"{self._name(each['path'])}:{line}", f"{length:,}")
        return table

    def _totals(self) -> str:
        lines, size, functions = (sum(each[name] for each in self._surveys) for name in ("lines", "bytes", "functions"))
        text = f"  {len(self._surveys):,} files · {lines:,} lines · {size / 1e6:,.1f} MB · {functions:,} functions"
        odd = [each for each in self._surveys if each["problem"] is not None]
        if odd:
            kind = "file is" if len(odd) == 1 else "files are"
            text += f"\n  {len(odd):,} {kind} no valid Python on purpose, such as {os.path.basename(odd[0]['path'])}"
        return text

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self._root)


def _table(title: str, *numbers: str, left: str = "") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True, header_style="bold")
    table.add_column(title, ratio=2 if left else 1, overflow="ellipsis", no_wrap=True)
    if left:
        table.add_column(left, ratio=3, overflow="ellipsis", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table
