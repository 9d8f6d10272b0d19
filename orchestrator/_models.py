"""The values that users and modules hand around: jobs, policies, limits, outcomes, events, statistics."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal

from orchestrator._events import Artifact, Progress
from orchestrator._fixture import Fixture
from orchestrator.exceptions import ConfigurationError, OrchestratorError

Seconds = float | timedelta
Effects = Literal["pure", "idempotent", "external", "at_most_once"]
Isolation = Literal["process", "inline"]


def seconds(value: Seconds | None, name: str, *, minimum: float = 0.0, exclusive: bool = True) -> float | None:
    """Return a duration as float seconds, or raise ConfigurationError naming `name`."""
    if value is None:
        return None
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or math.isnan(number):
        raise ConfigurationError(name, f"must be a number of seconds or a timedelta, not {value!r}")
    if number < minimum or (exclusive and number == minimum):
        bound = "greater than" if exclusive else "at least"
        raise ConfigurationError(name, f"must be {bound} {minimum:g}, not {value!r}")
    return float(number)


def whole(value: object, name: str, *, minimum: int) -> int:
    """Return a whole number, or raise ConfigurationError naming `name`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigurationError(name, f"must be a whole number of at least {minimum}, not {value!r}")
    return value


class Status(StrEnum):
    """How a job ended; exactly one per job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    QUARANTINED = "quarantined"
    EXPIRED = "expired"
    INDETERMINATE = "indeterminate"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When and how often a job is attempted again; without one a job has a single attempt.

    Args:
        attempts: All attempts, the first included.
        on: `"error"` (the target raised), `"crash"`, `"timeout"`, `"any"`, exception names (`"TimeoutError"`,
            `"requests.exceptions.Timeout"`) or exception classes; one or several.
        backoff: Seconds before the second attempt; doubles with each further one.
        max_backoff: The longest wait in seconds.
        jitter: Waits are spread evenly over half to all of their length, so that retries do not arrive in step.
    """

    attempts: int = 3
    on: str | type[BaseException] | Sequence[str | type[BaseException]] = "error"
    # Half a second lets a short outage pass, and a minute is where waiting longer no longer helps a polite client.
    backoff: Seconds = 0.5
    max_backoff: Seconds = 60.0
    jitter: bool = True

    def __post_init__(self) -> None:
        whole(self.attempts, "retry.attempts", minimum=1)
        if not isinstance(self.on, str | type | Sequence):
            raise ConfigurationError(
                "retry.on", f"takes error, crash, timeout, any or exception names, not {self.on!r}"
            )
        names = (self.on,) if isinstance(self.on, str | type) else tuple(self.on)
        normal: list[str] = []
        for name in names:
            if isinstance(name, type) and issubclass(name, BaseException):
                normal.append(f"{name.__module__}.{name.__qualname__}")
            elif isinstance(name, str) and name:
                normal.append(name)
            else:
                problem = f"takes error, crash, timeout, any or exception names, not {name!r}"
                raise ConfigurationError("retry.on", problem)
        if not normal:
            raise ConfigurationError("retry.on", "names nothing to retry on; use attempts=1 for no retries")
        object.__setattr__(self, "on", tuple(normal))
        object.__setattr__(self, "backoff", seconds(self.backoff, "retry.backoff", exclusive=False))
        object.__setattr__(self, "max_backoff", seconds(self.max_backoff, "retry.max_backoff", exclusive=False))


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a worker's child, or a service, is started again.

    Args:
        backoff: Seconds before the second start after a child failed to become ready or died idle; doubles.
        max_backoff: The longest such wait in seconds.
        max_restarts: How many such restarts a worker gets within `window` before the pool is broken, and how many a
            service gets, of whatever kind, before it has failed.
        window: Seconds.
        cooldown: Seconds a broken pool waits before one child is tried again; doubles up to ten minutes.
    """

    # With these a child that crashes at import is started about ten times in ten minutes, by all workers together.
    backoff: Seconds = 0.5
    max_backoff: Seconds = 60.0
    max_restarts: int = 5
    window: Seconds = 60.0
    cooldown: Seconds = 30.0

    def __post_init__(self) -> None:
        whole(self.max_restarts, "restart.max_restarts", minimum=0)
        for name in ("backoff", "max_backoff", "window", "cooldown"):
            object.__setattr__(self, name, seconds(getattr(self, name), f"restart.{name}", exclusive=False))


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound that all children keep together.

    Args:
        name: What jobs (`limits={"api": 1}`) and `child.permit("api")` call it.
        rate: At most this many units start in any stretch of `per` seconds.
        per: Seconds.
        burst: Units that may start at once after a quiet time; at most `rate`. The rest of the rate is spread
            evenly, so that no stretch of `per` seconds ever sees more than `rate`.
        concurrency: At most this many units are held at the same time.
        dimensions: What else is counted, each with a rate of its own: `{"tokens": {"rate": 1_000_000, "per": 60}}`
            (and `burst`; `per` is the limit's own unless given). A permit takes what it says of each
            (`child.permit("api", tokens=500)`, `limits={"api.tokens": 500}`) together with its units, or nothing.
        ramp_up: Seconds in which the rate grows from almost nothing to its whole after the supervisor was opened.
    """

    name: str
    rate: float | None = None
    per: Seconds = 1.0
    burst: float | None = None
    concurrency: int | None = None
    dimensions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    ramp_up: Seconds | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError("limit.name", f"must be a non-empty string, not {self.name!r}")
        where = f"limit {self.name!r}"
        if not isinstance(self.dimensions, Mapping):
            raise ConfigurationError(f"{where}: dimensions", f"must be a mapping, not {self.dimensions!r:.100}")
        if self.rate is None and self.concurrency is None and not self.dimensions:
            raise ConfigurationError(where, "needs rate=, concurrency= or dimensions=")
        object.__setattr__(self, "per", seconds(self.per, f"{where}: per"))
        object.__setattr__(self, "ramp_up", seconds(self.ramp_up, f"{where}: ramp_up"))
        for name in ("rate", "burst"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, seconds(value, f"{where}: {name}"))
        _check_burst(self.rate, self.burst, where)
        if self.concurrency is not None:
            whole(self.concurrency, f"{where}: concurrency", minimum=1)
        found = {name: _dimension(name, given, self.per, where) for name, given in self.dimensions.items()}
        object.__setattr__(self, "dimensions", found)


def _check_burst(rate: float | None, burst: float | None, where: str) -> None:
    if burst is not None and rate is None:
        raise ConfigurationError(f"{where}: burst", "needs rate=")
    if burst is not None and rate is not None and burst > rate:
        raise ConfigurationError(f"{where}: burst", f"must be at most the rate, {rate:g}")


def _dimension(name: object, given: object, per: Seconds, where: str) -> dict[str, float]:
    """Return a checked dimension of a limit."""
    place = f"{where}: dimensions[{name!r}]"
    if not isinstance(name, str) or not name.isidentifier() or name in ("name", "weight", "timeout"):
        problem = "must be named as a keyword argument can be, and not name, weight or timeout"
        raise ConfigurationError(place, problem)
    if not isinstance(given, Mapping):
        raise ConfigurationError(place, f"must be a mapping such as {{'rate': 1000, 'per': 60}}, not {given!r:.100}")
    unknown = [key for key in given if key not in ("rate", "per", "burst")]
    if unknown:
        raise ConfigurationError(place, f"has {unknown[0]!r}; a dimension has rate, per and burst")
    if given.get("rate") is None:
        raise ConfigurationError(place, "needs a rate")
    found = {}
    for key, value in {"per": per, **given}.items():
        number = seconds(value, f"{place}: {key}")
        if number is not None:
            found[key] = number
    _check_burst(found["rate"], found.get("burst"), place)
    return found


@dataclass(frozen=True, slots=True)
class callback:  # noqa: N801  used like a function: progress_callback=callback(show)
    """Wrap a function so that a job may call it; calls arrive here, in order, before the job's outcome.

    Args:
        function: Called on the caller's loop (or, with BlockingSupervisor, on the thread that waits).
        latest: Calls that have not been made yet may be replaced by a newer one, as suits progress displays.
    """

    function: Callable[..., Any]
    latest: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigurationError("callback", f"needs a callable, not {type(self.function).__name__}")
        if inspect.iscoroutinefunction(self.function):
            raise ConfigurationError("callback", "needs a plain function, for nobody would await an async one")
        if not isinstance(self.latest, bool):
            raise ConfigurationError("callback.latest", f"must be True or False, not {self.latest!r}")


@dataclass(frozen=True, slots=True)
class Job:
    """One immutable request to run a target in a child.

    Args:
        target: An importable function, or `"package.module:function"`, or `"package.module:Class.method"`.
        args: Positional arguments of the target.
        kwargs: Keyword arguments of the target.
        init: Keyword arguments of the class whose method is the target; the child builds the instance.
        timeout: Bound on one attempt's run, in seconds.
        queue_timeout: Bound on the wait for a child, in seconds.
        total_timeout: Bound on everything, retries included, in seconds.
        progress_timeout: Longest silence (no `child.progress`) of a running attempt, in seconds.
        retry: When to attempt again; never by default.
        limits: Units of named limits the job needs while it runs, for example `{"api": 1}`.
        priority: Jobs with a higher number are dispatched first.
        key: Your name for the job; appears in outcomes, events and logs. In a journal it is the job's identity: a job
            that is submitted under a known key is that job, and gets its outcome.
        effects: What running it twice would mean: `pure` and `idempotent` jobs may run again; an `external` one acts
            outside, between `child.effect_begin` and `child.effect_done`, and is `indeterminate` if it dies there; of
            an `at_most_once` one no second attempt is ever made after one that may have begun.
        reconcile: Of an `external` job: an importable function that is called in a child, with the effect's key (None
            if no effect was open) and the job's own arguments, when nobody knows whether the effect happened. It
            returns True if it did, False if it did not, None if it cannot tell.
        convert: `"exact"` sends Python values as they are; `"json"` rebuilds parameters from JSON forms and
            `"text"` from strings, both by the target's annotations.
        fixture: What gives the target its first argument, and stays around the call; `args` are those after it.
    """

    target: Callable[..., Any] | str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    init: Mapping[str, Any] | None = None
    timeout: Seconds | None = None
    queue_timeout: Seconds | None = None
    total_timeout: Seconds | None = None
    progress_timeout: Seconds | None = None
    retry: RetryPolicy | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    priority: int = 0
    key: str | None = None
    effects: Effects = "pure"
    reconcile: Callable[..., Any] | str | None = None
    convert: Literal["exact", "json", "text"] = "exact"
    fixture: Fixture | None = None

    def __post_init__(self) -> None:
        if not callable(self.target) and not isinstance(self.target, str):
            raise ConfigurationError("job.target", f"must be a function or a string, not {type(self.target).__name__}")
        if isinstance(self.args, str | bytes | Mapping) or not isinstance(self.args, Sequence):
            raise ConfigurationError("job.args", f"must be a list or tuple, not {type(self.args).__name__}")
        for name in ("kwargs", "limits"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or any(not isinstance(key, str) for key in value):
                raise ConfigurationError(f"job.{name}", "must be a mapping with strings as keys")
        if self.init is not None and not isinstance(self.init, Mapping):
            raise ConfigurationError("job.init", f"must be a mapping, not {type(self.init).__name__}")
        for name in ("timeout", "queue_timeout", "total_timeout", "progress_timeout"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, seconds(getattr(self, name), f"job.{name}"))
        if self.retry is not None and not isinstance(self.retry, RetryPolicy):
            raise ConfigurationError("job.retry", f"must be a RetryPolicy, not {self.retry!r}")
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise ConfigurationError("job.priority", f"must be a whole number, not {self.priority!r}")
        if self.key is not None and not isinstance(self.key, str):
            raise ConfigurationError("job.key", f"must be a string, not {self.key!r}")
        for name, units in self.limits.items():
            seconds(units, f"job.limits.{name}")
        if self.effects not in ("pure", "idempotent", "external", "at_most_once"):
            problem = f"must be pure, idempotent, external or at_most_once, not {self.effects!r}"
            raise ConfigurationError("job.effects", problem)
        if self.effects == "at_most_once" and self.retry is not None and self.retry.attempts > 1:
            raise ConfigurationError("job.retry", "contradicts effects='at_most_once', which has a single attempt")
        if self.reconcile is not None:
            if not callable(self.reconcile) and not isinstance(self.reconcile, str):
                problem = f"must be a function or a string, not {type(self.reconcile).__name__}"
                raise ConfigurationError("job.reconcile", problem)
            if self.effects != "external":
                raise ConfigurationError("job.reconcile", f"is for effects='external', not {self.effects!r}")
        if self.convert not in ("exact", "json", "text"):
            raise ConfigurationError("job.convert", f"must be exact, json or text, not {self.convert!r}")
        if self.fixture is not None and not isinstance(self.fixture, Fixture):
            raise ConfigurationError("job.fixture", f"must be a Fixture, not {self.fixture!r:.200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRecord:
    """An exception of a child as data.

    Attributes:
        type: Qualified name of its class, with the module unless that is `builtins`.
        message: Its text.
        traceback: The child's whole traceback as text, causes, notes and groups included.
        notes: What was added with `add_note`.
        cause: The exception it was raised from, or that was being handled.
        bases: Qualified names of its class and its base classes, most derived first.
        data: The attributes `code` and `status_code` (a number or a string), `retry_after` (seconds), `failure_class`
            and `quota_scope` (strings) of the exception, those that it had.
    """

    type: str
    message: str
    traceback: str
    notes: tuple[str, ...] = ()
    cause: ErrorRecord | None = None
    bases: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeathCertificate:
    """All that is known of why a child ended.

    Attributes:
        worker: Name of the worker, or of the service.
        generation: Which child of that worker it was, from 1.
        pid: Its process id, or None when no process came to be.
        reason: `exit`, `signal`, `protocol`, `start`, `timeout`, `cancelled`, `stopped`, `recycled`, `hang`,
            `memory_limit`, of services `health`, or `oom`; the last only when the kernel's own counter says so.
        exit_code: What it passed to exit, or None when a signal ended it or it is unknown.
        signal: Name of the signal that ended it, such as `SIGSEGV`.
        uptime: Seconds it lived.
        phase: What it was doing: `starting`, `idle`, `running` or `stopping`.
        detail: One sentence more, when there is something to say.
        last_progress: The last progress of the job that was running.
        stderr: Its last 64 lines of stderr.
        stack: Where it was stuck, if it was killed for its silence and could still say so.
        peak_memory: Most memory that it and its descendants were seen to have, in bytes, when that is looked up at all:
            shared pages count once.
        survivors: Processes of its kill set that could not be killed.
    """

    worker: str
    generation: int
    pid: int | None
    reason: str
    exit_code: int | None = None
    signal: str | None = None
    uptime: float = 0.0
    phase: str = "idle"
    detail: str = ""
    last_progress: Progress | None = None
    stderr: tuple[str, ...] = ()
    stack: str = ""
    peak_memory: int | None = None
    survivors: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"child {self.pid} of worker {self.worker} {self._end()}"

    def _end(self) -> str:
        """Return how it ended, as what follows its name in a sentence."""
        if self.signal is not None:
            end = f"was killed by {self.signal}"
        elif self.exit_code is not None:
            end = f"exited with code {self.exit_code}"
        elif self.pid is None:
            end = "could not be started"
        else:
            end = "ended"
        text = f"{end} after {self.uptime:.1f} s while {self.phase}"
        return f"{text}: {self.detail}" if self.detail else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended; there is exactly one per job.

    Attributes:
        status: One of `succeeded, failed, timed_out, cancelled, crashed, quarantined, expired, indeterminate`.
        value: What the target returned, if it succeeded.
        error: The error that `run` would raise, if it did not.
        job_id: Number of the job within its supervisor.
        key: The job's key.
        attempts: How many attempts were made; 0 when it never ran.
        index: Position in the input of `map`, else None.
        item: The input of `map` it belongs to, else None.
        run_seconds: How long the last attempt ran.
        worker: Name of the worker that ran the last attempt.
        usage: What all its attempts together reported with `child.usage`, those that crashed included.
        isolation: Where the last attempt ran: `"process"` or `"inline"`; None when none did.
        artifacts: The files that its attempts named with `child.artifact`, and those in folders that they named, as far
            as they were there when the attempt had ended: each once, at most 1,000 of one attempt.
    """

    status: Status
    value: Any = None
    error: OrchestratorError | None = None
    job_id: int
    key: str | None = None
    attempts: int = 0
    index: int | None = None
    item: Any = None
    run_seconds: float = 0.0
    worker: str | None = None
    usage: Mapping[str, float] = field(default_factory=dict)
    isolation: Isolation | None = None
    artifacts: tuple[Artifact, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether the target returned."""
        return self.status is Status.SUCCEEDED

    @property
    def failure_class(self) -> str | None:
        """What kind of failure it was, in one word; None on success.

        What the exception in the child has for an attribute `failure_class` (those of browser jobs have one), else the
        status, or `error` if that is `failed`.
        """
        if self.status is Status.SUCCEEDED:
            return None
        if self.status is not Status.FAILED:
            return str(self.status)
        record = getattr(self.error, "error", None)
        found = record.data.get("failure_class") if isinstance(record, ErrorRecord) else None
        return found if isinstance(found, str) else "error"

    def result(self) -> Any:
        """Return the value, or raise the error.

        Raises:
            JobError: When the job did not succeed.
        """
        if self.error is not None:
            raise self.error
        return self.value
