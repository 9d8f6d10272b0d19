"""What evidence browser jobs leave behind: trace, video, screenshots, console, and how much of it is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping  # noqa: TC003  whoever asks for type hints must get them
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

from orchestrator.exceptions import ConfigurationError
from orchestrator_adapters.playwright._retention import MODES, SCREENSHOT_MODES

CONSOLE_MODES = ("off", "on", "retain-on-failure")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactPolicy:
    """What is recorded of each attempt of a browser job, and what of it is kept; modes are those of Playwright Test.

    What is kept lies in `folder/<key or target>-<job>/attempt-<n>/` and is listed in `Outcome.artifacts`. Evidence is
    written while the attempt runs, so that it is there when the child, the browser or the driver is killed.

    The modes of `trace` and `video`: `"off"`; `"on"`: every attempt; `"retain-on-failure"`: every attempt, removed when
    it succeeds; `"on-first-retry"`: only attempt 2; `"on-all-retries"`: every attempt but the first;
    `"retain-on-first-failure"`: only attempt 1, removed when it succeeds; `"retain-on-failure-and-retries"`: every
    attempt, removed when the first one succeeds.

    Attributes:
        trace: When to record a trace: actions, DOM snapshots, a film strip, network and console. Open it with
            `playwright show-trace`. It costs 10 to 20 per cent of a job's time.
        video: When to record a video; needs ffmpeg. Off by default, for it costs most and the trace shows more.
        screenshot: `"off"`; `"on"`: each page at the end of every attempt; `"only-on-failure"`; `"on-first-failure"`:
            only when attempt 1 fails.
        console: `"off"`, `"on"` or `"retain-on-failure"`: console messages, page errors, crashes and failed requests as
            JSON lines in `console.jsonl`.
        folder: Where evidence goes; relative to the current directory of the process that makes the job.
        max_mb_per_job: Most that one attempt may leave, in megabytes: when there is more, the video goes first, then
            the trace. 50 holds traces of some hundred actions.
        max_total_mb: Most that all attempts in `folder` may leave. What earlier runs left goes first, the oldest before
            all. Of this run nothing is removed: when it alone has more, further attempts leave no trace or video.
        max_age_days: Evidence of earlier runs that is older goes.
        live: Seconds between pictures of the page while it changes, as `live.jpg` and as an artefact event each time,
            for user interfaces; None: none.

    Raises:
        ConfigurationError: A mode that does not exist, or a number that is not positive.
    """

    trace: str = "retain-on-failure"
    video: str = "off"
    screenshot: str = "only-on-failure"
    console: str = "retain-on-failure"
    folder: str | os.PathLike[str] = "artifacts"
    max_mb_per_job: float = 50
    max_total_mb: float = 2000
    max_age_days: float = 14
    live: float | None = None

    def __post_init__(self) -> None:
        for name, modes in (
            ("trace", MODES),
            ("video", MODES),
            ("screenshot", SCREENSHOT_MODES),
            ("console", CONSOLE_MODES),
        ):
            mode = getattr(self, name)
            if mode not in modes:
                raise ConfigurationError(f"artifacts.{name}", f"must be one of {', '.join(modes)}, not {mode!r}")
        folder = os.fspath(self.folder)
        if not isinstance(folder, str) or not folder:
            raise ConfigurationError("artifacts.folder", f"must be the path of a folder, not {self.folder!r}")
        object.__setattr__(self, "folder", folder)
        for name in ("max_mb_per_job", "max_total_mb", "max_age_days", "live"):
            value = getattr(self, name)
            if value is None and name == "live":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value > 0):
                raise ConfigurationError(f"artifacts.{name}", f"must be a number above zero, not {value!r}")

    @classmethod
    def parse(cls, value: ArtifactPolicy | str) -> ArtifactPolicy:
        """Return a policy from its short forms.

        Args:
            value: A policy; `"off"` for no evidence at all; `"on"` for trace, screenshots and
                console of every attempt; any other mode of `trace` for the default policy with that mode.

        Raises:
            ConfigurationError: It is none of these.
        """
        if isinstance(value, ArtifactPolicy):
            return value
        if not isinstance(value, str) or value not in MODES:
            modes = ", ".join(MODES)
            raise ConfigurationError("artifacts", f"must be an ArtifactPolicy or one of {modes}, not {value!r}")
        if value in ("off", "on"):
            return cls(trace=value, screenshot=value, console=value)
        return cls(trace=value)

    def to_json(self) -> dict[str, Any]:
        """Return the policy as a JSON value, its folder absolute: the child may stand elsewhere."""
        return {**asdict(self), "folder": os.path.abspath(self.folder)}

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> ArtifactPolicy:
        """Return the policy that `options` was made from; what a later version added is left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in options.items() if name in known})

    @property
    def leaves_nothing(self) -> bool:
        """Whether no evidence is recorded at all."""
        return {self.trace, self.video, self.screenshot, self.console} == {"off"} and self.live is None
