"""The library's log events as lines among the progress of a batch: what children print, and what happens to them."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from orchestrator_adapters.batch._progress import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Numbers of jobs say nothing to whoever knows records, and a run has one supervisor.
LEFT_OUT = ("supervisor", "text", "job")


def show_log() -> None:
    """Send the library's records of level INFO and above to the display; for a process that is ours alone."""
    logger = logging.getLogger("orchestrator")
    if not any(isinstance(handler, _Lines) for handler in logger.handlers):
        logger.addHandler(_Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Show the library's warnings among the progress, in a program that has not set up logging.

    Python would write them on the terminal itself, into the bars. Nothing of it stays.
    """
    logger = logging.getLogger("orchestrator")
    if logger.hasHandlers():
        yield
        return
    handler = _Lines()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        event = record.getMessage().partition(" ")[0]
        if is_news(record.levelno, event):
            say(log_line(record.created, record.levelname.lower(), event, getattr(record, "orchestrator", {})))


def is_news(level: int, event: str) -> bool:
    """Return whether an event is shown: what children say, and warnings.

    What becomes of a record is told by the progress and by the file of failed records; that a batch goes on without
    children it says itself.
    """
    kind = event.partition(".")[0]
    return kind == "child" or (level > logging.INFO and kind != "job" and event != "supervisor.fell_back")


def log_line(moment: float, level: str, event: str, fields: Mapping[str, Any]) -> str:
    """Return one event as a line: time, level, event, the text that was said, and the rest as key=value."""
    parts = [time.strftime("%H:%M:%S", time.localtime(moment)), f"{level:<7}", event]
    if fields.get("text") is not None:
        parts.append(str(fields["text"]))
    parts += [f"{name}={_word(value)}" for name, value in fields.items() if name not in LEFT_OUT and value is not None]
    return " ".join(parts)


def _word(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if text and text.isprintable() and " " not in text and '"' not in text else json.dumps(text)
