"""What can go wrong with a browser, one exception for each reason; `failure_class` is what an outcome tells of it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Literal

    LaunchReason = Literal[
        "no_executable", "sandbox", "missing_libraries", "profile_locked", "unreachable", "timeout", "unknown"
    ]

__all__ = (
    "BrowserClosed",
    "BrowserDied",
    "BrowserError",
    "DriverDied",
    "LaunchFailed",
    "NavigationFailed",
    "PageCrashed",
    "ProxyFailed",
    "StateMissing",
)


class BrowserError(Exception):
    """Base of what this package raises in a browser job.

    Attributes:
        failure_class: Names the reason in `Outcome.failure_class`.
    """

    failure_class: ClassVar[str] = "browser"


class PageCrashed(BrowserError):
    """The page's own process died: it ran out of memory, say. The browser lived on."""

    failure_class = "page_crashed"


class BrowserDied(BrowserError):
    """The browser's process ended while the job needed it; the next attempt gets a new one."""

    failure_class = "browser_died"


class DriverDied(BrowserError):
    """Playwright's driver, the process between Python and the browser, ended; the next attempt gets a new one."""

    failure_class = "driver_died"


class BrowserClosed(BrowserError):
    """The job, or the page itself, closed what the job then went on to use."""

    failure_class = "browser_closed"


class NavigationFailed(BrowserError):
    """The page could not be loaded.

    Attributes:
        code: The browser's name of the reason, such as `ERR_NAME_NOT_RESOLVED`.
    """

    failure_class = "navigation"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class ProxyFailed(BrowserError):
    """The proxy could not be reached, or refused.

    Attributes:
        code: The browser's name of the reason, such as `ERR_PROXY_CONNECTION_FAILED`.
    """

    failure_class = "proxy"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class LaunchFailed(BrowserError):
    """No browser could be started, or the running one could not be reached; the message says what to do.

    Attributes:
        reason: `no_executable`, `sandbox`, `missing_libraries`, `profile_locked`, `unreachable`, `timeout` or
            `unknown`; also the `code` of the error record.
    """

    failure_class = "launch_failed"

    def __init__(self, message: str, reason: LaunchReason = "unknown") -> None:
        super().__init__(message)
        self.reason = reason
        self.code = reason  # what an error record carries


class StateMissing(BrowserError):
    """There is no storage state under the name that the job asks for."""

    failure_class = "state_missing"
