"""Runs a served page once, as its first visitor, and ends a server whose page fails."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

from orchestrator import child

_HEALTH = "/_stcore/health"
_PAGE_HEALTH = "/_stcore/script-health-check"
# Seconds between two looks whether the server listens already.
_PAUSE = 0.05
# Streamlit itself gives up waiting for the page after 60 seconds, and says so.
_LONGEST_RUN = 90.0
# Where Streamlit logs what nobody caught on a page.
_ERRORS = "streamlit.error_util"


class FirstRun(threading.Thread):
    """Asks the server of this process to run its page, and says that the service is ready once that went well.

    Attributes:
        problem: Why the server was told to stop; empty while all is well.
    """

    def __init__(self, host: str, port: int, base: str) -> None:
        super().__init__(name="orchestrator first run", daemon=True)
        self.problem = ""
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self._root = f"http://{f'[{name}]' if ':' in name else name}:{port}/{base.strip('/')}".rstrip("/")
        # A proxy of the environment is for other machines.
        self._ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def run(self) -> None:
        while not self._listens():
            time.sleep(_PAUSE)  # it has no event to wait for: who starts too late is stopped from outside
        logger, errors = logging.getLogger(_ERRORS), _LastError()
        logger.addHandler(errors)
        try:
            with self._ask(self._root + _PAGE_HEALTH, timeout=_LONGEST_RUN):
                child.ready()
                return
        except urllib.error.HTTPError as error:
            answer = error.read(200).decode("utf-8", "replace")  # "error", or "timeout"
            self.problem = f"the page fails: {errors.last or answer}"
        except OSError as error:
            self.problem = f"the page cannot be run: {error}"
        finally:
            logger.removeHandler(errors)
        # The process as a whole, of which the kernel chooses the main thread: that may be waiting for it.
        if sys.platform == "win32":
            signal.raise_signal(signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def _listens(self) -> bool:
        try:
            with self._ask(self._root + _HEALTH, timeout=_LONGEST_RUN):
                return True
        except OSError:
            return False


class _LastError(logging.Handler):
    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            self.last = f"{type(error).__name__}: {error}"
