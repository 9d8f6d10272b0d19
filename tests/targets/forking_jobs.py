"""Targets that use multiprocessing themselves, and what they run there."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def triple(number: int) -> int:
    """Be run by an executor."""
    return 3 * number


def put(queue: Any, value: int) -> None:
    """Be run by a process."""
    queue.put([value, os.getpid()])


def run_process(method: str = "spawn") -> list[Any]:
    """Run one process; returns what it sent, its exit code, and whether its pid is the one that was said."""
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=put, args=(queue, 5))
    process.start()
    value, pid = queue.get(timeout=60)
    process.join(60)
    code = process.exitcode
    queue.close()
    queue.join_thread()
    return [value, code, pid == process.pid]


def run_executor(method: str = "spawn") -> list[int]:
    """Run an executor."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as executor:
        return list(executor.map(triple, [1, 2, 3]))
