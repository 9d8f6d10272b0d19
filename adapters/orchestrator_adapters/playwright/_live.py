"""Shows what a page looks like while its job runs: a picture that is replaced now and then, for user interfaces."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable  # noqa: TC003  whoever asks for type hints must get them
from pathlib import Path  # noqa: TC003
from typing import Any

QUALITY = 60  # of the JPEG; text is readable, and a picture has some 20 kB
SCREENSHOT_DEADLINE = 2.0


class Live:
    """The live view of one attempt.

    All of it happens in tasks and callbacks of Playwright's own loop. A sync job runs that loop only while it waits for
    Playwright, so pictures come only then, and never keep the job waiting.
    """

    def __init__(self, path: Path, seconds: float, tell: Callable[[Path], None]) -> None:
        self._path = path
        self._seconds = seconds
        self._tell = tell
        self._pages: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._latest: bytes | None = None
        self._written = 0.0
        self._over = False

    def show(self, page: Any) -> None:
        """Show this page from now on."""
        implementation = getattr(page, "_impl_obj", None)
        loop = getattr(implementation, "_loop", None)
        if self._over or loop is None or any(page is known for known in self._pages):
            return
        self._pages.append(page)
        task = loop.create_task(self._watch(page, implementation))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def end(self) -> None:
        """Show nothing more; may be called when the browser is gone."""
        self._over = True
        self._latest = None
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whatever it was: the job goes on without a picture

    async def _watch(self, page: Any, implementation: Any) -> None:
        screencast = getattr(implementation, "screencast", None)
        if screencast is not None:
            # The browser sends frames when something changes, so that a page at rest costs nothing.
            await screencast.start(
                on_frame=lambda frame: self._frame(page, frame["data"]),
                path=None,
                size=None,
                quality=QUALITY,
                fps=None,
            )
            return
        while not self._over and not page.is_closed():  # a Playwright that is too old for that
            started = time.monotonic()
            if page is self._current():
                picture = implementation.screenshot(type="jpeg", quality=QUALITY, timeout=SCREENSHOT_DEADLINE * 1000)
                self._frame(page, await picture)
            await asyncio.sleep(max(0.05, self._seconds - (time.monotonic() - started)))

    def _current(self) -> Any:
        """Return the page that was opened last and is still there."""
        return next((page for page in reversed(self._pages) if not page.is_closed()), None)

    def _frame(self, page: Any, picture: bytes) -> None:
        if self._over or page is not self._current():
            return
        self._latest = picture
        wait = self._written + self._seconds - time.monotonic()
        if wait <= 0:
            self._write()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._write)

    def _write(self) -> None:
        self._timer = None
        picture, self._latest = self._latest, None
        if picture is None or self._over:
            return
        self._written = time.monotonic()
        partial = self._path.with_name(f".{self._path.name}")
        try:
            partial.write_bytes(picture)
            os.replace(partial, self._path)
            self._tell(self._path)
        except OSError:
            self._over = True  # the folder is gone, or the disk is full
