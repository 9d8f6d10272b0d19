"""What a worker needs of those it works for: the pool, the desk that has the jobs, who listens to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:

    from orchestrator import _frames
    from orchestrator._attempt import Attempt
    from orchestrator._child_process import Burial, Child
    from orchestrator._guarded_loop import GuardedLoop
    from orchestrator._inline import InlineChild
    from orchestrator._models import DeathCertificate
    from orchestrator._record import Record
    from orchestrator._worker import Worker


class Pool(Protocol):
    """What a worker needs of the pool it is in."""

    loop: GuardedLoop
    start_timeout: float
    grace: float
    slots: int

    def run_child(self, worker: Worker, child: Child | InlineChild) -> None: ...
    def child_ready(self, worker: Worker) -> None: ...
    def child_died(
        self, worker: Worker, certificate: DeathCertificate, *, was_ready: bool, blameless: bool
    ) -> None: ...
    def child_buried(self, worker: Worker, child: Child | InlineChild) -> None: ...
    def has_room(self, worker: Worker) -> None: ...
    def relieve(self, worker: Worker) -> None: ...
    def ran_out_of_memory(self) -> bool: ...
    def log(self, event: str, level: str = "info", **fields: Any) -> None: ...


class Desk(Protocol):
    """Who hears of the jobs in a worker's child."""

    def leased(self, record: Record) -> int: ...
    def sending(self, attempt: Attempt, frame: bytes) -> bytes: ...
    def spill(self, attempt: Attempt, path: str) -> None: ...
    def answered(self, attempt: Attempt, frame: _frames.Result | _frames.Error) -> None: ...
    def returned(self, attempt: Attempt, kind: str | None = None) -> None: ...
    def crashed(self, attempts: list[Attempt], certificate: DeathCertificate, buried: Burial) -> None: ...


class Listener(Protocol):
    """Who hears what running jobs say."""

    def told(self, attempt: Attempt, frame: _frames.Frame) -> None: ...
    def logged(self, worker: Worker, attempt: Attempt | None, frame: _frames.Logged) -> None: ...
