"""One supervisor at one moment, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator._models import DeathCertificate, Isolation


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatistics:
    """One worker at one moment.

    Attributes:
        state: `down`, `starting`, `ready`, `busy`, `suspect` (silent for long: it gets no more jobs), `spare` (ready,
            and kept for the place of another), `stopping`, `backoff` or `broken`.
        pid: Of its child, if there is one.
        flavour: `plain`, `async` or `sync-browser` once the first job fixed it.
        generation: How many children it has had.
        restarts: How many of them replaced one that died.
        running: Attempts it has been given and not finished.
        jobs_done: Attempts its current child has finished.
        last_death: Certificate of its previous child.
        isolation: What its child is, or the next one will be: `process` or `inline`.
    """

    name: str
    state: str
    pid: int | None
    flavour: str | None
    generation: int
    restarts: int
    running: int
    jobs_done: int
    last_death: DeathCertificate | None
    isolation: Isolation = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatistics:
    """One service at one moment.

    Attributes:
        name: Its name.
        state: `waiting` (for a service that it depends on), `starting`, `ready`, `unhealthy` (its last health check
            failed), `backoff` (before it is started again), `stopping`, `stopped` or `failed`.
        reason: Why, in a sentence; empty where there is nothing to explain.
        pid: Of its process, or None.
        host: The address that it listens on.
        port: Its port; None if it has none, or could not get it.
        url: Where it is found; None without a port.
        generation: How often it was started.
        restarts: How often it was started again.
        last_death: How its last process ended.
    """

    name: str
    state: str
    reason: str
    pid: int | None
    host: str
    port: int | None
    url: str | None
    generation: int
    restarts: int
    last_death: DeathCertificate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatistics:
    """One limit, or one dimension of it (`api.tokens`), at one moment.

    Attributes:
        held: Units that are held.
        waiting: Requests that wait for it.
        granted: Units granted so far.
        rate: Units per `per` seconds that are in force now; None if it has no rate.
        factor: Share of the rate (or of the concurrency, where there is no rate) that refusals have left, 0.05 to 1.
        paused_for: Seconds until it grants again after a refusal; 0 while it is not paused.
        throttled: How often the other side refused (`throttled`, or a 429).
        oldest_wait: Seconds that the oldest of the waiting requests has waited.
    """

    name: str
    held: float
    waiting: int
    granted: float
    rate: float | None = None
    factor: float = 1.0
    paused_for: float = 0.0
    throttled: int = 0
    oldest_wait: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """The cache at one moment.

    Attributes:
        entries: Keys that it has.
        bytes: What they take: values, each counted once, and a little for each key; `cache_bytes` bounds this.
        hits: Keys that were asked for and were there, or came while their asker waited.
        misses: Keys that jobs were told to compute.
        computed: Values that jobs computed and the cache took.
    """

    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    computed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """One supervisor at one moment.

    Attributes:
        state: `open`, `draining`, `broken`, `stalled` (its journal cannot be written for now) or `closed`.
        submitted: Jobs accepted so far; equals queued + running + waiting + settled at every moment.
        queued: Jobs that wait for a child or a limit.
        running: Jobs that a child holds.
        waiting: Jobs that wait for their next attempt.
        settled: Outcomes so far, by status.
        retries: Attempts made beyond each job's first.
        restarts: Children started in place of one that died.
        dropped_log_lines: Lines of children that were dropped because there were too many.
        abandoned_threads: Inline children that were given up and still run their job, in a thread or on the loop.
        survivors: Processes that could not be killed.
        broken_reason: Why the pool is broken, else None.
        isolation: What children are that are started now: `process` or `inline`.
        fallback_reason: Why they are `inline` although they were to be processes, else None.
        cache: What the jobs' cache has, and how often it helped.
        services: Its services, in the order in which they were begun.
    """

    state: str
    submitted: int
    queued: int
    running: int
    waiting: int
    settled: Mapping[str, int]
    retries: int
    restarts: int
    workers: tuple[WorkerStatistics, ...]
    limits: tuple[LimitStatistics, ...]
    dropped_log_lines: int = 0
    abandoned_threads: int = 0
    survivors: tuple[int, ...] = ()
    broken_reason: str | None = None
    isolation: Isolation = "process"
    fallback_reason: str | None = None
    cache: CacheStatistics = CacheStatistics()
    services: tuple[ServiceStatistics, ...] = ()
