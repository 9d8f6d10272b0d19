"""Decide between two jobs whether a browser is to be replaced by a fresh one."""

from __future__ import annotations

# What memory a browser has is asked for after so many jobs: to add it up takes 30 ms, an eighth of a small job.
_MEMORY_EVERY = 20


class Bounds:
    """How long one browser is used.

    Args:
        jobs: Jobs.
        age: Seconds.
        memory: Megabytes of the browser and all its processes, shared pages counted once.
    """

    def __init__(self, jobs: int, age: float, memory: float) -> None:
        self.jobs = jobs
        self.age = age
        self.memory = memory


def measure_now(jobs: int) -> bool:
    """Return whether the memory of a browser that has served `jobs` jobs is worth a look."""
    return jobs > 0 and jobs % _MEMORY_EVERY == 0


def due(bounds: Bounds, jobs: int, age: float, memory: float | None) -> str | None:
    """Return why a browser is to be replaced, or None if it may serve another job.

    Args:
        bounds: How long it may be used.
        jobs: How many it has served.
        age: Seconds since it was started.
        memory: Megabytes, or None if nobody looked.
    """
    if jobs >= bounds.jobs:
        return f"it has served {jobs} jobs"
    if age >= bounds.age:
        return f"it is {age:.0f} s old"
    if memory is not None and memory >= bounds.memory:
        return f"it has {memory:.0f} MB"
    return None
