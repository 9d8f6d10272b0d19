"""What happens to a job while it runs, as its reader sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The job called `child.progress`."""

    kind: ClassVar[Literal["progress"]] = "progress"
    done: float
    total: float | None = None
    text: str = ""
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One line the job printed, logged or sent with `child.log`.

    Attributes:
        stream: `stdout`, `stderr`, `log` (child.log), `logging` or `warnings`.
        level: `debug`, `info`, `warning`, `error` or `critical`.
        logger: Name of the logger, for records of `logging`.
        dropped: How many lines before this one were dropped because there were too many.
        fields: What else was said, as JSON values.
    """

    kind: ClassVar[Literal["log"]] = "log"
    text: str
    stream: str = "log"
    level: str = "info"
    logger: str | None = None
    dropped: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A generator target yielded, or the job called `child.emit`."""

    kind: ClassVar[Literal["item"]] = "item"
    value: Any
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The job named a file it made with `child.artifact`."""

    kind: ClassVar[Literal["artifact"]] = "artifact"
    path: str
    name: str
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """The job moved on: `queued`, `running`, `waiting` (before a retry), or a final status."""

    kind: ClassVar[Literal["state"]] = "state"
    state: str
    attempt: int = 0


Event = Progress | Log | Item | Artifact | StateChange
