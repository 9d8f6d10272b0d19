"""What the library logs: structlog events through the host's own set-up, and never a set-up of ours."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Any

from orchestrator import _freezer, _remedies

_NOTED = ("warning", "error", "critical")
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class Logger:
    """Logs for one supervisor.

    Uses structlog as the host configured it; a host that did not gets records of the standard library's logger
    `orchestrator`, with the event's members in `record.orchestrator`.
    """

    def __init__(self, supervisor: str) -> None:
        self._supervisor = supervisor
        self._standard = logging.getLogger("orchestrator")
        self._structured: Any = None
        # A host that has not imported it has not configured it, and need not wait for its import (50 ms).
        structlog = sys.modules.get("structlog")
        if structlog is not None and structlog.is_configured():
            self._structured = structlog.get_logger("orchestrator").bind(supervisor=supervisor)
        self.debugging = os.environ.get("ORCHESTRATOR_DEBUG", "") not in ("", "0")

    def log(self, event: str, level: str = "info", /, **fields: Any) -> None:
        """Log one event; `level` may be what a child said."""
        if level not in _LEVELS:
            level = "info"
        if level in _NOTED and _freezer.is_frozen():
            self._note(event, fields)
        try:
            self._write(event, level, fields)
        except Exception:
            # A processor or filter of the host's broke. What is being logged goes on; its author hears of it as the
            # standard library would tell.
            if logging.raiseExceptions and sys.stderr is not None:
                traceback.print_exc()

    def _note(self, event: str, fields: dict[str, Any]) -> None:
        """Keep it in the user's log file, too: whoever runs a desktop app may see no other."""
        said = {key: value for key, value in fields.items() if value is not None}
        text = " ".join([event, *(f"{key}={value!r}" for key, value in said.items())])
        _remedies.note(f"{text} supervisor={self._supervisor!r}")

    def _write(self, event: str, level: str, fields: dict[str, Any]) -> None:
        if self._structured is not None:
            getattr(self._structured, level)(event, **fields)
        elif self._standard.isEnabledFor(_LEVELS[level]):
            trace = fields.pop("exc_info", None)
            said = {
                "supervisor": self._supervisor,
                **{key: value for key, value in fields.items() if value is not None},
            }
            text = " ".join([event, *(f"{key}={value!r}" for key, value in said.items())])
            self._standard.log(_LEVELS[level], "%s", text, extra={"orchestrator": said}, exc_info=trace)

    def debug(self, event: str, **fields: Any) -> None:
        """Log what only `ORCHESTRATOR_DEBUG=1` asks for."""
        if self.debugging:
            # Asked for by hand: it shows although nobody configured logging.
            self.log(event, "debug" if self._structured is not None else "warning", **fields)
