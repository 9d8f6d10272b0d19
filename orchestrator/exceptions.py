"""Every exception the library raises, with its data on attributes.

OrchestratorError
├── ConfigurationError (ValueError)      an option, limit or policy is wrong
├── TargetError (TypeError)              a target cannot be run in a child, or its arguments do not fit
├── PayloadError (TypeError)             a value cannot travel exactly
│   └── PayloadTooLarge                  … or is larger than max_message_bytes
├── LaunchError                          this host cannot start a child
│   └── SelfSpawnError                   … because the program would start itself
├── PoolBroken                           children keep failing to start
├── ServiceFailed                        a service is not, and will not be, ready
├── JournalError                         the journal cannot be opened
│   ├── JournalInUse                     … because another supervisor uses it
│   └── JournalDamaged                   … because its file is damaged, or no journal
├── CacheError                           the cache cannot be opened
│   ├── CacheInUse                       … because another supervisor uses it
│   └── CacheDamaged                     … because its file is damaged, or no cache
├── QueueFull                            there is no room for another job now
├── KeyConflict                          the journal has another job under this key
├── SupervisorClosed (RuntimeError)      the supervisor is not open (any more)
├── WrongContext (RuntimeError)          called from another loop, thread or a forked process
└── JobError                             one job did not succeed
    ├── JobFailed                        the target raised
    ├── JobCrashed                       the child died while it ran the job
    │   └── JobQuarantined               … three times
    ├── JobTimedOut                      the attempt's run took longer than `timeout`
    ├── JobExpired                       queue_timeout or total_timeout ran out
    ├── JobCancelled                     somebody cancelled the job
    └── JobIndeterminate                 it is unknown whether an outside effect happened
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator._models import DeathCertificate, ErrorRecord

__all__ = (
    "CacheDamaged",
    "CacheError",
    "CacheInUse",
    "ConfigurationError",
    "JobCancelled",
    "JobCrashed",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobIndeterminate",
    "JobQuarantined",
    "JobTimedOut",
    "JournalDamaged",
    "JournalError",
    "JournalInUse",
    "KeyConflict",
    "LaunchError",
    "OrchestratorError",
    "PayloadError",
    "PayloadTooLarge",
    "PoolBroken",
    "QueueFull",
    "SelfSpawnError",
    "ServiceFailed",
    "SupervisorClosed",
    "TargetError",
    "WrongContext",
)


class OrchestratorError(Exception):
    """Base of everything the library raises on purpose."""


class ConfigurationError(OrchestratorError, ValueError):
    """Raised when an option has a value it cannot have; `field` names it.

    Attributes:
        field: The option, as the caller wrote it (`workers`, `limits[0].rate`).
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class TargetError(OrchestratorError, TypeError):
    """Raised at submit when a target cannot be run in a child or its arguments do not fit its signature."""


class PayloadError(OrchestratorError, TypeError):
    """Raised when a value cannot travel exactly; `path` says which part of it.

    Attributes:
        path: Where the value is, for example `kwargs.pins[3].when` or `result`.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class PayloadTooLarge(PayloadError):
    """Raised when encoded arguments or a result exceed `max_message_bytes`."""


class KeyConflict(OrchestratorError):
    """Raised when a job's key is, in the journal, that of a job with another target or other arguments."""


class QueueFull(OrchestratorError):
    """Raised by `submit_nowait` when `queue_size` jobs are waiting already; the job was not accepted."""


class LaunchError(OrchestratorError):
    """Raised when this host cannot start a child; the message names the remedy."""


class SelfSpawnError(LaunchError):
    """Raised instead of starting a child that would run the program itself again."""


class PoolBroken(OrchestratorError):
    """Raised to waiting callers when children keep failing to start.

    Attributes:
        certificate: The last death certificate, with the child's stderr, or None when no process came to be.
    """

    def __init__(self, message: str, certificate: DeathCertificate | None = None) -> None:
        super().__init__(message)
        self.certificate = certificate


class ServiceFailed(OrchestratorError):
    """Raised to those who wait for a service that has failed or was stopped, or that waits for one which has.

    Attributes:
        service: Its name.
        state: `failed`, `stopped`, or `waiting` if a service that it depends on has failed.
        reason: Why, in a sentence.
        certificate: How its last process ended, with the last lines of its stderr; None when there was none.
    """

    def __init__(self, service: str, state: str, reason: str, certificate: DeathCertificate | None = None) -> None:
        text = f"service {service!r} is {state}: {reason}" if reason else f"service {service!r} is {state}"
        if certificate is not None and certificate.stderr:
            text += "\n\nThe last lines of its stderr:\n" + "\n".join(certificate.stderr)
        if certificate is not None and certificate.stack:
            text += f"\n\nIt hung at:\n{certificate.stack}"
        super().__init__(text)
        self.service = service
        self.state = state
        self.reason = reason
        self.certificate = certificate


class JournalError(OrchestratorError):
    """Raised when a journal cannot be opened; the message names the remedy.

    Attributes:
        path: The journal's file.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"the journal {path!r} {problem}")
        self.path = path


class JournalInUse(JournalError):
    """Raised when another supervisor, in this process or another, uses the journal."""


class JournalDamaged(JournalError):
    """Raised when the file is damaged, is no journal, or was written by a later version; it is left as it is."""


class CacheError(OrchestratorError):
    """Raised when the file of a cache cannot be opened; the message names the remedy.

    Attributes:
        path: The cache's file.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"the cache {path!r} {problem}")
        self.path = path


class CacheInUse(CacheError):
    """Raised when another supervisor, in this process or another, uses the cache."""


class CacheDamaged(CacheError):
    """Raised when the file is damaged, is no cache, or was written by a later version; it is left as it is."""


class SupervisorClosed(OrchestratorError, RuntimeError):
    """Raised when a supervisor is used before it was entered or after it was left."""


class WrongContext(OrchestratorError, RuntimeError):
    """Raised when a supervisor is used from another event loop, thread or a forked copy of its process."""


class JobError(OrchestratorError):
    """Base of the errors that end a job.

    Attributes:
        job_id: Number of the job within its supervisor.
        key: The job's key, if it has one.
        attempts: How many attempts were made.
        survivors: Processes that the job had started, and that could not be killed.
    """

    survivors: tuple[int, ...] = ()

    def __init__(self, message: str, *, job_id: int = 0, key: str | None = None, attempts: int = 0) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.key = key
        self.attempts = attempts


class JobFailed(JobError):
    """Raised when the target raised; the child's traceback is part of the message.

    Attributes:
        error: The remote exception as data: type, message, traceback text, notes, causes.
    """

    def __init__(
        self, message: str, *, error: ErrorRecord, job_id: int = 0, key: str | None = None, attempts: int = 0
    ) -> None:
        super().__init__(message, job_id=job_id, key=key, attempts=attempts)
        self.error = error

    def __str__(self) -> str:
        return f"{self.args[0]}\n\n{self.error.traceback}" if self.error.traceback else str(self.args[0])


class JobCrashed(JobError):
    """Raised when the child died while it ran the job.

    Attributes:
        certificate: All that is known of why the child ended: exit code or signal, pid, stderr tail, last progress.
    """

    def __init__(
        self,
        message: str,
        *,
        certificate: DeathCertificate,
        job_id: int = 0,
        key: str | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message, job_id=job_id, key=key, attempts=attempts)
        self.certificate = certificate


class JobQuarantined(JobCrashed):
    """Raised when a job killed its child three times and is given up."""


class JobTimedOut(JobError):
    """Raised when an attempt ran longer than its `timeout` (or was silent longer than its `progress_timeout`).

    Attributes:
        timeout: The bound in seconds.
        stack: The child's stack where it hung, as text; empty when the child could not tell.
    """

    def __init__(
        self,
        message: str,
        *,
        timeout: float,
        stack: str = "",
        job_id: int = 0,
        key: str | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message, job_id=job_id, key=key, attempts=attempts)
        self.timeout = timeout
        self.stack = stack

    def __str__(self) -> str:
        return f"{self.args[0]}\n\nIt hung at:\n{self.stack}" if self.stack else str(self.args[0])


class JobExpired(JobError):
    """Raised when `queue_timeout` ran out before a child took the job, or `total_timeout` before it settled.

    It comes at once when the job's limits cannot be had within its `queue_timeout`.

    Attributes:
        retry_after: Seconds until its limits could be had at the earliest, if they were the reason.
    """

    retry_after: float | None = None


class JobCancelled(JobError):
    """Raised to those who wait for a job that somebody else cancelled."""


class JobIndeterminate(JobError):
    """Raised when it is unknown whether an outside effect happened; the job is not run again by itself.

    Attributes:
        effect: Key of the effect that was begun and not done; None when the job had no effect open.
    """

    def __init__(
        self, message: str, *, effect: str | None = None, job_id: int = 0, key: str | None = None, attempts: int = 0
    ) -> None:
        super().__init__(message, job_id=job_id, key=key, attempts=attempts)
        self.effect = effect
