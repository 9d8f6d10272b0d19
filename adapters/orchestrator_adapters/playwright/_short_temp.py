"""A short name for the child's temp folder, for a browser that makes a socket there."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache

# A socket's path has at most 107 characters on Linux; Chromium adds `/org.chromium.Chromium.XXXXXX/SingletonSocket`.
_LONGEST = 107 - 46


@cache
def short_temp() -> str | None:
    """Return another name for the temp folder if its own is too long; None if it is not, or there is none.

    What is made under the name lies in the folder, and goes with it, so that nothing else has to be removed when the
    child is killed.
    """
    folder = tempfile.gettempdir()
    if sys.platform != "linux" or len(os.fsencode(folder)) <= _LONGEST:
        return None
    # Held for the child's life: the name is good as long as the descriptor is open.
    return f"/proc/{os.getpid()}/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"
