"""The journal as users name it: which file, how safe, how long."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

from orchestrator._models import Seconds, seconds
from orchestrator.exceptions import ConfigurationError

Durability = Literal["power", "process", "none"]


@dataclass(frozen=True, slots=True)
class Journal:
    """The file in which a supervisor records its jobs, so that none is lost and none settles twice.

    A supervisor with a journal accepts a job when it is recorded. After a crash, the next supervisor with the same
    journal goes on with what was left. A journal is used by one supervisor at a time.

    Args:
        path: The file; made if it is missing. Large values go to files in a folder next to it, `<path>.payloads`.
        durability: What an accepted job survives. `"power"`: a power failure. `"process"`: whatever happens to this
            process, but a power failure may take the last half minute. `"none"`: jobs are accepted before they are
            recorded, and a crash may take the last moments.
        keep: Seconds for which settled jobs are kept; None keeps them for ever. Quarantined ones stay until they are
            released or discarded.
    """

    path: str | os.PathLike[str]
    _: KW_ONLY
    # What a killed program loses hurts every day; what a power failure loses costs five times as much to prevent.
    durability: Durability = "process"
    # A week: a duplicate that is submitted after a long weekend is still seen.
    keep: Seconds | None = 7 * 86_400.0

    def __post_init__(self) -> None:
        try:
            path = os.fspath(self.path)
        except TypeError:
            path = ""
        if not isinstance(path, str) or not path or "\0" in path:
            raise ConfigurationError("journal.path", f"must be the path of a file, not {self.path!r}")
        # The program may change its folder before the file is opened.
        object.__setattr__(self, "path", os.path.abspath(path))
        if self.durability not in get_args(Durability):
            raise ConfigurationError("journal.durability", f"must be power, process or none, not {self.durability!r}")
        object.__setattr__(self, "keep", seconds(self.keep, "journal.keep"))
