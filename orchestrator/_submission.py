"""From what a caller wrote to a record that the engine takes: target found, arguments checked and encoded."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from orchestrator import _codec
from orchestrator._models import Job
from orchestrator._record import Listener, Record
from orchestrator._targets import Target, Targets
from orchestrator._units import Catalogue
from orchestrator.exceptions import ConfigurationError, QueueFull, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator._options import Options
    from orchestrator._service_plan import Plan
    from orchestrator._service_spec import Service


# Jobs that are on their way for each job that can run: enough that quick ones, of which a child takes dozens ahead,
# never wait for the reader of outcomes.
AHEAD = 128


class Submission:
    """One call on its way to become a record."""

    __slots__ = ("_largest", "args", "job", "kwargs", "target")

    def __init__(self, job: Job, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any], largest: int) -> None:
        self.job = job
        self.target = target
        self.args = args
        self.kwargs = kwargs
        self._largest = largest

    @property
    def is_large(self) -> bool:
        """Whether encoding takes so long that a thread should do it."""
        return _codec.is_large(self.args) or bool(self.kwargs and _codec.is_large(self.kwargs))

    def encode(self) -> _codec.Payload:
        """Check and encode the arguments."""
        return _codec.encode_job(self.job, self.target, self.args, self.kwargs, self._largest)

    def public_job(self) -> Job:
        """Return the job as its author would have written it."""
        if self.job is not self.target.job:
            return self.job
        return Job(self.job.target, args=self.args, kwargs=self.kwargs)


def read_map(target: Any, items: Any) -> tuple[Job | None, Any]:
    """Return the template and the iterable that `map` was called with; without a template, that is one of jobs.

    Raises:
        ConfigurationError: If it cannot be called so.
    """
    if isinstance(target, Job | str) or callable(target):
        if items is None:
            raise ConfigurationError("items", "are missing; map takes a target and items, or an iterable of jobs")
        template = target if isinstance(target, Job) else Job(target)
        if template.args:
            raise ConfigurationError("target.args", "must be empty: each item is the one positional argument")
        return template, items
    if items is not None:
        raise ConfigurationError("target", f"must be a function, a name or a Job, not {type(target).__name__}")
    return None, target


def identity_for(template: Job | None, index: int) -> str | None:
    """Return what a journal knows an item of `map` by; a template's key is the same for all of them."""
    return None if template is None or template.key is None else f"{template.key}[{index}]"


class Submitter:
    """Makes submissions and records for one supervisor; safe to use from several threads."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._targets = Targets(same_modules=options.command is None and not options.preload)
        self._largest = options.max_message_bytes
        self._is_inline = options.isolation == "inline"
        self.catalogue = Catalogue(options.limits)
        self._numbers = itertools.count(1)
        self._template: tuple[Job, Target] | None = None  # what the last item was for, and its target

    def make(
        self, target: Callable[..., Any] | str | Job, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Submission:
        """Return the submission of a call.

        Raises:
            TargetError: If no child could run it.
            ConfigurationError: If the job asks for a limit that does not exist.
        """
        if isinstance(target, Job):
            if args or kwargs:
                raise ConfigurationError("job", "has its arguments already; run(job) takes no more")
            return self.from_job(target)
        if not callable(target) and not isinstance(target, str):
            raise TargetError(f"the target must be a function, its name or a Job, not {target!r:.100}")
        found = self._targets.resolve(target)
        if kwargs:
            found.warn_of_options(kwargs)
        return Submission(found.job, found, args, kwargs, self._largest)

    def check_nowait(self) -> None:
        """Raise ConfigurationError where a job is accepted only after some waiting."""
        if self._options.journal is not None:
            raise ConfigurationError("journal", "has a job for good after a moment: use submit, which waits for that")

    def queue_full(self) -> QueueFull:
        """Return the error of a queue without room."""
        return QueueFull(f"{self._options.queue_size} jobs are waiting already: that is this supervisor's queue_size")

    def from_job(self, job: Job) -> Submission:
        """Return the submission of a job."""
        if job.limits:
            self.catalogue.expand(job.limits, "job.limits")
        found = self._targets.resolve(job.target, job.fixture)
        if job.fixture is not None and self._is_inline:
            raise TargetError(
                f"{found.label} has a fixture, which takes a child process; this supervisor has isolation='inline'"
            )
        if job.reconcile is not None:
            try:
                self._targets.resolve(job.reconcile)
            except TargetError as error:
                raise TargetError(f"job.reconcile: {error}") from None
        if job.init is not None and (found.function is not None or "." not in found.reference.partition(":")[2]):
            raise ConfigurationError("job.init", 'is for targets named "package.module:Class.method"')
        return Submission(job, found, job.args, job.kwargs, self._largest)

    def from_item(self, template: Job | None, item: Any, index: int) -> Submission:
        """Return the submission for an item of `map`; a template is checked once, whatever the number of items."""
        if template is None:
            if not isinstance(item, Job):
                raise ConfigurationError(f"items[{index}]", f"must be a Job, not {type(item).__name__}")
            return self.from_job(item)
        last = self._template
        if last is None or last[0] is not template or template.limits:  # limits may change meanwhile
            last = self._template = template, self.from_job(template).target
        return Submission(template, last[1], (item,), template.kwargs, self._largest)

    def plan(self, service: Service) -> Plan:
        """Check a service.

        Raises:
            ConfigurationError: If it is none, or its script cannot be run.
            TargetError: If its target cannot be run in a child, or the arguments do not fit.
            PayloadError: If an argument cannot travel exactly.
        """
        # Who has only jobs need not wait for these imports.
        from orchestrator._service_plan import plan
        from orchestrator._service_spec import Service

        if not isinstance(service, Service):
            raise ConfigurationError("service", f"must be a Service, not {service!r:.100}")
        return plan(service, self._options, self._targets)

    def start_after(self, number: int) -> None:
        """Number jobs from the next one on: those of earlier runs, in a journal, have the others."""
        self._numbers = itertools.count(number + 1)

    def record(self, submission: Submission, payload: _codec.Payload, listener: Listener) -> Record:
        """Return a numbered record."""
        return Record(next(self._numbers), submission.job, submission.target, payload, listener)
