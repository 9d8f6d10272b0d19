"""How a job ended, in words for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orchestrator.exceptions import (
    JobCancelled,
    JobCrashed,
    JobError,
    JobExpired,
    JobFailed,
    JobIndeterminate,
    JobTimedOut,
)

if TYPE_CHECKING:
    from orchestrator import Outcome


class Ending(NamedTuple):
    """What a page says of a job that did not succeed.

    Attributes:
        short: A few words, for the line with the job's name.
        headline: One or two sentences.
        details: The child's traceback, its stack or its last words on stderr; may be empty.
        language: Of the details, for colours.
    """

    short: str
    headline: str
    details: str = ""
    language: str = "text"


def explain(outcome: Outcome) -> Ending:
    """Say why a job did not succeed."""
    error = outcome.error
    match error:
        case JobFailed():
            return Ending("failed", f"{error.error.type}: {error.error.message}", error.error.traceback, "python")
        case JobCrashed():
            stderr = "\n".join(error.certificate.stderr)
            return Ending("crashed", str(error), stderr)
        case JobTimedOut():
            return Ending("took too long", str(error.args[0]), error.stack)
        case JobCancelled():
            return Ending("cancelled", "The job was cancelled.")
        case JobExpired():
            return Ending("waited too long", str(error))
        case JobIndeterminate():
            return Ending("unknown end", str(error))
        case JobError() | None:
            return Ending(str(outcome.status), str(error or ""))
        case _:  # refused before it became a job
            return Ending("not started", str(error))
