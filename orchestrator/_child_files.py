"""Opens what a child wrote into its folder: a real file there, and nothing that it points to or waits behind it."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO


def is_in(folder: str, path: str) -> bool:
    """Return whether a path names an entry of this very folder."""
    name = os.path.basename(path)
    return bool(folder) and name not in ("", ".", "..") and os.path.join(folder, name) == path


def open_file(path: str) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: If it is a link, which could lead anywhere, or no regular file: a pipe would keep us waiting for ever.
    """
    file = open(path, "rb", opener=_open)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is not a file")
    return file


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
