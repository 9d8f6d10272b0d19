"""Live bars on a terminal: the whole, one bar for each state, and a line with rate, time left and pauses."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from orchestrator_adapters.batch._progress import share_of, whole_seconds

if TYPE_CHECKING:
    from orchestrator_adapters.batch._accounts import Snapshot
    from orchestrator_adapters.batch._stderr import Stderr

# Two characters for each of the two times that somebody may press Ctrl-C within a frame: a terminal shows `^C` where
# the cursor is, at the end of the last line, and a full line would grow by one.
ROOM_FOR_KEYS = 4
SUCCEEDED, FAILED, RUNNING, RETRYING, QUEUED = "succeeded", "failed", "running", "retrying", "queued"
STYLES = {SUCCEEDED: "green", FAILED: "red", RUNNING: "cyan", RETRYING: "yellow", QUEUED: "blue"}


class Bars:
    """Draws snapshots over each other, and lines above them.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: Stderr) -> None:
        # rich asks for a TextIO and uses the few methods that the stream has.
        self._console = Console(file=stream, force_terminal=True)  # type: ignore[arg-type]
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._pending: deque[str] = deque()
        self._retried = False
        self._live.start()

    def say(self, text: str) -> None:
        """Keep whole lines for the next frame: one drawing for many lines; any thread may call this."""
        self._pending.append(text)

    def show(self, snapshot: Snapshot) -> None:
        """Draw the bars anew, below what was said since."""
        # A row that came stays: bars that jump up and down cannot be read.
        self._retried |= snapshot.waiting > 0
        states = [SUCCEEDED, FAILED, RUNNING, *([RETRYING] if self._retried else []), QUEUED]
        self._draw(bars(snapshot, states))

    def close(self, snapshot: Snapshot | None) -> None:
        """Draw the last bars, which stay, without what no longer happens; for None leave none."""
        self._draw(Group() if snapshot is None else bars(snapshot, [SUCCEEDED, FAILED]))
        self._live.stop()

    def _draw(self, group: Group) -> None:
        if self._pending:
            text = "".join(self._pending.popleft() for _ in range(len(self._pending)))
            self._console.print(_RawText(text), soft_wrap=True, end="")
        self._live.update(group, refresh=True)


class _RawText:
    """Text that is neither wrapped nor coloured: what was said is shown as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(self._text)


class _Short:
    """A line that leaves room at its end for the keys that somebody presses."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self._text, options.update(width=max(1, options.max_width - ROOM_FOR_KEYS)))


class _States:
    """The head and a row for each state."""

    def __init__(self, snapshot: Snapshot, states: list[str]) -> None:
        self._snapshot = snapshot
        self._states = states

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        snapshot = self._snapshot
        done = snapshot.succeeded + snapshot.failed
        # Without a total the states are shown as shares of what was read.
        read = done + snapshot.running + snapshot.waiting + snapshot.queued
        whole = max(1, snapshot.total if snapshot.total is not None else read)
        counts = {
            SUCCEEDED: snapshot.succeeded,
            FAILED: snapshot.failed,
            RUNNING: snapshot.running,
            RETRYING: snapshot.waiting,
            QUEUED: snapshot.queued,
        }
        table = Table.grid(expand=True, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(ratio=1)
        for state in self._states:
            count = counts[state]
            style = STYLES[state] if count else "dim"
            table.add_row(
                Text(state, style=style),
                Text(f"{count:,}", style=style),
                ProgressBar(total=whole, completed=count, style="bar.back", complete_style=style, finished_style=style),
            )
        yield _head(snapshot, done)
        yield table


def bars(snapshot: Snapshot, states: list[str]) -> Group:
    """Return what one frame shows.

    Args:
        snapshot: Where the run is.
        states: The states that get a row, in this order.
    """
    return Group(_States(snapshot, states), _Short(_foot(snapshot)))


def _head(snapshot: Snapshot, done: int) -> Table:
    head = Table.grid(expand=True, padding=(0, 1, 0, 0), pad_edge=False)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_row(Text(share_of(done, snapshot.total, ","), style="bold"), _whole_bar(snapshot, done))
    return head


def _whole_bar(snapshot: Snapshot, done: int) -> ProgressBar:
    if snapshot.total is None:
        return ProgressBar(total=None, pulse=True, animation_time=snapshot.elapsed)
    return ProgressBar(total=max(1, snapshot.total), completed=done if snapshot.total else 1)


def _foot(snapshot: Snapshot) -> Text:
    # The most useful first: a narrow terminal cuts the end off.
    text = Text(f"{snapshot.rate:,.1f} tasks/sec", no_wrap=True, overflow="ellipsis")
    for name, left in sorted(snapshot.pauses.items()):
        if left > 0:
            text.append(f" · {name} paused {duration(whole_seconds(left))}", style="yellow")
    unfinished = snapshot.total is None or snapshot.succeeded + snapshot.failed < snapshot.total
    if unfinished and snapshot.eta is not None:
        text.append(f" · {duration(snapshot.eta)} left")
    else:
        text.append(f" · {duration(snapshot.elapsed)}")
    if snapshot.by_class:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(snapshot.by_class.items()) if count)
        text.append(f" · {kinds}" if kinds else "", style="red")
    if snapshot.resumed:
        text.append(f" · {snapshot.resumed:,} from before", style="dim")
    return text


def duration(seconds: float) -> str:
    """Return seconds as people say them: `34 s`, `2 min 05 s`, `3 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
