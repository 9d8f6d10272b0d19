"""What a batch shows on standard error while it runs: live bars, a line now and then, or only what is said."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Literal, Protocol

from orchestrator_adapters.batch._stderr import Stderr

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from orchestrator_adapters.batch._accounts import Snapshot
    from orchestrator_adapters.batch._bars import Bars

Mode = Literal["auto", "bar", "log", "none"]
MODES: tuple[Mode, ...] = ("auto", "bar", "log", "none")

# Often enough for somebody who watches a pipe, rare enough for a log that is kept.
LOG_INTERVAL = 2.0
# Nothing may have happened for long (a pause of minutes); a line now and then tells that the run is alive.
LOG_SILENCE = 10.0
# Five frames a second look live, and cost a run at full speed less than a hundredth of its time.
BAR_INTERVAL = 0.2


def progress_line(snapshot: Snapshot) -> str:
    """Return the line for a log.

    Its form is `Progress: 40/320 (12.5%) - 35 successful, 5 failed (rate: 8.2 tasks/sec)`, and `40/?` while the total
    is not known. What else there is to say follows in one pair of brackets: `[resumed 12, cached 7, retrying 3,
    paused api 41s]`.
    """
    done = snapshot.succeeded + snapshot.failed
    line = (
        f"Progress: {share_of(done, snapshot.total)} - {snapshot.succeeded} successful, {snapshot.failed} failed "
        f"(rate: {snapshot.rate:.1f} tasks/sec)"
    )
    more = []
    if snapshot.resumed:
        more.append(f"resumed {snapshot.resumed}")
    if snapshot.cached:
        more.append(f"cached {snapshot.cached}")
    if snapshot.waiting:
        more.append(f"retrying {snapshot.waiting}")
    more += [f"paused {name} {whole_seconds(left)}s" for name, left in sorted(snapshot.pauses.items()) if left > 0]
    return f"{line} [{', '.join(more)}]" if more else line


def share_of(done: int, total: int | None, form: str = "") -> str:
    """Return `40/320 (12.5%)`, or `40/?` without a total; `form` is how numbers are written, such as `,`."""
    if total is None:
        return f"{done:{form}}/?"
    # Rounded, 9,999 of 10,000 would be all of them.
    percent = 100.0 if done >= total else min(99.9, 100 * done / total)
    return f"{done:{form}}/{total:{form}} ({percent:.1f}%)"


def whole_seconds(seconds: float) -> int:
    """Return seconds that are left, rounded up: what has not ended yet is never shown as 0."""
    return -int(-seconds // 1)


class Display(Protocol):
    """Shows progress while its context is open, and what is said in between."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, text: str) -> None:
        """Show one line; may be called at any time, in the context on the loop of it."""


def display_for(mode: Mode, snapshot: Callable[[], Snapshot]) -> Display:
    """Return what shows progress on standard error.

    Args:
        mode: `bar` for live bars, `log` for lines, `none` for neither, `auto` for bars on a terminal and else lines.
        snapshot: Tells where the run is; called on the loop of the display's context.
    """
    stderr = Stderr()
    # A dumb terminal cannot move its cursor: bars would be drawn below each other.
    dumb = os.environ.get("TERM") in ("dumb", "unknown")
    if mode == "auto":
        mode = "bar" if stderr.isatty() else "log"
    if mode == "none" or sys.stderr is None:
        return _QuietDisplay(stderr)
    return _LogDisplay(stderr, snapshot) if mode == "log" or dumb else _BarDisplay(stderr, snapshot)


# The displays that are open, the last one last: log lines go through it, for it knows where its bars are.
_open: list[Display] = []


def say(text: str) -> None:
    """Show one line through the display that is open, or on standard error."""
    if _open:
        _open[-1].say(text)
    else:
        Stderr().write(f"{text.rstrip()}\n")


class _QuietDisplay:
    """Shows what is said and no progress."""

    def __init__(self, stderr: Stderr) -> None:
        self._stderr = stderr

    async def __aenter__(self) -> Self:
        self._stderr.start()
        _open.append(self)
        return self

    async def __aexit__(self, *_error: object) -> None:
        _open.remove(self)
        await self._stderr.aclose()

    def say(self, text: str) -> None:
        self._stderr.write(f"{text.rstrip()}\n")


class _TimedDisplay(_QuietDisplay):
    """Shows progress again and again, and once more at the end."""

    interval: float

    def __init__(self, stderr: Stderr, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__(stderr)
        self._snapshot = snapshot
        self._ticks: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._ticks = asyncio.create_task(self._tick(), name="orchestrator batch: progress")
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._ticks is not None
        self._ticks.cancel()
        # Not awaited alone: if this task is cancelled in the meantime, the last line is shown all the same.
        try:
            await asyncio.wait([self._ticks])
        finally:
            snapshot = self._snapshot()
            # Of a run that never began there is nothing to tell but why.
            self._show_last(snapshot if error[0] is None or snapshot.succeeded or snapshot.failed else None)
            await super().__aexit__()

    async def _tick(self) -> None:
        due = time.monotonic()
        while True:
            # Frames that a busy loop missed are not made up for.
            due = max(due + self.interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            self._show()

    def _show(self) -> None:
        raise AssertionError("said by each kind of display")

    def _show_last(self, snapshot: Snapshot | None) -> None:
        raise AssertionError("said by each kind of display")


class _LogDisplay(_TimedDisplay):
    """Writes the progress line when something changed, at most every two seconds, and at the end."""

    interval = LOG_INTERVAL

    def __init__(self, stderr: Stderr, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__(stderr, snapshot)
        self._shown: object = None
        self._shown_at = time.monotonic()

    def _show(self) -> None:
        snapshot = self._snapshot()
        news = (snapshot.total, snapshot.succeeded, snapshot.failed, snapshot.waiting, snapshot.pauses.keys())
        now = time.monotonic()
        if news != self._shown or now - self._shown_at >= LOG_SILENCE:
            self._shown, self._shown_at = news, now
            self.say(progress_line(snapshot))

    def _show_last(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            self.say(progress_line(snapshot))


class _BarDisplay(_TimedDisplay):
    """Keeps live bars at the bottom of the terminal; what is said goes above them."""

    interval = BAR_INTERVAL

    def __init__(self, stderr: Stderr, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__(stderr, snapshot)
        self._bars: Bars | None = None

    async def __aenter__(self) -> Self:
        from orchestrator_adapters.batch._bars import Bars  # rich: 60 ms that a log need not pay

        await super().__aenter__()
        self._bars = Bars(self._stderr)
        self._show()
        return self

    def say(self, text: str) -> None:
        if self._bars is None:
            super().say(text)
        else:
            self._bars.say(f"{text.rstrip()}\n")

    def _show(self) -> None:
        assert self._bars is not None
        self._bars.show(self._snapshot())

    def _show_last(self, snapshot: Snapshot | None) -> None:
        if self._bars is not None:
            bars, self._bars = self._bars, None
            bars.close(snapshot)
