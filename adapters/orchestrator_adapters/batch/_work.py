"""The supervisor of a batch: which options it gets, what its first line says, and each outcome handed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator import Job, RetryPolicy, Supervisor
from orchestrator.exceptions import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator import Outcome
    from orchestrator_adapters.batch._feed import Feed
    from orchestrator_adapters.batch._gate import Entry
    from orchestrator_adapters.batch._params import Params


class Plan(NamedTuple):
    """How the records of a batch are run.

    Attributes:
        target: The handler.
        params: What `params.yaml` says.
        in_children: Whether children run it, or this process does.
        secrets: What children get over their pipe.
        cache: The file that keeps the shared cache.
    """

    target: Callable[..., Any] | str
    params: Params
    in_children: bool
    secrets: Sequence[str] | Mapping[str, str | Callable[[], str]]
    cache: str

    @property
    def slots(self) -> int:
        """Attempts that can run at once."""
        return self.params.multiprocessing.worker_count * self.params.multiprocessing.per_worker_concurrency

    def job(self) -> Job:
        """Return the template of all jobs."""
        options = self.params.multiprocessing
        # What a crash costs is known here: who died is tried again by the supervisor, alone if need be.
        retry = RetryPolicy(options.attempts, on="crash") if options.attempts > 1 else None
        return Job(self.target, timeout=options.task_timeout, retry=retry, convert="json")

    def supervisor(self, *, cached: bool = True) -> Supervisor:
        """Return the supervisor, to be entered."""
        options = self.params.multiprocessing
        given: dict[str, Any] = {
            "workers": options.worker_count,
            "name": "batch",
            "concurrency": options.per_worker_concurrency,
            "limits": self.params.limits,
            "isolation": "process" if self.in_children else "inline",
            "secrets": self.secrets,
            "params": self.params.other,
            "max_permits": options.max_concurrent_requests,
            "max_jobs": options.max_tasks_per_child,
            "memory_limit": options.memory_limit if self.in_children else None,
            "fallback": "inline" if options.fallback == "in_process" else None,
            "cache": self.cache if cached else None,
            "on_exit": "cancel",
        }
        if options.start_timeout is not None:
            given["start_timeout"] = options.start_timeout
        return Supervisor(**given)

    def start_line(self) -> str:
        """Return what is said before the first record runs."""
        options = self.params.multiprocessing
        parts = [
            f"executor {'processes' if self.in_children else 'in_process'}",
            f"{options.worker_count} workers"
            + (f" with {options.per_worker_concurrency} at once" if options.per_worker_concurrency > 1 else ""),
            f"task queue {options.task_queue_size}",
            f"result queue {options.result_queue_size}",
            f"at most {options.max_concurrent_requests} requests at once",
        ]
        limits = []
        for limit in self.params.limits:
            bounds = []
            if limit.rate is not None:
                bounds.append(f"{limit.rate:g} per {limit.per:g} s")
            if limit.concurrency is not None:
                bounds.append(f"{limit.concurrency} at once")
            limits.append(f"{limit.name} {' and '.join(bounds) or 'by its dimensions'}")
        return f"{', '.join(parts)}; limits: {', '.join(limits) or 'none'}"


async def run_records(
    supervisor: Supervisor,
    job: Job,
    feed: Feed,
    settle: Callable[[Entry, Outcome], None],
    refuse: Callable[[Entry, PayloadError], None],
) -> None:
    """Run records as the feed gives them, to its end.

    Args:
        supervisor: Entered.
        job: The template.
        feed: Gives records.
        settle: Gets each record with its outcome.
        refuse: Gets a record that cannot be sent, with the reason.

    Raises:
        TargetError: If no child could run the handler.
    """
    while not feed.is_over:
        try:
            async with supervisor.map(job, feed.records()) as outcomes:
                async for outcome in outcomes:
                    settle(feed.returned(outcome.index), outcome)
        except PayloadError as error:
            # Larger than a message may be. The map ended when all before it were done; another one goes on.
            refuse(feed.returned(None), error)
