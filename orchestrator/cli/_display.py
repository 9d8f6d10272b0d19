"""What a run shows on stderr while it works: a live bar, a line now and then, or nothing; and lines of the children."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from orchestrator.cli._sink import Sink, SinkStream
from orchestrator.cli._summary import duration

if TYPE_CHECKING:
    from orchestrator._progress import ProgressSnapshot
    from orchestrator._statistics import Statistics

# The line is promised at least every 10 seconds; one second is left for a loop that is busy.
LOG_INTERVAL = 9.0
# Ten frames a second look live, and what children print waits at most this long.
BAR_INTERVAL = 0.1
# Two characters for each of the two times that somebody may press Ctrl-C within a frame.
ROOM_FOR_KEYS = 4
# So many lines are printed without waiting for the next frame, so that whoever fills the terminal is made to wait.
MOST_PENDING = 1_000


class Display(Protocol):
    """Shows progress and text.

    Attributes:
        interval: Seconds between two calls of `show`.
    """

    interval: float

    def show(self, progress: ProgressSnapshot, statistics: Statistics | None) -> None:
        """Show where the run is."""

    def print(self, text: str) -> None:
        """Show whole lines, line feed included."""

    def close(self, progress: ProgressSnapshot | None) -> None:
        """Show the end, or nothing more when the run did not get that far."""

    def abandon(self) -> None:
        """Leave the terminal usable for a process that ends at once."""


class QuietDisplay:
    """Shows text and no progress."""

    interval = LOG_INTERVAL

    def __init__(self, stream: SinkStream) -> None:
        self._stream = stream

    def show(self, progress: ProgressSnapshot, statistics: Statistics | None) -> None:
        """Show nothing."""

    def print(self, text: str) -> None:
        """Show text at once."""
        self._stream.write(text)

    def close(self, progress: ProgressSnapshot | None) -> None:
        """Show nothing."""

    def abandon(self) -> None:
        """Do nothing: what is written is text."""


class LogDisplay(QuietDisplay):
    """Writes the progress line every few seconds."""

    def show(self, progress: ProgressSnapshot, statistics: Statistics | None) -> None:
        """Write the line."""
        self._stream.write(progress.line() + "\n")

    def close(self, progress: ProgressSnapshot | None) -> None:
        """Write the last line."""
        if progress is not None:
            self._stream.write(progress.line() + "\n")


class BarDisplay:
    """Keeps a live bar at the bottom of the terminal; text goes above it."""

    interval = BAR_INTERVAL

    def __init__(self, stream: SinkStream) -> None:
        # rich asks for a TextIO and uses the few methods that the stream has.
        self._descriptor = stream.fileno()
        self._console = Console(file=stream, force_terminal=True)  # type: ignore[arg-type]
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._pending: list[str] = []
        self._live.start()

    def show(self, progress: ProgressSnapshot, statistics: Statistics | None) -> None:
        """Draw the bar anew, below what was printed since."""
        self._print_pending()
        self._live.update(render_bar(progress, statistics), refresh=True)

    def print(self, text: str) -> None:
        """Keep text for the next frame: one drawing for many lines."""
        self._pending.append(text)
        if len(self._pending) >= MOST_PENDING:
            self._print_pending()

    def close(self, progress: ProgressSnapshot | None) -> None:
        """Draw the last bar, which stays."""
        self._print_pending()
        if progress is not None:
            self.show(progress, None)
        self._live.stop()

    def abandon(self) -> None:
        """Show the cursor again, below the bar; written here and now, for no thread will."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, b"\r\n\x1b[?25h")

    def _print_pending(self) -> None:
        if self._pending:
            text, self._pending = "".join(self._pending), []
            self._console.print(_RawText(text), soft_wrap=True, end="")


class _RawText:
    """Text that is neither wrapped nor coloured: a line that a child printed is shown as it is, and cheaply."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(self._text)


def make_display(progress: str, sink: Sink, descriptor: int = 2) -> Display:
    """Return the display that `--progress` asks for: `auto`, `bar`, `log` or `none`."""
    stream = SinkStream(sink, descriptor)
    if progress == "auto":
        # A dumb terminal cannot move its cursor.
        progress = "bar" if stream.isatty() and os.environ.get("TERM") != "dumb" else "log"
    if progress == "bar":
        return BarDisplay(stream)
    return LogDisplay(stream) if progress == "log" else QuietDisplay(stream)


class _Short:
    """A line that leaves room at the end, for the `^C` that a terminal shows there when somebody presses Ctrl-C.

    A line that is full would grow by one, and the next frame would be drawn one line too low.
    """

    def __init__(self, text: Text) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self._text, options.update(width=max(1, options.max_width - ROOM_FOR_KEYS)))


def render_bar(progress: ProgressSnapshot, statistics: Statistics | None) -> Group:
    """Return two lines: the bar with its share, and the counts."""
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(ratio=1)
    head.add_column(no_wrap=True, justify="right")
    if progress.fraction is None:
        bar = ProgressBar(total=None, pulse=True, animation_time=progress.elapsed)
        share = f"{progress.done:,} done"
    else:
        bar = ProgressBar(total=1.0, completed=progress.fraction)
        share = f"{progress.done:,}/{progress.total:,} ({progress.fraction:.1%})"
    head.add_row(bar, Text(share, style="bold"))
    return Group(head, _Short(_counts(progress, statistics)))


def _counts(progress: ProgressSnapshot, statistics: Statistics | None) -> Text:
    # The most useful first: a narrow terminal cuts the end off.
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{progress.successful:,} successful", style="green")
    text.append(", ")
    text.append(f"{progress.failed:,} failed", style="red" if progress.failed else "")
    text.append(f" · {progress.rate:,.1f} tasks/sec")
    if statistics is not None and progress.remaining is not None and progress.remaining > 0:
        text.append(f" · {duration(progress.remaining)} left")
    else:
        text.append(f" · {duration(progress.elapsed)}")
    if statistics is not None:
        busy = sum(1 for worker in statistics.workers if worker.running)
        text.append(f" · {busy}/{len(statistics.workers)} workers busy")
        if statistics.restarts:
            text.append(
                f" · {statistics.restarts} {'restart' if statistics.restarts == 1 else 'restarts'}", style="yellow"
            )
        if statistics.state not in ("open", "closed"):
            text.append(f" · {statistics.state}", style="yellow")
    return text
