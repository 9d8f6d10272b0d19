"""Jobs that the pages of the Streamlit tests start; they write down that they ran, and wait for files as barriers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator import child


def _await(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody made {path}")
        time.sleep(0.01)


def double(number: int) -> int:
    print("doubling", number)
    return 2 * number


def count(total: int, progress_callback: Callable[[int, int], Any]) -> int:
    for done in range(1, total + 1):
        progress_callback(done, total)
    return total


def steps(folder: str, total: int = 4) -> int:
    """Make one step for each file `step-N` that somebody puts into the folder."""
    place = Path(folder)
    with open(place / "ran", "a") as file:
        file.write(f"{os.getpid()}\n")
    for done in range(1, total + 1):
        _await(place / f"step-{done}")
        child.progress(done, total, f"step {done}")
        print("made step", done)
    return total


def fail(text: str) -> None:
    print("about to fail")
    raise ValueError(text)


def crash() -> None:
    os.write(2, b"last words\n")
    os._exit(7)


def pictures(folder: str) -> None:
    """Show the pictures that lie in a folder as live ones, one after the other."""
    place = Path(folder)
    live = place / "live.jpg"
    for number in (1, 2):
        _await(place / f"show-{number}")
        (place / f"picture-{number}.jpg").replace(live)
        child.artifact(str(live), "live.jpg")
    _await(place / "end")


class Unpicklable:
    def __reduce__(self) -> str:
        raise TypeError("cannot be pickled")


def fail_with_evidence(picture: str) -> None:
    child.artifact(picture, "failed.png")
    raise ValueError("look at the picture")


def title(page: Any, url: str) -> str:
    page.goto(url)
    return str(page.title())
