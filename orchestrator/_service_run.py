"""All that is known of one process of a service, up to its death certificate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator import _wire
from orchestrator._models import DeathCertificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator._child_process import Child, Exit


class Run:
    """One process.

    Args:
        began: When it was started, on the loop's clock.

    Attributes:
        cause: Why it is to end, if we decided that: the `reason` of its certificate.
        detail: One sentence more.
        problem: What the last question for its readiness brought.
        ready_at: When it was ready; None if it was not.
        peak: Most memory that it was seen to have.
        stack: Where it was when it was killed for not answering.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self.cause = ""
        self.detail = ""
        self.problem = ""
        self.ready_at: float | None = None
        self.peak: int | None = None
        self.stack = ""

    @property
    def is_planned(self) -> bool:
        """Whether its end is no fault of its own."""
        return self.cause in ("stopped", "recycled")

    def certify(
        self, name: str, generation: int, child: Child, end: Exit, ran_out_of_memory: Callable[[], bool]
    ) -> DeathCertificate:
        """Return its death certificate."""
        reason = self.cause or self._reason_of(child, end, ran_out_of_memory)
        starting = "starting" if self.ready_at is None else "running"
        return DeathCertificate(
            worker=name,
            generation=generation,
            pid=child.pid,
            reason=reason,
            exit_code=end.code,
            signal=end.signal,
            uptime=time.monotonic() - child.born,
            phase="stopping" if self.is_planned else starting,
            detail=self.detail,
            stderr=child.stderr.tail(),
            stack=self.stack,
            peak_memory=self.peak,
        )

    def _reason_of(self, child: Child, end: Exit, ran_out_of_memory: Callable[[], bool]) -> str:
        if child.closed_early or end.code == _wire.EXIT_PROTOCOL:
            self.detail = self.detail or "it closed its side of the protocol"
            return "protocol"
        if end.signal == "SIGKILL" and ran_out_of_memory():
            self.detail = self.detail or "the kernel killed it for want of memory (its own count says so)"
            return "oom"
        return "signal" if end.signal is not None else "exit"
