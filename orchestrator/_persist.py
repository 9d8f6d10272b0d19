"""Waits that must end properly although the waiting task is cancelled; each ends by itself in bounded time."""

from __future__ import annotations

import asyncio
from typing import Any

from anyio import CancelScope


async def outlast(future: asyncio.Future[Any]) -> Any:
    """Wait for a future, however often this task is cancelled meanwhile; the cancellation is raised afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            # The scope holds off anyio's cancellations; those of asyncio arrive, and are kept for later.
            with CancelScope(shield=True):
                await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # looked at, so that it is not reported as lost
        raise cancelled
    return future.result()
