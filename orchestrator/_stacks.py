"""Where a child hung, as text that reads like a traceback."""

from __future__ import annotations

import linecache
import re

_CODE_LINE = re.compile(r'\s*File "(.+)", line (\d+)')
_DUMP_LINE = re.compile(r'(File ".+", line \d+) in ')


def with_source(text: str) -> str:
    """Add the source line to each `File …` line of a stack, and leave out the import system, as tracebacks do."""
    lines: list[str] = []
    given = text.splitlines()
    for line in [line for line in given if "<frozen importlib" not in line] or given:
        lines.append(line)
        found = _CODE_LINE.match(line)
        if found is not None:
            source = linecache.getline(found[1], int(found[2])).strip()
            if source:
                lines.append(f"    {source}")
    return "\n".join(lines) + "\n" if lines else ""


def main_thread_of(dump: str) -> str:
    """Return the main thread's part of a faulthandler dump in the order and form of a traceback."""
    # Of several threads faulthandler writes the main one last; and what was dumped last is what counts.
    parts = [part for part in dump.split("(most recent call first)") if "File " in part]
    if not parts:
        return ""
    lines = [line for line in parts[-1].splitlines() if line.lstrip().startswith("File ")]
    own = [line for line in lines if "/orchestrator/child/" not in line.replace("\\", "/") and '"<string>"' not in line]
    text = "\n".join(reversed(own or lines))
    return with_source(_DUMP_LINE.sub(r"\1, in ", text))
