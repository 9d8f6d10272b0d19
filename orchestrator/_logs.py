"""What the library logs: structlog events through the host's own set-up, and never a set-up of ours."""

from __future__ import annotations

import logging
import os
from typing import Any

import structlog

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def _render(_logger: Any, _method: str, event: Any) -> tuple[tuple[str], dict[str, Any]]:
    """Turn an event into a record of the standard library: a readable message, and its members under `orchestrator`."""
    event = dict(event)
    name = event.pop("event")
    trace = event.pop("exc_info", None)
    text = " ".join([str(name), *(f"{key}={value!r}" for key, value in event.items() if value is not None)])
    return (text.replace("%", "%%"),), {"extra": {"orchestrator": event}, "exc_info": trace}


class Logger:
    """Logs for one supervisor.

    Uses structlog as the host configured it; a host that did not gets records of the standard library's logger
    `orchestrator`, which are silent below WARNING unless it configured that.
    """

    def __init__(self, supervisor: str) -> None:
        if structlog.is_configured():
            self._logger: Any = structlog.get_logger("orchestrator")
            self._enabled = None
        else:
            standard = logging.getLogger("orchestrator")
            self._logger = structlog.wrap_logger(
                standard, processors=[_render], wrapper_class=structlog.stdlib.BoundLogger
            )
            self._enabled = standard.isEnabledFor
        self._logger = self._logger.bind(supervisor=supervisor)
        self.debugging = os.environ.get("ORCHESTRATOR_DEBUG", "") not in ("", "0")

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        """Log one event; `level` may be what a child said."""
        if level not in _LEVELS:
            level = "info"
        if self._enabled is None or self._enabled(_LEVELS[level]):
            getattr(self._logger, level)(event, **fields)

    def debug(self, event: str, **fields: Any) -> None:
        """Log what only `ORCHESTRATOR_DEBUG=1` asks for."""
        if self.debugging:
            self.log(event, "warning" if self._enabled is not None else "debug", **fields)
