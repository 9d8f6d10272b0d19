"""What stderr shows: the bar, the line, log events of children."""

import os
import time
from typing import Any

import pytest
import structlog
from rich.console import Console

from orchestrator._progress import ProgressSnapshot
from orchestrator._statistics import Statistics, WorkerStatistics
from orchestrator.cli._console_log import configure_logging, render
from orchestrator.cli._display import BarDisplay, LogDisplay, QuietDisplay, make_display, render_bar
from orchestrator.cli._sink import Sink

SNAPSHOT = ProgressSnapshot(total=320, successful=35, failed=5, rate=8.2, elapsed=5.0, remaining=34.0)


def statistics(busy: int, restarts: int = 0, state: str = "open") -> Statistics:
    workers = tuple(
        WorkerStatistics(
            name=f"w{number}", state="ready", pid=1, flavour=None, generation=1, restarts=0,
            running=int(number < busy), jobs_done=0, last_death=None,
        )
        for number in range(4)
    )  # fmt: skip
    return Statistics(
        state=state, submitted=0, queued=0, running=busy, waiting=0, settled={}, retries=0,
        restarts=restarts, workers=workers, limits=(),
    )  # fmt: skip


def drawn(snapshot: ProgressSnapshot, seen: Statistics | None, width: int = 100) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(render_bar(snapshot, seen))
    return capture.get().splitlines()


def test_bar_shows_share_rate_time_left_workers_and_restarts() -> None:
    bar, counts = drawn(SNAPSHOT, statistics(3, restarts=1))
    assert bar.rstrip().endswith("40/320 (12.5%)")
    assert counts.rstrip() == "35 successful, 5 failed · 8.2 tasks/sec · 34 s left · 3/4 workers busy · 1 restart"


def test_bar_of_an_unknown_total() -> None:
    bar, counts = drawn(
        ProgressSnapshot(total=None, successful=3, failed=0, rate=1.0, elapsed=5.0, remaining=None), None
    )
    assert bar.rstrip().endswith("3 done")
    assert counts.rstrip() == "3 successful, 0 failed · 1.0 tasks/sec · 5.0 s"


@pytest.mark.parametrize("width", [20, 40, 60])
def test_bar_keeps_two_lines_on_a_narrow_terminal(width: int) -> None:
    lines = drawn(SNAPSHOT, statistics(4, state="draining"), width)
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)


def test_last_line_leaves_room_for_what_keys_show() -> None:
    """A terminal shows `^C` behind it; a line that grew by one would spoil the next frame."""
    for width in range(10, 120):
        assert len(drawn(SNAPSHOT, statistics(4, restarts=12), width)[1]) <= width - 4


def test_broken_pool_is_visible() -> None:
    assert drawn(SNAPSHOT, statistics(0, state="broken"))[1].rstrip().endswith("0/4 workers busy · broken")


@pytest.mark.parametrize(
    ("asked", "kind"), [("auto", LogDisplay), ("log", LogDisplay), ("none", QuietDisplay), ("bar", BarDisplay)]
)
async def test_auto_is_the_log_when_stderr_is_no_terminal(asked: str, kind: type) -> None:
    reading, writing = os.pipe()
    sink = Sink(writing)
    display = make_display(asked, sink, writing)
    assert type(display) is kind
    display.print("a child said this\n")
    display.show(SNAPSHOT, None)
    display.close(SNAPSHOT)
    await sink.aclose()
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as stream:
        text = stream.read()
    assert text.count("a child said this\n") == 1
    assert text.count(SNAPSHOT.line()) == (2 if kind is LogDisplay else 0)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(time, "strftime", lambda _format: "12:34:56")
    return []


def test_log_events_are_lines(lines: list[str]) -> None:
    before = structlog.get_config()
    try:
        configure_logging(lines.append, "info")
        log = structlog.get_logger("orchestrator")
        log.debug("left.out")
        log.info("worker.child_started", worker="run-1", pid=7, odd='a "b"')
        log.warning("job.printed", text="hello world", job=3)
        try:
            raise ValueError("bad")
        except ValueError:
            log.exception("run.failed")
    finally:
        structlog.configure(**before)
    assert lines[0] == '12:34:56 info    worker.child_started worker=run-1 pid=7 odd="a \\"b\\""\n'
    assert lines[1] == "12:34:56 warning job.printed hello world job=3\n"
    assert lines[2].startswith("12:34:56 error   run.failed\nTraceback")


@pytest.mark.parametrize(("level", "shown"), [("info", [2, 3]), ("debug", [1, 1, 2, 3])])
def test_children_that_come_and_go_as_planned_are_no_news(level: str, shown: list[int], lines: list[str]) -> None:
    before = structlog.get_config()
    try:
        configure_logging(lines.append, level)
        log = structlog.get_logger("orchestrator")
        log.info("worker.child_started", worker="w1", generation=1)
        log.info("worker.child_ready", worker="w1", generation=1)
        log.info("worker.child_started", worker="w1", generation=2)
        log.warning("worker.child_died", worker="w1", generation=3, signal=None)
    finally:
        structlog.configure(**before)
    assert [int(line.rstrip()[-1]) for line in lines] == shown


def test_jobs_are_named_by_their_line_while_that_is_known(lines: list[str]) -> None:
    before = structlog.get_config()
    try:
        configure_logging(lines.append, "info", {3: 5}.get)
        log = structlog.get_logger("orchestrator")
        log.info("child.line_written", text="hello", job=3, supervisor="run")
        log.info("child.line_written", text="hello", job=4, supervisor="run")
    finally:
        structlog.configure(**before)
    assert [line.split("line_written ")[1] for line in lines] == ["hello line=5\n", "hello job=4\n"]


@pytest.mark.parametrize(
    ("value", "shown"), [("", '""'), ("a b", '"a b"'), ("a\nb", '"a\\nb"'), (1.5, "1.5"), ([1], "[1]")]
)
def test_values_of_log_events_stay_on_their_line(value: Any, shown: str, lines: list[str]) -> None:
    assert render(None, "info", {"event": "e", "x": value}) == f"12:34:56 info    e x={shown}\n"
