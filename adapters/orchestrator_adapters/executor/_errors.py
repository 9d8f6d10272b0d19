"""What a future raises when its call did not come to an end of its own; all are kinds of `BrokenProcessPool`."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.exceptions import JobCrashed

__all__ = ("CallCrashed", "CallUnreadable", "InitializerFailed")


class CallCrashed(BrokenProcessPool):
    """Raised when the child died while it ran this call; the executor goes on, and so do all other calls.

    Attributes:
        certificate: A `DeathCertificate`: exit code or signal, pid, the end of stderr.
    """

    def __init__(self, message: str, error: JobCrashed | None = None) -> None:
        super().__init__(message)
        self.certificate = None if error is None else error.certificate
        self.__cause__ = error


class CallUnreadable(BrokenProcessPool):
    """Raised when a call could not be rebuilt in the child, or its result or exception here; no other call failed."""


class InitializerFailed(BrokenProcessPool):
    """Raised by every call, those that come later too, once the initializer has failed in a child."""
