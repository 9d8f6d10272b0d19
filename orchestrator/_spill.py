"""Payloads that are too long for a frame: written to a file first, then their jobs are sent."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from orchestrator import _codec
from orchestrator.exceptions import PayloadError

if TYPE_CHECKING:
    from orchestrator._attempt import Attempt
    from orchestrator._owners import Desk
    from orchestrator._recipe import InThread


async def write_and_send(attempt: Attempt, path: str, in_thread: InThread, desk: Desk) -> None:
    """Write an attempt's payload to a file, then send its job.

    Args:
        attempt: Leased, and not sent.
        path: The file.
        in_thread: Runs a blocking function in a thread.
        desk: Hears of it if the job cannot be sent, or need not be any more.
    """
    problem = None
    try:
        await in_thread(_codec.write_payload, path, attempt.record.payload)
    except OSError as error:
        problem = PayloadError("args", f"cannot be written to {path}: {error}")
    if attempt.record.attempt is not attempt:
        return  # the child died meanwhile, with its folder, and its jobs were seen to
    if problem is None and attempt.why is None:
        attempt.worker.send_spilled(attempt, path)
        return
    attempt.worker.take_back(attempt)
    attempt.over()
    if problem is not None:
        desk.unsent(attempt, problem)
    else:
        # It was to end before it was sent: the child has no such job, and would not hear of its cancel again.
        with contextlib.suppress(OSError):
            os.unlink(path)
        desk.returned(attempt)
    attempt.worker.is_freed()
