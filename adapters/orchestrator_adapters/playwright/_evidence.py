"""Gathers the evidence of one attempt through Playwright's sync API; nothing of it ever breaks the job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator  # noqa: TC003  whoever asks for type hints must get them
from contextlib import contextmanager, suppress
from typing import Any

from orchestrator_adapters.playwright._attempt import START_DEADLINE, AttemptEvidence


class Evidence(AttemptEvidence):
    """The evidence of one attempt of a sync job; its fixture calls `begin`, `finish` and `after_close`."""

    _ended_by: str | None = None
    _tracing: Any = None

    def begin(self, context: Any, own: bool = True) -> None:
        """Record from now on.

        Args:
            context: The attempt's context.
            own: Whether it is the attempt's alone; of somebody's running browser only pages that `page` names count.
        """
        with suppress(Exception):
            self._listen(context, own)
        if self._traced:
            try:
                options = self._trace_options()
                tracing = context.tracing
                with within(tracing, START_DEADLINE):
                    tracing.start(**options)
                self._tracing = tracing
            except Exception as error:
                self._note(f"no trace: {error}")

    def page(self, page: Any) -> None:
        """Name a page of the attempt, in a context that is not its alone; others are found without."""
        with suppress(Exception):
            self._know(page)

    def finish(self, error: BaseException | None, ended_by: str | None = None, before_close: bool = True) -> None:
        """Take pictures and write the trace, before the context is closed, within a time that depends on the end.

        Args:
            error: What ended the attempt, or None.
            ended_by: `"cancel"` or `"timeout"` if it was asked to end, and somebody waits.
            before_close: False when there is nothing left to ask, for the browser or the driver is gone.
        """
        self._ended_by = ended_by
        if self._live is not None:
            self._live.end()
        for_pictures, for_all = self._budget(ended_by)
        begun = time.monotonic()
        if not before_close:
            return
        for page, path in self._plan(error is not None):
            left = begun + for_pictures - time.monotonic()
            if left <= 0:
                break
            with suppress(Exception), within(page, left):
                page.screenshot(path=path, timeout=left * 1000, caret="initial")
        if self._tracing is not None:
            left = max(0.1, begun + for_all - time.monotonic())
            path = self.folder / "trace.zip" if self._keeps_trace(error is not None) else None
            with suppress(Exception), within(self._tracing, left):
                self._tracing.stop(path=path)
                self._stopped = True

    def after_close(self, error: BaseException | None) -> None:
        """Keep or remove what was recorded, now that the context is closed and videos are complete."""
        with suppress(Exception):
            self._settle(error, self._ended_by)

    def _plan(self, failed: bool) -> list[tuple[Any, Any]]:
        with suppress(Exception):
            return self._picture_plan(failed)
        return []


@contextmanager
def within(owner: Any, seconds: float) -> Iterator[None]:
    """Let the calls of one object of the sync API take no longer; they raise `TimeoutError` then.

    Some calls have no timeout of their own, and none ends when the driver is stopped.
    """
    wait = getattr(owner, "_sync", None)
    if wait is None:  # another version of Playwright: its own timeouts must do
        yield
        return

    async def bounded(awaitable: Awaitable[Any]) -> Any:
        async with asyncio.timeout(seconds):
            return await awaitable

    owner._sync = lambda awaitable: wait(bounded(awaitable))
    try:
        yield
    finally:
        del owner._sync
