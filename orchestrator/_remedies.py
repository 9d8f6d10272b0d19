"""Keep what a frozen app would tell its user on a terminal: it may have none."""

from __future__ import annotations

import contextlib
import os
import time

from orchestrator import _freezer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Enough for years of what goes wrong; then the file before it is forgotten.
_LARGEST = 1_000_000


def note(text: str) -> None:
    """Append a text to the user's log file, if this is a frozen app; never raises."""
    if not _freezer.is_frozen():
        return
    try:
        from orchestrator.desktop import log_file

        path = log_file()
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        if path.exists() and path.stat().st_size > _LARGEST:
            os.replace(path, path.with_suffix(".log.1"))
        said = f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {text}\n"
        # As one write, for other processes of the app may write, too.
        with open(path, "ab", buffering=0) as file:
            file.write(said.encode("utf-8", "backslashreplace"))
    except (OSError, RuntimeError):
        return  # no place to write: there is nobody left to tell


@contextlib.contextmanager
def noting(kind: type[Exception]) -> Iterator[None]:
    """Note an exception on its way to the caller."""
    try:
        yield
    except kind as error:
        note(str(error))
        raise
