"""Find a Chromium and ffmpeg for what drives a real browser; as root on Debian, install them when they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from orchestrator_adapters.playwright import LaunchFailed, _ffmpeg, find_browser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "ORCHESTRATOR_BROWSER"
# A slow mirror may take minutes for 150 MB; one that hangs must not hang whoever waits for the tests.
INSTALL_DEADLINE = 900.0
# Another apt-get, of the machine's own upgrades, holds the lock for a minute at times; a mirror fails now and then.
APT_GET = ("apt-get", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3")


class Found(NamedTuple):
    """What this machine has; None for what it has not."""

    browser: str | None
    ffmpeg: str | None

    def missing(self) -> list[str]:
        """Return the names of Debian's packages that would bring what is not there."""
        wanted = {"chromium": self.browser, "ffmpeg": self.ffmpeg}
        return [package for package, path in wanted.items() if path is None]


def find(environment: Mapping[str, str] | None = None) -> Found:
    """Look as browser jobs do: at the variable, what Playwright installed, then PATH.

    Raises:
        SystemExit: The variable names something that is no program.
    """
    variables = os.environ if environment is None else environment
    named = variables.get(VARIABLE)
    if named and shutil.which(named, path=variables.get("PATH")) is None:
        raise SystemExit(f"Error: {VARIABLE}={named} is no program: correct or unset it.")
    try:
        browser = find_browser(environment=variables)
    except LaunchFailed:
        return Found(None, _ffmpeg.find(dict(variables)))
    return Found(browser, _ffmpeg.find(dict(variables)))


def provide(
    say: Callable[[str], None] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    may_install: bool | None = None,
) -> Found:
    """Return what this machine has, after installing what it lacks where that can be done.

    Args:
        say: Is told in one line what is being installed, or what a person has to install; by default stderr.
        environment: Variables to look at and to install with; those of this process.
        may_install: Whether Debian's packages may be installed; by default as root on a Debian-like system.
    """
    tell = say or (lambda line: print(line, file=sys.stderr, flush=True))
    found = find(environment)
    missing = found.missing()
    if not missing:
        return found
    if is_root_on_debian() if may_install is None else may_install:
        tell(f"Installing Debian's {' and '.join(missing)} with apt-get, for what drives a real browser")
        problem = _install(missing, dict(os.environ if environment is None else environment))
        found = find(environment)
        if problem:
            tell(f"apt-get could not install {' and '.join(missing)}: {problem}")
    if found.missing():
        tell(remedy(found))
    return found


def remedy(found: Found) -> str:
    """Say what a person has to install here."""
    missing = found.missing()
    wants = {"chromium": "browser (Chromium or Chrome)", "ffmpeg": "ffmpeg (only videos need it)"}
    if sys.platform == "linux":
        do = f"as root: apt-get install {' '.join(missing)}; or: python -m playwright install --with-deps chromium"
    else:
        do = "python -m playwright install chromium"
    return f"There is no {' and no '.join(wants[each] for each in missing)}. Install it, {do}{_or_name(found)}."


def _or_name(found: Found) -> str:
    return f"; or let {VARIABLE} name one" if found.browser is None else ""


def is_root_on_debian() -> bool:
    """Tell whether Debian's packages can be installed here without asking anybody."""
    return (
        sys.platform == "linux"
        and os.geteuid() == 0
        and os.path.exists("/etc/debian_version")
        and shutil.which("apt-get") is not None
    )


def _install(packages: list[str], environment: dict[str, str]) -> str:
    """Install packages; return what went wrong, empty when nothing did."""
    environment |= {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    program = shutil.which(APT_GET[0], path=environment.get("PATH")) or APT_GET[0]
    # A machine that was made from an image knows no packages until it is told to look.
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        try:
            done = subprocess.run(
                [program, *APT_GET[1:], *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=INSTALL_DEADLINE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it was not done after {INSTALL_DEADLINE:g} s"
        except OSError as error:
            return str(error)
        # An index that could not be fetched may not be the one that is needed: only the installation counts.
        if done.returncode and arguments[0] == "install":
            lines = done.stdout.decode("utf-8", "replace").split("\n")
            errors = [line for line in lines if line.startswith("E:")] or [line for line in lines if line.strip()][-1:]
            return " ".join([*errors, f"(exit code {done.returncode})"])
    return ""
