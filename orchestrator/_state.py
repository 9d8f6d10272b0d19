"""The lives of a worker, of a job and of a service as tables, and the pure step that walks them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple


class Step(NamedTuple):
    """Where an event leads, and what is to be done then."""

    state: str
    effects: tuple[str, ...] = ()


Table = Mapping[tuple[str, str], Step]

# A worker is a slot; `down` means it has no child. A child that dies while it runs a job is replaced at once, one that
# never became ready or died idle only when the start guard says so (`wait`).
WORKER: Table = {
    ("down", "start"): Step("starting", ("spawn",)),
    ("down", "wait"): Step("backoff"),
    ("backoff", "start"): Step("starting", ("spawn",)),
    ("backoff", "rest"): Step("down"),
    ("starting", "ready"): Step("ready", ("welcome",)),
    ("starting", "died"): Step("down"),
    # It has no job to finish, and user code that it preloads may keep it from listening for long.
    ("starting", "stop"): Step("stopping", ("stop_harder",)),
    ("starting", "kill"): Step("dying", ("kill",)),
    ("ready", "died"): Step("down"),
    ("ready", "stop"): Step("stopping", ("ask_to_stop",)),
    ("ready", "kill"): Step("dying", ("kill",)),
    ("stopping", "ready"): Step("stopping"),
    ("stopping", "kill"): Step("dying", ("kill",)),
    ("stopping", "died"): Step("down"),
    ("dying", "ready"): Step("dying"),
    ("dying", "kill"): Step("dying", ("kill",)),
    ("dying", "stop"): Step("dying"),
    ("dying", "died"): Step("down"),
}

# `down` is between a process that ended unasked, or to be replaced, and what comes next: until nothing of it is left.
# Seen from outside it is a `backoff`, and `restarting`, in which it goes down to come again, is `stopping`.
SERVICE: Table = {
    ("waiting", "start"): Step("starting", ("spawn",)),
    ("waiting", "fail"): Step("failed"),
    ("waiting", "stop"): Step("stopped"),
    ("starting", "ready"): Step("ready", ("welcome",)),
    ("starting", "died"): Step("down"),
    ("starting", "restart"): Step("restarting", ("ask",)),
    ("starting", "kill"): Step("restarting", ("kill",)),
    ("starting", "stop"): Step("stopping", ("ask",)),
    ("ready", "sick"): Step("unhealthy"),
    ("ready", "died"): Step("down"),
    ("ready", "restart"): Step("restarting", ("ask",)),
    ("ready", "kill"): Step("restarting", ("kill",)),
    ("ready", "stop"): Step("stopping", ("ask",)),
    ("unhealthy", "well"): Step("ready"),
    ("unhealthy", "died"): Step("down"),
    ("unhealthy", "restart"): Step("restarting", ("ask",)),
    ("unhealthy", "kill"): Step("restarting", ("kill",)),
    ("unhealthy", "stop"): Step("stopping", ("ask",)),
    ("restarting", "restart"): Step("restarting"),
    ("restarting", "kill"): Step("restarting", ("kill",)),
    # Asked already, or killed: what it was given for ending goes on.
    ("restarting", "stop"): Step("stopping"),
    ("restarting", "died"): Step("down"),
    ("down", "start"): Step("starting", ("spawn",)),
    ("down", "wait"): Step("backoff"),
    ("down", "hold"): Step("waiting"),
    ("down", "fail"): Step("failed"),
    ("down", "restart"): Step("down"),
    ("down", "stop"): Step("stopping"),
    ("backoff", "start"): Step("starting", ("spawn",)),
    ("backoff", "hold"): Step("waiting"),
    ("backoff", "stop"): Step("stopped"),
    ("failed", "start"): Step("starting", ("spawn",)),
    ("failed", "hold"): Step("waiting"),
    ("failed", "fail"): Step("failed"),
    ("failed", "stop"): Step("stopped"),
    ("stopping", "kill"): Step("stopping", ("kill",)),
    ("stopping", "died"): Step("stopping"),
    ("stopping", "buried"): Step("stopped"),
    ("stopped", "start"): Step("starting", ("spawn",)),
    ("stopped", "hold"): Step("waiting"),
    ("stopped", "fail"): Step("failed"),
}

# A job that simply succeeds goes queued, running, settled without asking this table, and what a child answers settles
# it; everything that comes from elsewhere asks. The one effect: who waits is told.
JOB: Table = {
    ("queued", "dispatched"): Step("running"),
    ("queued", "cancelled"): Step("settled", ("settle",)),
    ("queued", "expired"): Step("settled", ("settle",)),
    ("queued", "refused"): Step("settled", ("settle",)),
    ("running", "answered"): Step("settled", ("settle",)),
    ("running", "returned"): Step("queued"),
    ("running", "retry"): Step("waiting"),
    ("running", "crashed"): Step("settled", ("settle",)),
    ("running", "cancelled"): Step("cancelling"),
    ("running", "expired"): Step("cancelling"),
    ("running", "timed_out"): Step("cancelling"),
    ("cancelling", "cancelled"): Step("cancelling"),
    ("cancelling", "expired"): Step("cancelling"),
    ("cancelling", "timed_out"): Step("cancelling"),
    ("cancelling", "answered"): Step("settled", ("settle",)),
    ("cancelling", "crashed"): Step("settled", ("settle",)),
    ("cancelling", "retry"): Step("waiting"),
    ("cancelling", "returned"): Step("settled", ("settle",)),
    # Instead of the job its reconcile function is called: nobody knows whether an outside effect happened.
    ("queued", "asked"): Step("queued"),
    ("running", "asked"): Step("queued"),
    ("cancelling", "asked"): Step("queued"),
    ("waiting", "due"): Step("queued"),
    ("waiting", "cancelled"): Step("settled", ("settle",)),
    ("waiting", "expired"): Step("settled", ("settle",)),
    ("waiting", "refused"): Step("settled", ("settle",)),
}


class IllegalStep(RuntimeError):
    """Raised when an event cannot happen in a state: a bug here, told with the story so far."""


def step(table: Table, state: str, event: str) -> Step:
    """Return where `event` leads from `state`; the tables above are the only ones there are.

    Raises:
        IllegalStep: If the table does not say.
    """
    try:
        return table[state, event]
    except KeyError:
        raise IllegalStep(f"{event!r} cannot happen in state {state!r}") from None


class Life:
    """One walk through a table, which remembers its last steps for the error message of an impossible one."""

    def __init__(self, table: Table, name: str, state: str) -> None:
        self._table = table
        self._name = name
        self._story: deque[tuple[float, str, str]] = deque(maxlen=20)
        self.state = state

    def step(self, event: str, now: float) -> tuple[str, ...]:
        """Take a step and return its effects."""
        try:
            state, effects = step(self._table, self.state, event)
        except IllegalStep as error:
            told = "; ".join(f"{at:.3f} {what} -> {then}" for at, what, then in self._story) or "nothing yet"
            raise IllegalStep(f"{self._name}: {error}. So far: {told}") from None
        self._story.append((now, event, state))
        self.state = state
        return effects
