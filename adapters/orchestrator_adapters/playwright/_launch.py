"""What Playwright is asked for: the arguments of a launch, a profile, a connection and a context."""

from __future__ import annotations

import os
from contextlib import contextmanager

from orchestrator_adapters.playwright._errors import LaunchFailed
from orchestrator_adapters.playwright._find import find_browser, what_to_install
from orchestrator_adapters.playwright._short_temp import short_temp
from orchestrator_adapters.playwright._translate import is_playwrights, launch_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from orchestrator_adapters.playwright._errors import LaunchReason
    from orchestrator_adapters.playwright._options import BrowserOptions


def launch_arguments(options: BrowserOptions) -> dict[str, Any]:
    """Return the keyword arguments of `launch`.

    Raises:
        LaunchFailed: If there is no such browser on this machine.
    """
    from orchestrator_adapters.playwright._traces import launch_folder

    found: dict[str, Any] = {
        "headless": options.headless,
        "args": list(options.args),
        # A Ctrl-C would have the driver close the browser before the job can take a picture of why it failed.
        "handle_sigint": False,
        "handle_sigterm": False,
        "handle_sighup": False,
        "timeout": options.launch_timeout * 1000,
        # Asked for whether this job leaves a trace or not: a later one in the same browser may.
        "traces_dir": str(launch_folder()),
    }
    if options.engine == "chromium":
        place = short_temp()
        if place is not None:
            found["env"] = {
                **{name: value for name, value in os.environ.items() if name != "HOME" or value},
                "TMPDIR": place,
            }
        found["chromium_sandbox"] = _uses_sandbox(options)
        if options.channel is None:
            found["executable_path"] = find_browser(_text(options.executable), headless=options.headless)
    elif options.executable is not None:
        found["executable_path"] = options.executable
    if options.channel is not None:
        found["channel"] = options.channel
    return found


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _uses_sandbox(options: BrowserOptions) -> bool:
    if options.sandbox is not None:
        return options.sandbox
    # Chromium refuses to run as root with it.
    return not (hasattr(os, "geteuid") and os.geteuid() == 0)


def context_arguments(options: BrowserOptions, state: dict[str, Any] | None, extra: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of `new_context`; for a profile, those that are not of the launch."""
    found = {"accept_downloads": options.downloads, **extra, **options.context}
    if options.proxy is not None:
        found["proxy"] = options.proxy
    if state is not None:
        found["storage_state"] = state
    return found


def describe(options: BrowserOptions) -> str:
    """Return what to call the browser in a text."""
    if options.mode == "cdp":
        return f"the browser at {options.endpoint}"
    return f"the browser ({options.executable or options.channel or options.engine})"


def remedies(options: BrowserOptions) -> dict[LaunchReason, str]:
    """Return what to do about a launch that failed, by reason."""
    return {
        "no_executable": f"{options.channel or options.engine} is not installed: "
        f"{what_to_install(options.channel or options.engine)}",
        "sandbox": "its sandbox cannot be used here: allow unprivileged user namespaces, or, for pages that you trust, "
        "use BrowserOptions(sandbox=False)",
        "missing_libraries": f"libraries are missing: run `python -m playwright install-deps {options.engine}` as "
        "root, or install the browser from your system's packages",
        "profile_locked": f"the profile {options.user_data_dir!r} is in use: close that browser, or give each job a "
        "profile of its own",
        "timeout": f"it took longer than launch_timeout={options.launch_timeout:g} s",
    }


class launching:  # noqa: N801  used like a function
    """Turns what Playwright raises about a browser that cannot be had into one clear error."""

    def __init__(self, options: BrowserOptions) -> None:
        self._options = options

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, LaunchFailed) or not is_playwrights(error):
            return
        if str(error) == "Playwright connection closed":
            return  # the driver died: there is nothing wrong with the browser
        options = self._options
        if options.mode == "cdp":
            first = next(iter(str(error).splitlines()), "").strip()
            problem = f"no browser answers at {options.endpoint}: start one with --remote-debugging-port, or correct it"
            raise LaunchFailed(f"{problem} ({first})", "unreachable") from error
        what = f"{describe(options)} could not be started"
        raise launch_failure(error, remedies(options), what) from error


@contextmanager
def environment() -> Iterator[None]:
    """Give the driver, which takes its environment along when it starts, what it needs to find ffmpeg."""
    from orchestrator_adapters.playwright import _ffmpeg

    before = os.environ.get(_ffmpeg.VARIABLE)
    _ffmpeg.prepare()
    # With an empty one, libraries of Chromium make a `.cache` in the current folder; without one they ask the system.
    homeless = os.environ.get("HOME") == ""
    if homeless:
        del os.environ["HOME"]
    try:
        yield
    finally:
        if homeless:
            os.environ["HOME"] = ""
        if before is None:
            os.environ.pop(_ffmpeg.VARIABLE, None)
        else:
            os.environ[_ffmpeg.VARIABLE] = before
