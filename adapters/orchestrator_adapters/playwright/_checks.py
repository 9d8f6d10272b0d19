"""What `orchestrator doctor` says of browser jobs: Playwright, a browser for it, and ffmpeg."""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING

from orchestrator_adapters.playwright import _ffmpeg
from orchestrator_adapters.playwright._errors import LaunchFailed
from orchestrator_adapters.playwright._find import find_browser, what_to_install

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Found = dict[str, str | None]


def checks(environment: Mapping[str, str] | None = None) -> Iterator[Found]:
    """Yield name, status, detail and remedy of each; what is missing is a note, for only some jobs need it."""
    variables = os.environ if environment is None else environment
    yield _playwright()
    yield _browser(variables)
    yield _recorder(variables)


def _playwright() -> Found:
    try:
        return _ok("playwright", metadata.version("playwright"))
    except metadata.PackageNotFoundError:
        remedy = "for browser jobs: python -m pip install 'subprocess-orchestrator[playwright]'"
        return _note("playwright", "not installed; only browser jobs need it", remedy)


def _browser(variables: Mapping[str, str]) -> Found:
    try:
        return _ok("browser", find_browser(environment=variables))
    except LaunchFailed as error:
        if variables.get("ORCHESTRATOR_BROWSER"):
            remedy = "correct or unset ORCHESTRATOR_BROWSER"
            return {"name": "browser", "status": "failed", "detail": str(error).rpartition(":")[0], "remedy": remedy}
        return _note("browser", "none found; only browser jobs need one", f"for browser jobs: {what_to_install()}")


def _recorder(variables: Mapping[str, str]) -> Found:
    found = _ffmpeg.find(dict(variables))
    if found is None:
        remedy = "for videos: install ffmpeg, or run `python -m playwright install ffmpeg`"
        return _note("ffmpeg", "none found; only videos of browser jobs need it", remedy)
    return _ok("ffmpeg", found)


def _ok(name: str, detail: str) -> Found:
    return {"name": name, "status": "ok", "detail": detail}


def _note(name: str, detail: str, remedy: str) -> Found:
    return {"name": name, "status": "note", "detail": detail, "remedy": remedy}
