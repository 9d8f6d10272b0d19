"""Many quick calls as one job in a child: each is answered as it ends, and what a slow one holds up is given back."""

from __future__ import annotations

import time
from _thread import allocate_lock, start_new_thread

from orchestrator_adapters.executor import _child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_adapters.executor._messages import Answer, Message

    Tell = Callable[[int, Answer | str | int], None]

# What is told beside lines for stdout (1) and stderr (2).
ANSWER, GIVEN_BACK = 0, -1

# A call that has run for so many seconds is not quick, whatever those before it were; others wait behind it.
_SLOW = 0.05


class _Lot:
    """The calls of one job, of which a thread may give back those that have not begun."""

    def __init__(self, messages: list[Message], tell: Tell) -> None:
        self.lock = allocate_lock()
        self.over = False
        self.begun = time.monotonic()
        self._messages = messages
        self._tell = tell
        messages.reverse()

    def take(self) -> Message | None:
        """Return the next call, or None when there is none left."""
        with self.lock:
            self.begun = time.monotonic()
            if self._messages:
                return self._messages.pop()
            self.over = True
            return None

    def give_back(self) -> None:
        """Give back what has not begun, if a call takes long."""
        with self.lock:
            if not self.over and self._messages and time.monotonic() - self.begun >= _SLOW:
                count = len(self._messages)
                self._messages.clear()
                self._tell(GIVEN_BACK, count)


class _Watch:
    """A thread that looks after lots; it sleeps while there is none."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._gate = allocate_lock()
        self._gate.acquire()
        self._sleeps = False
        self._lot: _Lot | None = None
        start_new_thread(self._run, ())

    def begin(self, lot: _Lot) -> None:
        with self._lock:
            self._lot = lot
            if self._sleeps:
                self._sleeps = False
                self._gate.release()

    def end(self) -> None:
        self._lot = None

    def _run(self) -> None:
        while True:
            with self._lock:
                sleeps = self._sleeps = self._lot is None
            if sleeps:
                self._gate.acquire()
            # Nobody can say when a call has taken long; one after the other they pass while this waits.
            time.sleep(_SLOW)
            lot = self._lot
            if lot is not None:
                lot.give_back()


_watch: _Watch | None = None


def call_many(messages: list[Message], tell: Tell) -> None:
    """Make calls one after the other, and tell each one's answer before the next begins.

    So of a child that dies it is known which of them ran: the first that has no answer.

    Args:
        messages: As for `call`.
        tell: Takes answers, in order; how many of the last ones were given back; and what is printed.
    """
    global _watch
    if _watch is None:
        _watch = _Watch()
    lot = _Lot(messages, tell)
    _watch.begin(lot)
    try:
        while (message := lot.take()) is not None:
            tell(ANSWER, _child.call(message, tell))
    finally:
        lot.over = True
        _watch.end()
