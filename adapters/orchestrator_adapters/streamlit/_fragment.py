"""Shows a job in a fragment of the page that draws itself anew, while the rest of the page stays usable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from orchestrator_adapters.streamlit._run import check
from orchestrator_adapters.streamlit._session import Forgotten, Session, job_of
from orchestrator_adapters.streamlit._view import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator import BlockingSupervisor, Job, Outcome


def progress_fragment(
    target: Callable[..., Any] | str | Job,
    /,
    *args: Any,
    key: str,
    every: float = 0.5,
    label: str | None = None,
    cancel: bool = True,
    start: bool | None = None,
    shared: bool = False,
    supervisor: BlockingSupervisor | None = None,
    **kwargs: Any,
) -> Outcome | None:
    """Run a job in a child, show it as `run_with_progress` does, and return at once: the page stays usable.

    What is shown is a fragment that runs every half second. When the job is over, the whole page runs once more, and
    this returns the outcome. Callbacks are made whenever the fragment runs.

    Args:
        target: What to run: an importable function, its name as a string, or a `Job` with everything in it.
        args: Positional arguments of the target.
        key: What the job is known by in this session.
        every: Seconds between two drawings.
        label: What the page calls the job; by default the target's name.
        cancel: Whether there is a Cancel button.
        start: As for `run_with_progress`.
        shared: As for `run_with_progress`.
        supervisor: Where to run it; `get_supervisor()` by default.
        kwargs: Keyword arguments of the target.

    Returns:
        The outcome of a job that is over; None while it runs, and if there is none.
    """
    check("keep", key, shared=shared)
    session = Session(job_of(target, args, kwargs), key, shared=shared)
    try:
        watch, _ = session.find(label, start=start, supervisor=supervisor)
    except Forgotten:
        st.info("This job has ended, and its result is not kept any more.")
        return None
    if watch is None:
        return None
    was_over = watch.snapshot().outcome is not None

    def show() -> None:
        watch.make_calls()
        snapshot = watch.snapshot()
        over = snapshot.outcome is not None
        if over and not was_over:
            st.rerun()  # the whole page: what comes after the job can be shown now
        view = View(st, watch, cancel=cancel, live=not over)
        if over:
            view.finish(snapshot)
        else:
            view.draw(snapshot)

    st.fragment(show, run_every=None if was_over else every)()
    return watch.snapshot().outcome if was_over else None
