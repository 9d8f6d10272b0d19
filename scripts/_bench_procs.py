"""Find, watch and end the processes of a measurement, by process id only."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable

MARK = "BENCH_RUN"  # in the environment of every process of one measurement, so that strays can be told apart


def alive(pid: int) -> bool:
    """Tell whether a process still runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def descendants(pid: int) -> list[int]:
    """List the running processes below a process."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True) if alive(child.pid)]
    except psutil.NoSuchProcess:
        return []


def marked(mark: str) -> list[int]:
    """List the running processes of one measurement, this one aside."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark and alive(process.pid):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wait_gone(pids: Iterable[int], bound: float) -> list[int]:
    """Wait until none of the processes runs, at most `bound` seconds; return those that still do."""
    end = time.perf_counter() + bound
    left = list(pids)
    while (left := [pid for pid in left if alive(pid)]) and time.perf_counter() < end:
        time.sleep(0.001)
    return left


def kill(pids: Iterable[int]) -> None:
    """End processes at once; one that is gone already is fine."""
    for pid in pids:
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            continue


def uss(pid: int) -> float:
    """Return the memory that would come free if the process ended, in megabytes."""
    return float(psutil.Process(pid).memory_full_info().uss) / 1e6


def rss(pid: int) -> float:
    """Return the memory a process has mapped, in megabytes."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def cpu(pid: int) -> float:
    """Return the processor seconds a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
