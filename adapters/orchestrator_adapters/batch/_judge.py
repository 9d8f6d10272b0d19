"""What follows from the outcome of a record: a result, another attempt, or its end; it counts when it is committed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from orchestrator.exceptions import JobCancelled, JobFailed, PoolBroken, SupervisorClosed, TargetError
from orchestrator_adapters.batch._classes import failure_of
from orchestrator_adapters.batch._encode import json_text, result_text
from orchestrator_adapters.batch._errors import RESUMABLE, USAGE, BatchError
from orchestrator_adapters.batch._store_rows import EndRow, TryRow
from orchestrator_adapters.batch._values import Unfit

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from orchestrator import Outcome
    from orchestrator_adapters.batch._accounts import Accounts
    from orchestrator_adapters.batch._classes import Failure
    from orchestrator_adapters.batch._gate import Entry, Gate
    from orchestrator_adapters.batch._retries import Retries
    from orchestrator_adapters.batch._store import Store

    class StopRun(Protocol):
        """Ends a run before its end."""

        def __call__(self, reason: str, exit_code: int) -> None: ...


class Judge:
    """Decides over outcomes.

    Args:
        gate: Where records wait for another attempt.
        accounts: Know how many records there are.
        store: Gets what counts.
        retries: The rules.
        classify: Asked first what kind of failure an error is.
        clock: Tells the moment, in seconds.
        stop: Ends the run.
        say: Shows a line.
    """

    def __init__(
        self,
        gate: Gate,
        accounts: Accounts,
        store: Store,
        retries: Retries,
        classify: Callable[[Any], str | None] | None,
        *,
        clock: Callable[[], float],
        stop: StopRun,
        say: Callable[[str], None],
    ) -> None:
        self._gate = gate
        self._accounts = accounts
        self._store = store
        self._retries = retries
        self._classify = classify
        self._clock = clock
        self._stop = stop
        self._say = say
        self._spent = 0
        self._said = False

    def settle(self, entry: Entry, outcome: Outcome) -> None:
        """Decide what follows from an outcome; it counts when it is committed."""
        error = outcome.error
        if self._ends_run(error):
            self._gate.put_back()
            self._accounts.put_back()
            return
        self._gate.came_back(self._clock())
        self._record(entry, outcome, error)
        if not self._gate.is_quick or not self._gate.sent:
            self._store.flush()

    def _ends_run(self, error: BaseException | None) -> bool:
        """Return whether an error is not this record's; the run has been told to stop then, unless it does already."""
        if error is None or isinstance(error, JobCancelled):
            return error is not None
        problem = import_failure(error) if self._accounts.done == self._accounts.resumed else None
        if problem is not None:
            self._stop(f"the handler's module cannot be imported: {problem}", USAGE)
        elif isinstance(error, TargetError):
            self._stop(sentence(error), USAGE)
        elif isinstance(error, PoolBroken | SupervisorClosed):
            self._stop(sentence(error), RESUMABLE)
        else:
            return False
        return True

    def _record(self, entry: Entry, outcome: Outcome, error: BaseException | None) -> None:
        entry.made, entry.used = outcome.attempts, outcome.usage
        entry.attempts += entry.made
        entry.use(entry.used)
        if error is None:
            try:
                entry.value = result_text(outcome.value)
            except Unfit as problem:
                text = str(problem).replace("the record", "the result", 1)
                self._give_up(entry, outcome, "permanent", type(problem).__name__, text)
            else:
                self._end_record(entry, outcome, entry.value.decode(), None, None)
            return
        try:
            failure = failure_of(error, self._classify)
        except BatchError as problem:
            self._stop(str(problem), problem.exit_code)
            failure = failure_of(error)
        if failure.is_exhausted:
            scope = "money" if failure.quota_scope == "spend" else "daily quota"
            self._stop(f"the {scope} is used up: {first_line(failure.message)}", RESUMABLE)
        left = self._retries.budget(max(self._accounts.total or 0, self._accounts.taken)) - self._spent
        again = self._retries.decide(
            failure,
            made=entry.made,
            charged=entry.charged,
            throttles=entry.throttles,
            budget_left=left,
            jitter=random.random(),
        )
        if again is None and failure.is_exhausted:
            again = self._retries.wait(entry.charged, entry.throttles)
        if again is None:
            if failure.kind in ("transient", "timeout") and left <= 0 and not self._said:
                self._said = True
                self._say(f"the retry budget is used up ({self._spent:,} retries): such failures are final now")
            self._give_up(entry, outcome, failure.kind, failure.error, failure.message)
            return
        now = self._clock()
        entry.due, entry.charged, entry.throttles = now + again.delay, again.charged, again.throttles
        entry.sequence += 1
        self._spent += again.spends
        if again.pause:
            self._gate.pause(now + again.pause)
        self._store.add(self._try_row(entry, outcome, failure))

    def refuse(self, entry: Entry, error: Exception) -> None:
        """End a record that cannot be sent."""
        self._gate.came_back(self._clock())
        entry.made, entry.used = 0, {}
        failure = failure_of(error)
        self._give_up(entry, None, failure.kind, failure.error, failure.message)

    def _give_up(self, entry: Entry, outcome: Outcome | None, kind: str, name: str, message: str) -> None:
        failure = {"record": entry.content, "error": name, "message": message}
        self._end_record(entry, outcome, None, kind, json_text(failure))

    def _end_record(
        self, entry: Entry, outcome: Outcome | None, value: str | None, kind: str | None, failure: str | None
    ) -> None:
        seconds = 0.0 if outcome is None else outcome.run_seconds
        inline = outcome is not None and outcome.isolation == "inline"
        usage = json_text(entry.usage) if entry.usage else None
        self._store.add(
            EndRow(entry.number, entry.hash, entry.place, value, kind, failure, entry.attempts, usage, seconds, inline)
        )

    def _try_row(self, entry: Entry, outcome: Outcome, failure: Failure) -> TryRow:
        return TryRow(
            entry.number,
            entry.sequence,
            entry.hash,
            entry.made,
            entry.charged,
            entry.throttles,
            failure.kind,
            _unicode(failure.error),
            _unicode(failure.message),
            json_text(dict(entry.used)) if entry.used else None,
            outcome.run_seconds,
        )


def import_failure(error: BaseException | None) -> str | None:
    """Return what was raised when a handler's module was imported; None if a function of it raised."""
    if not isinstance(error, JobFailed):
        return None
    frames = [line for line in error.error.traceback.splitlines() if line.startswith('  File "')]
    if not frames or not frames[0].endswith(", in <module>"):
        return None
    return f"{error.error.type}: {first_line(error.error.message)} ({frames[-1].strip().removesuffix(', in <module>')})"


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # lone surrogates: the journal takes none


def first_line(text: str) -> str:
    """Return what fits into a message; the log has the rest."""
    return text.partition("\n")[0]


def sentence(error: BaseException) -> str:
    """Return the first line of an error as a sentence without full stop."""
    return first_line(str(error)).rstrip(":.")
