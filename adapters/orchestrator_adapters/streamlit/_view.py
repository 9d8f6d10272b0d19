"""Draws one job into a page: bar, status, log tail, live picture, Cancel, and how it ended."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

from orchestrator_adapters.streamlit._explain import explain
from orchestrator_adapters.streamlit._watch import LIVE

if TYPE_CHECKING:
    from orchestrator_adapters.streamlit._watch import Snapshot, Watch

# As many as fit below the picture without scrolling on a laptop.
_SHOWN_LINES = 12
_STATES = {
    "queued": "waiting for a child",
    "running": "running",
    "waiting": "waiting for the next attempt",
    "cancelling": "cancelling",
}


class View:
    """The elements of one job in one run of a page; made and drawn on the page's thread.

    Every drawing calls Streamlit at least once: there it interrupts a page that is to run anew.
    """

    def __init__(self, container: Any, watch: Watch, *, cancel: bool, live: bool = True) -> None:
        self._watch = watch
        self._label = watch.label
        self._drawn: tuple[object, ...] = ()
        self._line_drawn: str | None = None
        self._pictures = 0
        self._frame = container.status(self._label, expanded=live, state="running" if live else "complete")
        # Never `with self._frame`: leaving that says that it is complete.
        self._bar = self._frame.empty()
        self._line = self._frame.empty()
        self._picture = self._frame.empty()
        self._log = self._frame.empty()
        self._button = self._frame.empty()
        self._end = self._frame.container()
        if cancel and live:
            # Called before the page runs again, whether or not that comes here; so it works below `if st.button(…)`.
            self._button.button("Cancel", key=f"orchestrator-cancel-{watch.identity}", on_click=watch.cancel)

    def draw(self, snapshot: Snapshot) -> None:
        """Show a moment of a job that runs."""
        place = snapshot.place
        if snapshot.version not in self._drawn:
            self._drawn = (snapshot.version,)
            if place is not None and place.share is not None:
                self._bar.progress(place.share, text=_count(place.done, place.total, place.text))
            self._draw_log(snapshot)
            self._draw_picture(snapshot)
        words = [_STATES.get(snapshot.state, snapshot.state)]
        if snapshot.attempt > 1:
            words.append(f"attempt {snapshot.attempt}")
        words.append(clock(snapshot.seconds))
        if place is not None and place.share is None:
            words.append(_count(place.done, None, place.text))
        self._line.caption(" · ".join(words))

    def finish(self, snapshot: Snapshot) -> None:
        """Show how the job ended."""
        outcome = snapshot.outcome
        assert outcome is not None
        self._button.empty()
        self._line.empty()
        self._draw_log(snapshot)
        place = snapshot.place
        if place is not None and place.share is not None:
            self._bar.progress(place.share, text=_count(place.done, place.total, place.text))
        if outcome.succeeded:
            self._picture.empty()
            self._frame.update(
                label=f"{self._label}: done in {clock(snapshot.seconds)}", state="complete", expanded=False
            )
            return
        self._draw_picture(snapshot)  # the last that was seen
        ending = explain(outcome)
        kept = [each for each in outcome.artifacts if each.name.rpartition("/")[2] != LIVE]
        picture = next((each.path for each in reversed(kept) if each.path.endswith((".png", ".jpg"))), None)
        self._end.error(plain(ending.headline))
        if ending.details:
            self._end.code(ending.details, language=ending.language)
        if picture is not None and os.path.isfile(picture):
            self._picture.image(picture)  # of how it failed: better than the last that was seen
        if kept:
            paths = [each.path for each in kept[:_SHOWN_LINES]]
            self._end.caption("It left:")
            self._end.code("\n".join([*paths, *["…"] * (len(kept) > len(paths))]), language="text")
        self._frame.update(label=f"{self._label}: {ending.short}", state="error", expanded=True)

    def _draw_log(self, snapshot: Snapshot) -> None:
        if snapshot.lines:
            lines = snapshot.lines[-_SHOWN_LINES:]
            dropped = snapshot.dropped + len(snapshot.lines) - len(lines)
            first = [f"… {dropped:,} lines before"] if dropped else []
            self._log.code("\n".join([*first, *lines]), language="text")

    def _draw_picture(self, snapshot: Snapshot) -> None:
        if snapshot.picture is None or snapshot.pictures == self._pictures:
            return
        try:
            with open(snapshot.picture, "rb") as file:
                data = file.read()
        except OSError:
            return  # the job's folder is gone already
        self._pictures = snapshot.pictures
        # In the message itself: Streamlit keeps the files of pictures until the page's run ends, which may take hours.
        self._picture.image(f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}")


def clock(seconds: float) -> str:
    """Say a duration as a watch shows it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plain(text: str) -> str:
    """Keep Streamlit from reading a text as Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+-!|<>~$:" else letter for letter in text)


def _count(done: float, total: float | None, text: str) -> str:
    if total is not None and total <= 1 and done <= total and not float(done).is_integer():
        count = f"{done:.0%}"
    else:
        count = f"{done:,g}" if total is None else f"{done:,g} of {total:,g}"
    return f"{count} · {plain(text)}" if text else count
