"""Say why a call of Playwright failed, from its text and from what became of page, browser and driver."""

from __future__ import annotations

import re

from orchestrator_adapters.playwright._errors import (
    BrowserClosed,
    BrowserDied,
    BrowserError,
    DriverDied,
    LaunchFailed,
    NavigationFailed,
    PageCrashed,
    ProxyFailed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator_adapters.playwright._errors import LaunchReason

_NETWORK = re.compile(r"\b(?:net::(ERR_[A-Z0-9_]+)|(NS_ERROR_[A-Z0-9_]+))")
# Texts of a call whose page, browser or connection is gone.
_GONE = ("has been closed", "Target closed", "Connection closed", "connection closed", "Browser closed", "was closed")
_DRIVER_GONE = "Connection closed while reading from the driver"
_CRASHED = ("Page crashed", "Target crashed", "page crashed")
_OF_PROXIES = ("PROXY", "TUNNEL", "SOCKS")
# What a browser that does not start, or what starts it, writes; the first that fits.
_TOO_LONG = "Socket path too long"
_LAUNCH: tuple[tuple[str, LaunchReason], ...] = (
    (r"ProcessSingleton|profile appears to be in use|already in use|Opening in existing browser", "profile_locked"),
    (
        r"No usable sandbox|no-sandbox is not supported|chrome_sandbox|SUID sandbox|Failed to move to new namespace",
        "sandbox",
    ),
    (r"error while loading shared libraries|missing dependencies|cannot open shared object", "missing_libraries"),
    (r"Executable doesn't exist|executable doesn't exist|ENOENT|is not found at|EACCES", "no_executable"),
    (r"Timeout \d+ms exceeded", "timeout"),
)


class Look:
    """What is known at the moment when a call has failed.

    Attributes:
        driver_alive: Playwright's driver runs.
        browser_alive: The browser's process runs, and is connected.
        crashed: The page's own process died.
        closed: What the job, or the page itself, closed: `page`, `context` or `browser`; None if nothing was.
        name: How to call the browser in a text.
    """

    def __init__(
        self,
        *,
        driver_alive: bool = True,
        browser_alive: bool = True,
        crashed: bool = False,
        closed: str | None = None,
        name: str = "the browser",
    ) -> None:
        self.driver_alive = driver_alive
        self.browser_alive = browser_alive
        self.crashed = crashed
        self.closed = closed
        self.name = name


def is_playwrights(error: BaseException) -> bool:
    """Return whether an exception is one of Playwright's own."""
    if type(error) is Exception and _DRIVER_GONE in str(error):
        return True  # before it had a class for that
    return any(kind.__module__.startswith("playwright.") for kind in type(error).__mro__ if kind.__module__)


def is_timeout(error: BaseException) -> bool:
    """Return whether it is Playwright's own timeout of a single call."""
    return is_playwrights(error) and any(kind.__name__ == "TimeoutError" for kind in type(error).__mro__)


def is_gone(error: BaseException) -> bool:
    """Return whether a call failed because what it needs is there no more: by itself that says nothing about why."""
    if not is_playwrights(error):
        return False
    text = str(error)
    return any(kind.__name__ == "TargetClosedError" for kind in type(error).__mro__) or any(
        each in text for each in (*_GONE, *_CRASHED)
    )


def may_be_crash(error: BaseException) -> bool:
    """Return whether a call failed as it does when the page's process dies, which is told of a little later."""
    return is_playwrights(error) and "net::ERR_ABORTED" in str(error)


def why(error: BaseException, look: Look) -> BrowserError | None:
    """Return what really happened, or None when the exception says it itself."""
    if not is_playwrights(error):
        return None
    text = str(error)
    first = text.partition("\n")[0].strip()
    if is_gone(error):
        return _gone(first, look, crashed=look.crashed or any(each in text for each in _CRASHED))
    network = _NETWORK.search(text)
    if network is not None:
        # A page whose process died is reported as a navigation that was broken off.
        if look.crashed:
            return _gone(first, look, crashed=True)
        code = network.group(1) or network.group(2)
        if any(word in code for word in _OF_PROXIES):
            return ProxyFailed(f"the proxy could not be used: {first}", code)
        return NavigationFailed(first, code)
    return None


def _gone(first: str, look: Look, *, crashed: bool) -> BrowserError:
    if not look.driver_alive:
        return DriverDied(f"Playwright's driver died while the job ran ({first})")
    if not look.browser_alive and look.closed != "browser":
        return BrowserDied(f"{look.name} died while the job ran ({first})")
    if crashed:
        return PageCrashed(f"the page's process died while the job ran; {look.name} lived on ({first})")
    if look.closed is not None:
        whom = "the job" if look.closed == "browser" else "the job or the page itself"
        return BrowserClosed(f"{whom} had closed the {look.closed} before this call ({first})")
    if not look.browser_alive:
        return BrowserDied(f"{look.name} died while the job ran ({first})")
    return BrowserClosed(f"what the call needs was closed, and page, browser and driver live on ({first})")


def note(look: Look) -> str | None:
    """Return what to add to an exception that is the job's own: what it complains of may be a consequence."""
    if not look.driver_alive:
        return "Playwright's driver died while the job ran"
    if not look.browser_alive and look.closed != "browser":
        return f"{look.name} died while the job ran"
    if look.crashed:
        return "the page's process died while the job ran"
    return None


def launch_failure(error: BaseException, remedies: dict[LaunchReason, str], what: str) -> LaunchFailed:
    """Return why no browser could be started.

    Args:
        error: What Playwright raised.
        remedies: What to do, by reason.
        what: What was being tried, to begin the text with.
    """
    text = str(error)
    reason: LaunchReason = next((reason for pattern, reason in _LAUNCH if re.search(pattern, text)), "unknown")
    remedy = remedies.get(reason, "")
    if _TOO_LONG in text:
        reason = "unknown"
        remedy = "the path of its temporary folder is too long for a socket: set TMPDIR to a shorter one"
    detail = _telling_line(text, reason)
    return LaunchFailed(f"{what}: {remedy} ({detail})" if remedy else f"{what}: {detail}", reason)


def _telling_line(text: str, reason: LaunchReason) -> str:
    """Return the line of a launch log that says it; the rest of the log is arguments and addresses."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern, its_reason in _LAUNCH:
        if its_reason == reason:
            for line in lines:
                if re.search(pattern, line):
                    return line[:500]
    words = ("FATAL:", "ERROR:", "exitCode=")
    errors = [line.removeprefix("- ") for line in lines if any(word in line for word in words)]
    # That something "has been closed" is what is to be explained.
    said = [] if errors and any(each in lines[0] for each in _GONE) else lines[:1]
    return "; ".join([*said, *errors[:2]])[:500] if lines else "no text"
