"""Keeps HTTP libraries from logging a line for each request of a model: of a million of them nobody reads one."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# A child hands on all that is logged from INFO up, where a plain program would show warnings only.
_LOGGERS = ("httpx", "httpx2")

_ours: ContextVar[bool] = ContextVar("orchestrator_adapters_llm_request", default=False)


class _OwnRequests(logging.Filter):
    """Lets pass what others log, what is a warning, and everything once somebody set the logger's level."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or not _ours.get() or logging.getLogger(record.name).level != 0


_filter = _OwnRequests()


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back such lines for the length of a request; what other code of the process logs is left alone."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)  # once: one that is there is not added again
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
