"""A job whose target gets a page, a context or the browser as its first argument."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass, field
from typing import Any

from orchestrator import Fixture, Job
from orchestrator.exceptions import ConfigurationError, TargetError
from orchestrator_adapters.playwright._first import first_parameter
from orchestrator_adapters.playwright._options import BrowserOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator_adapters.playwright._policy import ArtifactPolicy

__all__ = ("BrowserJob",)

FIXTURE = "orchestrator_adapters.playwright._fixture:fixture"


@dataclass(frozen=True, slots=True)
class BrowserJob(Job):
    """A job in a browser: its target's first parameter, `page`, `context` or `browser`, says what it gets.

    The target uses Playwright's sync API if it is a plain function or generator, the async API if it is async. All
    arguments of `Job` but `fixture` are there; `args` and `kwargs` are for the parameters after the first.

    ```python
    def facts(page, url: str) -> dict:
        page.goto(url)
        return {"title": page.title()}


    await supervisor.run(BrowserJob(facts, args=("https://example.org",), timeout=60))
    ```

    The browser is kept for the child's life, and each attempt gets a fresh context of it, which is closed after it.

    Args:
        browser: Which browser, and how its context is set up; see `BrowserOptions`.
        artifacts: What to keep of an attempt: an `ArtifactPolicy`, or a short form of one such as
            `"retain-on-failure"`; by default nothing but what the job downloads, which goes to `artifacts/`.
    """

    browser: BrowserOptions | None = field(default=None, kw_only=True)
    artifacts: ArtifactPolicy | str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.browser is not None and not isinstance(self.browser, BrowserOptions):
            problem = f"must be BrowserOptions, not {type(self.browser).__name__}"
            raise ConfigurationError("job.browser", problem)
        if self.fixture is not None and self.fixture.function != FIXTURE:
            raise ConfigurationError("job.fixture", "a BrowserJob brings its own")
        browser = self.browser or BrowserOptions()
        if callable(self.target):
            self._check_first(browser)
        options: dict[str, Any] = {"browser": browser.to_json()}
        if self.artifacts is not None:
            from orchestrator_adapters.playwright._policy import ArtifactPolicy

            options["artifacts"] = ArtifactPolicy.parse(self.artifacts).to_json()
        elif browser.downloads:
            options["folder"] = os.path.abspath("artifacts")  # the child may be in another folder
        object.__setattr__(self, "fixture", Fixture(FIXTURE, options=options, flavour="sync-browser"))
        # Not super(): a dataclass with slots is made anew, and super() would look for the one it was made from.
        Job.__post_init__(self)

    def _check_first(self, browser: BrowserOptions) -> None:
        assert callable(self.target)
        # With init= the class builds the instance in the child: what is at hand is the plain function of the method.
        unbound = self.init is not None and inspect.isfunction(self.target)
        name, problem = first_parameter(self.target, skip=1 if unbound else 0)
        if name is None:
            raise TargetError(f"{self.target!r} is no target of a browser job: {problem}")
        if name == "browser" and browser.mode == "persistent":
            raise TargetError("a persistent profile is one context: take page or context, not browser")
