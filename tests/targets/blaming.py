"""Jobs of which some kill their child, and all do while a file says so."""

from __future__ import annotations

import os
import signal
import time


def work(folder: str, number: int, poison: bool, seconds: float) -> int:
    """Do a little, or note which job it is, and how many ran in this child before, and die."""
    global _ran
    _ran += 1
    time.sleep(seconds)
    if poison or os.path.exists(os.path.join(folder, "broken")):
        fd = os.open(os.path.join(folder, "deaths"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, f"{number} {_ran}\n".encode())
        os.close(fd)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


_ran = 0
