"""Browser jobs: Playwright's sync or async API in supervised children, with a warm browser (lazy public names)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator_adapters.playwright._errors import (
        BrowserClosed,
        BrowserDied,
        BrowserError,
        DriverDied,
        LaunchFailed,
        NavigationFailed,
        PageCrashed,
        ProxyFailed,
        StateMissing,
    )
    from orchestrator_adapters.playwright._find import find_browser
    from orchestrator_adapters.playwright._job import BrowserJob
    from orchestrator_adapters.playwright._options import BrowserOptions
    from orchestrator_adapters.playwright._policy import ArtifactPolicy
    from orchestrator_adapters.playwright._report import write_report
    from orchestrator_adapters.playwright._states import save_state
    from orchestrator_adapters.playwright._traces import pack_trace

__all__ = (
    "ArtifactPolicy",
    "BrowserClosed",
    "BrowserDied",
    "BrowserError",
    "BrowserJob",
    "BrowserOptions",
    "DriverDied",
    "LaunchFailed",
    "NavigationFailed",
    "PageCrashed",
    "ProxyFailed",
    "StateMissing",
    "find_browser",
    "pack_trace",
    "save_state",
    "write_report",
)

# A child needs neither jobs nor policies, and a parent no Playwright.
_HOMES = {
    "ArtifactPolicy": "_policy",
    "BrowserClosed": "_errors",
    "BrowserDied": "_errors",
    "BrowserError": "_errors",
    "BrowserJob": "_job",
    "BrowserOptions": "_options",
    "DriverDied": "_errors",
    "LaunchFailed": "_errors",
    "NavigationFailed": "_errors",
    "PageCrashed": "_errors",
    "ProxyFailed": "_errors",
    "StateMissing": "_errors",
    "find_browser": "_find",
    "pack_trace": "_traces",
    "save_state": "_states",
    "write_report": "_report",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'orchestrator_adapters.playwright' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"orchestrator_adapters.playwright.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
