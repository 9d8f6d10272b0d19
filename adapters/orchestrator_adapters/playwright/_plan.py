"""What one attempt needs, read from its call before anything is started."""

from __future__ import annotations

import os

from orchestrator import child
from orchestrator.exceptions import TargetError
from orchestrator_adapters.playwright._first import first_parameter
from orchestrator_adapters.playwright._launch import describe
from orchestrator_adapters.playwright._options import BrowserOptions
from orchestrator_adapters.playwright._recycle import Bounds
from orchestrator_adapters.playwright._states import Keeper, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.child import Call

# A context is made in 30 ms and closed in 20; these are for a machine that is busy.
OPEN_DEADLINE = 30.0
CLOSE_DEADLINE = 5.0
# Of an attempt that was asked to end: the supervisor loses its patience soon.
HURRIED_DEADLINE = 1.0
# A browser that starts, or a context that is being closed, gets a little longer than a call: the child is killed after
# two seconds.
LAST_PATIENCE = 1.5
# However late it is: with less, each browser that is a little slow would be killed.
LEAST = 0.3
# For trace and screenshots, which have deadlines of their own below these.
EVIDENCE_DEADLINE = 20.0
DOWNLOADS_DEADLINE = 10.0
# Until what Playwright was told of the end of a process can be seen in the process.
DEATH_TAKES = 0.5
# Of either part of a download's name: of 255 bytes, a letter may take four.
_LONGEST = 30
# Until a page's crash is told of, after the navigation that it broke off: only a job that failed waits for it.
CRASH_TAKES = 1.0


class Plan:
    """One attempt's wishes.

    Attributes:
        first: `page`, `context` or `browser`.
        options: Which browser, and how its context is set up.
        artifacts: The policy of what to keep, as JSON values; None for nothing.
        no_artifacts: The policy under which only what the job downloads is kept.
        bounds: How long a browser may serve.
        keeper: Keeps storage states.
        name: What to call the browser in a text.

    Raises:
        TargetError: If the target's first parameter does not say what it gets.
    """

    def __init__(self, call: Call) -> None:
        first, problem = first_parameter(call.function)
        if first is None:
            raise TargetError(f"this is no target of a browser job: {problem}")
        self.first = first
        self.options = BrowserOptions.from_json(call.options["browser"])
        if first == "browser" and self.options.mode == "persistent":
            raise TargetError("a persistent profile is one context: take page or context, not browser")
        self.artifacts: dict[str, Any] | None = call.options.get("artifacts")
        off = {"trace": "off", "video": "off", "screenshot": "off", "console": "off"}
        self.no_artifacts: dict[str, Any] = {**off, "folder": call.options.get("folder") or "artifacts"}
        options = self.options
        self.bounds = Bounds(options.recycle_after, options.recycle_age, options.recycle_memory)
        self.keeper = Keeper(os.fspath(options.states))
        self.name = describe(options)

    def state(self) -> dict[str, Any] | None:
        """Return the storage state that the context starts with.

        Raises:
            StateMissing: If it is not there.
        """
        if self.options.storage_state is None:
            return None
        return load(os.fspath(self.options.storage_state), self.keeper.folder)


def download_path(folder: str, name: str, taken: set[str]) -> str:
    """Return where a download goes; a second one of the same name gets a number."""
    # What a server suggests may hold anything; only a name is taken of it, and no more than a file system takes.
    safe = os.path.basename(name.replace("\\", "/")).strip().lstrip(".") or "download"
    stem, dot, suffix = safe.partition(".")
    stem, suffix = stem[:_LONGEST], suffix[-_LONGEST:]
    safe = f"{stem}{dot}{suffix}"
    number = 1
    while safe in taken:
        number += 1
        safe = f"{stem}-{number}{dot}{suffix}"
    taken.add(safe)
    return os.path.join(folder, "downloads", safe)


def tell_lost(download: Any, error: BaseException) -> None:
    """Say in the job's log that what it downloaded is not kept."""
    late = isinstance(error, TimeoutError)
    why = f"it was not finished {DOWNLOADS_DEADLINE:g} s after the job ended" if late else str(error).partition("\n")[0]
    child.log(f"download {download.suggested_filename!r} is left out: {why}", "warning")
