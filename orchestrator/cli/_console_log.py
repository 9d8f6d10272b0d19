"""Log events as lines on the terminal: those of the supervisor and what children print, which belongs to stderr."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

LEVELS = ("debug", "info", "warning", "error", "critical")
# Said first, in this order, when an event has them.
_WHERE = ("worker", "generation", "pid", "line", "job", "key", "attempt")
# A run has one supervisor, so its name tells nothing.
_LEFT_OUT = ("event", "level", "timestamp", "exception", "text", "supervisor")
# What happens to each child of a run in which all goes well: news only to those who ask for `debug`.
_ROUTINE = ("worker.child_started", "worker.child_ready", "worker.child_ended")


class _LineLogger:
    """What structlog hands rendered lines to."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        """Write one line."""
        self._write(line)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def configure_logging(
    write: Callable[[str], None], level: str, line_of: Callable[[int], int | None] = lambda _job: None
) -> None:
    """Send every log event of this process at `level` or above to `write`, as text lines.

    Args:
        write: Takes one line, line feed included.
        level: The least level that is shown.
        line_of: Returns the line of the input that a job came from, while that is known.
    """

    def say_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        job = event.get("job")
        line = line_of(job) if isinstance(job, int) else None
        if line is not None:
            # The engine numbers the jobs that it took; whoever reads this knows lines.
            event["line"] = line
            del event["job"]
        return event

    structlog.configure(
        processors=[
            *([] if level == "debug" else [drop_routine]),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            say_line,
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_arguments: _LineLogger(write),
        cache_logger_on_first_use=False,
    )


def drop_routine(_logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop what happens to each child when all goes well; that a worker got another child is news."""
    replaced = event["event"] == "worker.child_started" and event.get("generation") != 1
    if method == "info" and event["event"] in _ROUTINE and not replaced:
        raise structlog.DropEvent
    return event


def render(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return one event as a line: time, level, event, the text that was said, and the rest as key=value."""
    parts = [time.strftime("%H:%M:%S"), f"{event.get('level', 'info'):<7}", str(event.get("event", ""))]
    if event.get("text") is not None:
        parts.append(str(event["text"]))
    names = [name for name in _WHERE if event.get(name) is not None]
    names += [name for name in event if name not in _WHERE and name not in _LEFT_OUT and event[name] is not None]
    parts += [f"{name}={_value(event[name])}" for name in names]
    line = " ".join(parts)
    exception = event.get("exception")
    return f"{line}\n{exception}\n" if exception else f"{line}\n"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if text and text.isprintable() and " " not in text and '"' not in text else json.dumps(text)
