"""Decides what is recorded of an attempt, what is kept at its end, and which old evidence goes (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping  # noqa: TC003  whoever asks for type hints must get them
from typing import NamedTuple

MODES = (
    "off",
    "on",
    "retain-on-failure",
    "on-first-retry",
    "on-all-retries",
    "retain-on-first-failure",
    "retain-on-failure-and-retries",
)
SCREENSHOT_MODES = ("off", "on", "only-on-failure", "on-first-failure")
# What is dropped first when an attempt left too much: the video is the largest, and the trace shows what it shows.
DROPPED_FIRST = ("video", "trace")
MEGABYTE = 1_000_000


def records(mode: str, attempt: int) -> bool:
    """Say whether a trace or video is recorded of this attempt (from 1)."""
    match mode:
        case "off":
            return False
        case "on-first-retry":
            return attempt == 2
        case "on-all-retries":
            return attempt > 1
        case "retain-on-first-failure":
            return attempt == 1
        case _:
            return True


def keeps(mode: str, attempt: int, failed: bool) -> bool:
    """Say whether the trace or video of this attempt is kept now that it ended."""
    if not records(mode, attempt):
        return False
    match mode:
        case "retain-on-failure" | "retain-on-first-failure":
            return failed
        case "retain-on-failure-and-retries":
            return failed or attempt > 1
        case _:
            return True


def pictures(mode: str, attempt: int, failed: bool) -> bool:
    """Say whether screenshots are taken at the end of this attempt."""
    match mode:
        case "on":
            return True
        case "only-on-failure":
            return failed
        case "on-first-failure":
            return failed and attempt == 1
        case _:
            return False


def too_much(sizes: Mapping[str, int], most: float) -> list[str]:
    """Return the kinds of evidence to drop, so that what an attempt left is at most `most` bytes, if that can be.

    Args:
        sizes: Bytes by kind.
        most: Bytes that all kinds together may have.
    """
    total = sum(sizes.values())
    dropped = []
    for kind in DROPPED_FIRST:
        if total <= most:
            break
        if sizes.get(kind):
            total -= sizes[kind]
            dropped.append(kind)
    return dropped


class Kept(NamedTuple):
    """Evidence of one attempt on the disk.

    Attributes:
        path: Its folder.
        ended: When the attempt ended, or was last heard of, in seconds since the epoch.
        size: Bytes.
        spared: It runs, or belongs to a run that goes on.
    """

    path: str
    ended: float
    size: int
    spared: bool


def outdated(kept: Iterable[Kept], *, now: float, most: float, max_age: float) -> tuple[list[str], int]:
    """Return the folders to remove, and how many bytes remain.

    Args:
        kept: All evidence there is.
        now: Seconds since the epoch.
        most: Bytes that may remain.
        max_age: Seconds.
    """
    kept = list(kept)
    remaining = sum(one.size for one in kept)
    gone = []
    for one in sorted((one for one in kept if not one.spared), key=lambda one: one.ended):
        if now - one.ended > max_age or remaining > most:
            gone.append(one.path)
            remaining -= one.size
    return gone, remaining
