"""What `params.yaml` says of a batch: how it is carried out, which limits it keeps, and the rest, for handlers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from orchestrator import Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiprocessing:
    """How a batch is carried out; nothing here changes what comes out.

    Attributes:
        enabled: Whether handlers run in children; else in this process.
        worker_count: How many children; in the file also `auto`, the CPUs that this process may use.
        task_queue_size: Most records that are read ahead and wait for a child.
        result_queue_size: Most results that wait for the sink.
        max_concurrent_requests: Most permits that all children hold together; a record whose handler takes none holds
            one while it runs.
        per_worker_concurrency: Records that an async handler has in work at once in one child.
        task_timeout: Seconds that one attempt at a record may run; None: any time.
        start_timeout: Seconds a child has for becoming ready; None: the supervisor's default.
        max_tasks_per_child: A child is replaced after so many records; None: never.
        memory_limit: Bytes; a child that has more is killed; None: never.
        fallback: What happens when children cannot be had: the same code in this process, or an end of the run.
        attempts: Most attempts at one record, the first included.
        retry_budget: Most retries of transient failures in all, as a share of the records.
        secrets: Names of environment variables whose values children get and nothing else shows.
    """

    enabled: bool = True
    worker_count: int = 4
    task_queue_size: int = 20
    result_queue_size: int = 20
    max_concurrent_requests: int = 6
    per_worker_concurrency: int = 1
    task_timeout: float | None = None
    start_timeout: float | None = None
    max_tasks_per_child: int | None = None
    memory_limit: int | None = None
    fallback: Literal["in_process", "none"] = "in_process"
    attempts: int = 3
    retry_budget: float = 0.2
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """A `params.yaml`, checked.

    Attributes:
        multiprocessing: How the batch is carried out.
        limits: What all children keep together.
        other: Every other section, as JSON: what a handler reads as `child.params()`.
        warnings: What is allowed and surely not meant, a sentence each.
        path: The file, if it came from one.
    """

    multiprocessing: Multiprocessing = field(default_factory=Multiprocessing)
    limits: tuple[Limit, ...] = ()
    other: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    path: str | None = None


def load_params(source: str | os.PathLike[str] | Mapping[str, Any] | None) -> Params:
    """Return what a file, or a mapping of the same shape, says; the defaults for None.

    Raises:
        BatchError: If something in it is wrong: names the file, the line, the key path and the remedy.
    """
    if source is None:
        return Params()
    from orchestrator_adapters.batch._params_check import check_params

    return check_params(source)
