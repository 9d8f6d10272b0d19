"""Decide when an attempt is repeated, when a child may be started, and whether a job or its environment is to blame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from orchestrator._models import ErrorRecord, RestartPolicy, RetryPolicy

Random = Callable[[], float]  # evenly spread over [0, 1)

# Our own exceptions stand for the kinds they are raised for.
_KINDS = {
    "orchestrator.exceptions.JobError": ("error", "crash", "timeout"),
    "orchestrator.exceptions.JobFailed": ("error",),
    "orchestrator.exceptions.JobCrashed": ("crash",),
    "orchestrator.exceptions.JobTimedOut": ("timeout",),
}
# Not subclasses of Exception; records leave out `Exception` itself, so its name cannot be looked up in them.
_EXITS = frozenset({"SystemExit", "KeyboardInterrupt", "GeneratorExit", "asyncio.exceptions.CancelledError"})

# As many starts show that a fault is no accident, and few enough that a crash at import stays near ten starts.
_FIRST_STARTS = 4
# Longer than this nobody wants to wait for a pool that could work again.
_LONGEST_COOLDOWN = 600.0

# Two bad jobs in a row happen; three different ones with nothing that ended in between point to what they share. Bad
# jobs may stand side by side, so it is other ones that decide: two, for one of them may be bad as well.
_DOUBTED_AFTER = 3
_BLAMED_AFTER = 2
_BLAME_WINDOW = 60.0
_CANARY_BACKOFF = 0.5
_LONGEST_CANARY_BACKOFF = 60.0
# Bad jobs with no other around to compare with are found out in minutes, and this is no storm either.
_LONGEST_AMONG_SUSPECTS = 8.0


def should_retry(
    policy: RetryPolicy | None,
    kind: Literal["error", "crash", "timeout"],
    attempts: int,
    error: ErrorRecord | None = None,
) -> bool:
    """Say whether a job gets another attempt after `attempts` of them.

    Names match a class by its name, its qualified name or any of its bases.
    """
    if policy is None or attempts >= policy.attempts:
        return False
    names = [_normal(name) for name in cast("tuple[str, ...]", policy.on)]
    if any(name in ("any", kind) or kind in _KINDS.get(name, ()) for name in names):
        return True
    return kind == "error" and error is not None and any(_matches(name, error) for name in names)


def may_run_again(effects: str, policy: RetryPolicy | None) -> bool:
    """Say whether an attempt that was lost with its supervisor may be made once more, as far as no effect was open."""
    if effects == "at_most_once":
        return False
    return effects != "external" or should_retry(policy, "crash", 0)


def retry_delay(policy: RetryPolicy, attempts: int, random: Random) -> float:
    """Return the seconds to wait after `attempts` attempts before the next."""
    length = _doubled(cast("float", policy.backoff), attempts, cast("float", policy.max_backoff))
    return _spread(length, random) if policy.jitter else length


def _normal(name: str) -> str:
    # A main script is `__main__` to whoever names the class, and `__mp_main__` to the child that raises it.
    name = name.removeprefix("builtins.")
    return f"__main__.{name.removeprefix('__mp_main__.')}" if name.startswith("__mp_main__.") else name


def _matches(name: str, error: ErrorRecord) -> bool:
    raised = {_normal(base) for base in (error.type, *error.bases)}
    if name == "BaseException":
        return True
    if name == "Exception":
        return not raised & _EXITS
    return any(base == name or base.endswith(f".{name}") for base in raised)


def _doubled(first: float, count: int, longest: float) -> float:
    # Sixty-three doublings are past any bound; without the cap a long outage would overflow.
    return min(longest, first * 2.0 ** min(max(count, 1) - 1, 63))


def _spread(length: float, random: Random) -> float:
    # Equal jitter: never below half, so that a wait stays a wait.
    return length * (0.5 + random() / 2)


@dataclass(slots=True)
class _Failures:
    """Consecutive failures of one kind: how many, when the last ones were, and until when to wait."""

    count: int = 0
    times: deque[float] = field(default_factory=deque)
    until: float = 0.0

    def add(self, policy: RestartPolicy, now: float, random: Random) -> bool:
        """Count one, and say whether it was one too many."""
        self.count += 1
        self.times.append(now)
        while now - self.times[0] >= cast("float", policy.window):
            self.times.popleft()
        self.until = now + _spread(
            _doubled(cast("float", policy.backoff), self.count, cast("float", policy.max_backoff)), random
        )
        # The count too: failures that take long to show would otherwise never fit the window, and callers wait forever.
        return max(self.count, len(self.times)) > policy.max_restarts


class StartGuard:
    """Decides for a whole pool when a child may be started, so that no fault makes a storm of starts.

    A child that never became ready counts for the pool, one that died idle for its worker; after each the wait
    doubles, and too many break the pool. Until a first child has become ready only a few starts are in flight, and
    after a failed start only one, until one succeeds. A broken pool tries one child, the canary, after a cooldown.

    Ask `delay` again after every `ready`, `start_failed` and `withdrew`.

    Attributes:
        broken: Whether children keep failing; ended by a canary that becomes ready.
        reason: Why the last child failed.
    """

    def __init__(self, policy: RestartPolicy, random: Random) -> None:
        self.broken = False
        self.reason = ""
        self._policy = policy
        self._random = random
        self._starting: dict[str, float] = {}  # worker → when its start began
        self._ready: dict[str, float] = {}  # worker → when its child became ready
        self._idle: dict[str, _Failures] = {}  # worker → its children that died idle
        self._starts = _Failures()
        self._ever_ready = False
        self._last_failure = float("-inf")
        self._canary: str | None = None
        self._breaks = 0  # in a row
        self._cooled = 0.0
        self._mended = 0.0

    def delay(self, worker: str, now: float) -> float | None:
        """Return the seconds until this worker may start a child, or None: not before another start has ended."""
        others = len(self._starting) - (worker in self._starting)
        if self.broken:
            # Starts from before the break may still be in flight: they are no reason to hold back the canary.
            return None if self._canary not in (None, worker) else max(0.0, self._cooled - now)
        if others and (self._starts.count or (not self._ever_ready and others >= _FIRST_STARTS)):
            return None
        idle = self._idle.get(worker)
        return max(0.0, (self._starts.until if self._starts.count else 0.0) - now, (idle.until if idle else 0.0) - now)

    def began(self, worker: str, now: float) -> None:
        """Note that the worker starts a child."""
        self._starting[worker] = now
        self._ready.pop(worker, None)
        if self.broken and self._canary is None:
            self._canary = worker

    def ready(self, worker: str, now: float) -> None:
        """Note that the worker's child is ready: children can be started here."""
        self._starting.pop(worker, None)
        self._ready[worker] = now
        self._ever_ready = True
        # A start from before the break answers for failed starts as well as a canary does, but not for idle deaths.
        if self.broken and (self._canary == worker or self._starts.count):
            self._canary = None
            self.broken = False
            self._mended = now
            self._starts = _Failures()
        elif not self.broken:
            # Only the wait starts anew. What is in the window stays until a child has proved itself: a pool whose
            # starts fail every other time is a storm too.
            self._starts.count = 0

    def start_failed(self, worker: str, now: float, reason: str) -> None:
        """Note that the worker's child ended, or was never there, before it became ready."""
        began = self._starting.pop(worker, now)
        self.reason = reason
        if self._canary == worker:
            self._break(now)
        elif not self.broken and (not self._ever_ready or began >= self._last_failure):
            # In a pool that once worked, starts already in flight when another failed show no more than that one did.
            self._last_failure = now
            if self._starts.add(self._policy, now, self._random):
                self._break(now)

    def died_idle(self, worker: str, now: float, reason: str) -> None:
        """Note that the worker's child became ready and ended without being asked to and without a job."""
        self.reason = reason
        since = self._ready.pop(worker, now)
        if now - since >= cast("float", self._policy.window) / 2:
            # It lived well for a while: a child that dies this rarely makes no storm, and is started again at once.
            self._idle.pop(worker, None)
        many = self._idle.setdefault(worker, _Failures()).add(self._policy, now, self._random)
        if many and not self.broken:
            self._break(now)

    def proved(self, worker: str, now: float) -> None:
        """Note that a job of the worker's child ended with a frame: the child is healthy. Called for every job."""
        self._idle.pop(worker, None)
        if self.broken or self._starts.count or not (self._starts.times or self._breaks):
            return
        # A child from before the failures says nothing about starts now.
        if self._ready.get(worker, float("-inf")) >= max(self._last_failure, self._mended):
            self._starts.times.clear()
            self._breaks = 0

    def withdrew(self, worker: str) -> None:
        """Note that the worker is gone, or that its start was given up by a stop: nobody's failure."""
        self._starting.pop(worker, None)
        self._ready.pop(worker, None)
        self._idle.pop(worker, None)
        if self._canary == worker:
            self._canary = None

    def _break(self, now: float) -> None:
        if not self.broken and now - self._mended >= cast("float", self._policy.window):
            self._breaks = 0
        self._breaks += 1
        self.broken = True
        self._canary = None
        self._cooled = now + _doubled(cast("float", self._policy.cooldown), self._breaks, _LONGEST_COOLDOWN)


class ServiceGuard:
    """Decides when a service is started again after it ended, so that none makes a storm of starts.

    One that was ready is started at once, the first time; when it ends again within the window, or was never ready,
    after a wait that doubles. One that ends too often is given up.
    """

    def __init__(self, policy: RestartPolicy, random: Random) -> None:
        self._policy = policy
        self._random = random
        self._ends = _Failures()

    def ended(self, now: float, ready_for: float | None) -> float | None:
        """Return the seconds to wait before the next start, or None: there shall be none.

        Args:
            now: Seconds.
            ready_for: How long it was ready, None if it never was.
        """
        if ready_for is not None and ready_for >= cast("float", self._policy.window) / 2:
            self.reset()  # it did well for a while: one that ends this rarely makes no storm
        first = not self._ends.count
        if self._ends.add(self._policy, now, self._random):
            return None
        if first and ready_for is not None:
            return 0.0
        return self._ends.until - now

    @property
    def ends(self) -> int:
        """How often it has ended, one time soon after the other."""
        return self._ends.count

    def reset(self) -> None:
        """Forget what was: somebody asked for a start."""
        self._ends = _Failures()


class CrashGuard:
    """Tells a job that kills its child from an environment that kills them all.

    Three different jobs that died, with nothing that ended in between, cast a doubt on the environment: jobs are tried
    one at a time then. When two that were tried die as well, the environment is to blame, and the next ones are tried
    after a wait that doubles. Any attempt that ends with a frame, or that outlives what died, ends doubt and blame.

    Attributes:
        doubt: Whether jobs are to be tried one at a time; also as long as the environment is to blame.
        environment: Whether the environment is to blame.
        deaths: How often each job died since an attempt ended, up to the verdict: it was not their fault then.
        longest: How long the longest of those attempts ran, in seconds.
    """

    def __init__(self) -> None:
        self.doubt = False
        self.environment = False
        self.deaths: dict[int, int] = {}
        self.longest = 0.0
        self._last: dict[int, float] = {}  # job → its last death
        self._tried = 0  # that died

    def crashed(
        self, job_id: int, now: float, *, ran: float = 0.0, tried: bool = False, known: bool = False
    ) -> Literal["job", "doubt", "environment"]:
        """Note that a child died while it ran the job, and say whose fault it is.

        Args:
            job_id: The job.
            now: Seconds.
            ran: Seconds that the attempt had run.
            tried: It was the one job that was tried.
            known: It died before while others lived: its death says nothing of the environment.
        """
        if known and not self.environment:
            return "job"
        self.longest = max(self.longest, ran)
        if self.environment:
            self._tried += tried
            return "environment"
        if not self.doubt:
            for job in [job for job, when in self._last.items() if now - when > _BLAME_WINDOW]:
                del self._last[job], self.deaths[job]
        self._last[job_id] = now
        self.deaths[job_id] = self.deaths.get(job_id, 0) + 1
        if self.doubt:
            self._tried += tried
            if self._tried < _BLAMED_AFTER:
                return "doubt"
            self.environment = True
            self._tried = 1
            return "environment"
        if len(self.deaths) < _DOUBTED_AFTER:
            return "job"
        self.doubt = True
        self._tried = 0
        return "doubt"

    def ended(self) -> None:
        """Note that an attempt ended with a frame, whatever its outcome: jobs can run here. Called for every job."""
        if self.deaths:
            self.doubt = self.environment = False
            self.deaths.clear()
            self._last.clear()
            self.longest = 0.0

    def delay(self, random: Random, *, strangers: bool = True) -> float:
        """Return the seconds to wait before one job is tried, as long as the environment is to blame.

        Args:
            random: Spreads the waits.
            strangers: Whether there are jobs that have not died yet.
        """
        longest = _LONGEST_CANARY_BACKOFF if strangers else _LONGEST_AMONG_SUSPECTS
        return _spread(_doubled(_CANARY_BACKOFF, self._tried, longest), random)
