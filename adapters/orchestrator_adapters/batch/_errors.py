"""The one exception of a batch: why it did not start, or did not finish."""

from __future__ import annotations

import errno

from orchestrator.exceptions import OrchestratorError

# What the command line exits with. 75 is EX_TEMPFAIL of sysexits.h: the same command again goes on.
USAGE = 2
RESUMABLE = 75

_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


class BatchError(OrchestratorError):
    """Raised when a batch cannot start, or ends before every record is done; nothing that was done is lost.

    Attributes:
        exit_code: 2 if the caller has to change something, 75 if the same command may simply be given again.
    """

    def __init__(self, message: str, exit_code: int = USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def reason(error: OSError) -> str:
    """Return what the system says of an error, without its number and path."""
    return error.strerror or str(error) or type(error).__name__


def from_os_error(what: str, error: OSError, exit_code: int = USAGE) -> BatchError:
    """Return the exception for what the system refused; a full disk can always be resumed from.

    Args:
        what: What cannot be done, a sentence without full stop.
        error: What the system said.
        exit_code: What it is when the disk is not full.
    """
    is_full = error.errno in _FULL
    remedy = "; make room and give the same command again" if is_full else ""
    return BatchError(f"{what}: {reason(error)}{remedy}", RESUMABLE if is_full else exit_code)
