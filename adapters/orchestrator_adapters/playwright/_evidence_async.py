"""Gathers the evidence of one attempt through Playwright's async API; nothing of it ever breaks the job."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from orchestrator_adapters.playwright._attempt import START_DEADLINE, AttemptEvidence


class AsyncEvidence(AttemptEvidence):
    """The evidence of one attempt of an async job; see `Evidence`, of which this is the twin.

    Whoever cancels the job must not cancel `finish`: its fixture runs it shielded.
    """

    _ended_by: str | None = None
    _tracing: Any = None

    async def begin(self, context: Any, own: bool = True) -> None:
        """Record from now on; see `Evidence.begin`."""
        with suppress(Exception):
            self._listen(context, own)
        if self._traced:
            try:
                options = self._trace_options()
                async with asyncio.timeout(START_DEADLINE):
                    await context.tracing.start(**options)
                self._tracing = context.tracing
            except Exception as error:
                self._note(f"no trace: {error}")

    async def page(self, page: Any) -> None:
        """Name a page of the attempt, in a context that is not its alone; others are found without."""
        with suppress(Exception):
            self._know(page)

    async def finish(self, error: BaseException | None, ended_by: str | None = None, before_close: bool = True) -> None:
        """Take pictures and write the trace, before the context is closed; see `Evidence.finish`."""
        self._ended_by = ended_by
        if self._live is not None:
            self._live.end()
        for_pictures, for_all = self._budget(ended_by)
        begun = time.monotonic()
        if not before_close:
            return
        with suppress(Exception):
            for page, path in self._picture_plan(error is not None):
                left = begun + for_pictures - time.monotonic()
                if left <= 0:
                    break
                with suppress(Exception):
                    async with asyncio.timeout(left):
                        await page.screenshot(path=path, timeout=left * 1000, caret="initial")
        if self._tracing is not None:
            left = max(0.1, begun + for_all - time.monotonic())
            zipped = self.folder / "trace.zip" if self._keeps_trace(error is not None) else None
            with suppress(Exception):
                async with asyncio.timeout(left):
                    await self._tracing.stop(path=zipped)
                self._stopped = True

    async def after_close(self, error: BaseException | None) -> None:
        """Keep or remove what was recorded, now that the context is closed and videos are complete."""
        with suppress(Exception):
            self._settle(error, self._ended_by)
