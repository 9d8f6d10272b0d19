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
_WHERE = ("worker", "generation", "pid", "job", "key", "attempt")
_LEFT_OUT = ("event", "level", "timestamp", "exception", "text")


class _LineLogger:
    """What structlog hands rendered lines to."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        """Write one line."""
        self._write(line)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def configure_logging(write: Callable[[str], None], level: str) -> None:
    """Send every log event of this process at `level` or above to `write`, as text lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_arguments: _LineLogger(write),
        cache_logger_on_first_use=False,
    )


def render(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return one event as a line: time, level, event, the text that was said, and the rest as key=value."""
    parts = [time.strftime("%H:%M:%S"), f"{event.get('level', 'info'):<7}", str(event.get("event", ""))]
    if event.get("text") is not None:
        parts.append(str(event["text"]))
    names = [name for name in _WHERE if event.get(name) is not None]
    names += [name for name in event if name not in _WHERE and name not in _LEFT_OUT]
    parts += [f"{name}={_value(event[name])}" for name in names]
    line = " ".join(parts)
    exception = event.get("exception")
    return f"{line}\n{exception}\n" if exception else f"{line}\n"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if text and text.isprintable() and " " not in text and '"' not in text else json.dumps(text)
