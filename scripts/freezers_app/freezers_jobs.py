"""The jobs of the app that `scripts/freezers.py` freezes."""

from __future__ import annotations

import os
import time


def tell(first: int, second: int) -> dict[str, int]:
    """Return a sum, and who found it."""
    return {"sum": first + second, "pid": os.getpid(), "parent": os.getppid()}


def stay() -> None:
    """Wait for a death."""
    time.sleep(600)
