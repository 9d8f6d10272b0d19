"""Runs a job from a page, and shows it until its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import streamlit as st

from orchestrator.exceptions import ConfigurationError
from orchestrator_adapters.streamlit._session import Forgotten, Session, job_of
from orchestrator_adapters.streamlit._view import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator import BlockingSupervisor, Job, Outcome
    from orchestrator_adapters.streamlit._watch import Watch

# Seconds. A page is interrupted at most so late for a click (Streamlit's word comes at the next drawing) …
_TICK = 0.2
# … and drawn at most so often, however much the job says: the browser has to follow.
_LEAST_PAUSE = 0.1


def run_with_progress(
    target: Callable[..., Any] | str | Job,
    /,
    *args: Any,
    container: Any = st,
    key: str | None = None,
    on_rerun: Literal["keep", "cancel"] = "keep",
    label: str | None = None,
    cancel: bool = True,
    start: bool | None = None,
    shared: bool = False,
    supervisor: BlockingSupervisor | None = None,
    **kwargs: Any,
) -> Outcome | None:
    """Run a job in a child and show it: bar, status, log tail, live picture, Cancel, its end.

    The page waits, and stays responsive: whatever is clicked meanwhile runs it anew, and the call that then comes here
    again finds the same job. Functions wrapped with `callback` are called on the page's thread and may draw; `bar()`
    in the place of a progress callback moves the bar.

    Args:
        target: What to run: an importable function, its name as a string, or a `Job` with everything in it.
        args: Positional arguments of the target.
        container: Where to draw: anything with the methods of a Streamlit container.
        key: What the job is known by in this session. With a key, a job that ended is shown again by the next runs of
            the page, and not run again. Without, the same call with the same arguments finds a running job only.
        on_rerun: Whether the job goes on (`keep`) when the page is run anew or its tab is closed.
        label: What the page calls the job; by default the target's name.
        cancel: Whether there is a Cancel button.
        start: True starts a job, unless one runs already; False never does, and shows the one there is. None starts one
            if there is none, running or ended. Meant for `start=st.button("Publish")`.
        shared: All sessions mean the same job by this key, also those that are opened later (a reload of the page
            begins a new session). Callbacks are then made in one of them.
        supervisor: Where to run it; `get_supervisor()` by default.
        kwargs: Keyword arguments of the target. Those of the names above need a `Job`.

    Returns:
        The outcome; None if there is no job, because `start` is False. A target that cannot be run at all is an outcome
        that failed, too.
    """
    check(on_rerun, key, shared=shared)
    session = Session(job_of(target, args, kwargs), key, shared=shared)
    try:
        watch, _ = session.find(label, start=start, supervisor=supervisor)
    except Forgotten:
        container.info("This job has ended, and its result is not kept any more.")
        return None
    if watch is None:
        return None
    snapshot = watch.snapshot()
    view = View(container, watch, cancel=cancel, live=snapshot.outcome is None)
    try:
        outcome = _follow(watch, view)
    except Exception:
        watch.cancel()
        raise
    except BaseException:
        # Streamlit's own: the page is run anew, or stopped. The next run finds the job under its key.
        if on_rerun == "cancel":
            watch.cancel()
        raise
    session.returned(watch)
    return outcome


def _follow(watch: Watch, view: View) -> Outcome:
    """Draw a job until its end."""
    snapshot = watch.snapshot()
    while True:
        watch.make_calls()
        if snapshot.outcome is not None:
            view.finish(snapshot)
            return snapshot.outcome
        view.draw(snapshot)
        snapshot = watch.wait(snapshot.version, _TICK, at_least=_LEAST_PAUSE)


def check(on_rerun: str, key: object, *, shared: bool) -> None:
    """Refuse options that cannot be meant."""
    if on_rerun not in ("keep", "cancel"):
        raise ConfigurationError("on_rerun", f"must be 'keep' or 'cancel', not {on_rerun!r}")
    if key is not None and (not isinstance(key, str) or not key):
        raise ConfigurationError("key", f"must be a non-empty string, not {key!r}")
    if shared and key is None:
        raise ConfigurationError("shared", "needs a key that all sessions know the job by")
