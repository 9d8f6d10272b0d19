"""Why a browser job failed: every text of Playwright becomes the reason that it hides."""

from __future__ import annotations

from typing import Any

import pytest
from orchestrator_adapters.playwright import (
    BrowserClosed,
    BrowserDied,
    DriverDied,
    NavigationFailed,
    PageCrashed,
    ProxyFailed,
)
from orchestrator_adapters.playwright._recycle import Bounds, due, measure_now
from orchestrator_adapters.playwright._translate import (
    Look,
    is_gone,
    is_timeout,
    launch_failure,
    note,
    why,
)
from playwright.sync_api import Error, TimeoutError

CLOSED = "Page.goto: Target page, context or browser has been closed\nCall log:\n  - navigating"


@pytest.mark.parametrize(
    ("look", "kind"),
    [
        ({"driver_alive": False}, DriverDied),
        ({"driver_alive": False, "browser_alive": False, "closed": "page"}, DriverDied),
        ({"browser_alive": False}, BrowserDied),
        ({"browser_alive": False, "closed": "page"}, BrowserDied),  # its pages are closed with it
        ({"browser_alive": False, "closed": "browser"}, BrowserClosed),
        ({"crashed": True}, PageCrashed),
        ({"closed": "page"}, BrowserClosed),
        ({"closed": "context"}, BrowserClosed),
        ({}, BrowserClosed),
    ],
)
def test_closed_target_is_always_explained(look: dict[str, Any], kind: type) -> None:
    found = why(Error(CLOSED), Look(**look))
    assert type(found) is kind
    assert "Call log" not in str(found) and "has been closed" in str(found)


def test_crashes_are_known_by_event_and_by_text() -> None:
    assert type(why(Error("Page.title: Target crashed"), Look())) is PageCrashed
    assert type(why(Error("Page.goto: net::ERR_ABORTED at chrome://crash"), Look(crashed=True))) is PageCrashed


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("Page.goto: net::ERR_NAME_NOT_RESOLVED at http://x/", NavigationFailed, "ERR_NAME_NOT_RESOLVED"),
        ("Page.goto: NS_ERROR_CONNECTION_REFUSED", NavigationFailed, "NS_ERROR_CONNECTION_REFUSED"),
        ("Page.goto: net::ERR_PROXY_CONNECTION_FAILED at http://x/", ProxyFailed, "ERR_PROXY_CONNECTION_FAILED"),
        ("Page.goto: net::ERR_TUNNEL_CONNECTION_FAILED", ProxyFailed, "ERR_TUNNEL_CONNECTION_FAILED"),
        ("Page.goto: net::ERR_SOCKS_CONNECTION_FAILED", ProxyFailed, "ERR_SOCKS_CONNECTION_FAILED"),
    ],
)
def test_network_errors_have_their_code(text: str, kind: type, code: str) -> None:
    found: Any = why(Error(text), Look())
    assert (type(found), found.code) == (kind, code)


def test_death_of_the_driver_as_older_versions_tell_it() -> None:
    error = Exception("Page.goto: Connection closed while reading from the driver")
    assert type(why(error, Look(driver_alive=False))) is DriverDied


def test_what_says_itself_what_it_is_stays_as_it_is() -> None:
    assert why(Error("Page.evaluate: ReferenceError: x is not defined"), Look()) is None
    assert why(ValueError("Target closed"), Look(browser_alive=False)) is None
    assert is_timeout(TimeoutError("Timeout 30000ms exceeded")) and not is_timeout(OSError())
    assert not is_gone(RuntimeError("has been closed"))


def test_an_error_of_the_job_gets_a_remark() -> None:
    assert note(Look()) is None
    assert note(Look(browser_alive=False, closed="browser")) is None
    assert "died" in str(note(Look(browser_alive=False, name="the browser (chromium)")))
    assert "driver" in str(note(Look(driver_alive=False, browser_alive=False)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("BrowserType.launch: Executable doesn't exist at /x/chrome\n╔═╗", "no_executable"),
        ("Chromium distribution 'chrome' is not found at /opt/google/chrome/chrome", "no_executable"),
        ("Browser logs:\n[1:1:ERROR:zygote] Running as root without --no-sandbox is not supported.", "sandbox"),
        ("[err] FATAL: No usable sandbox! Update your kernel", "sandbox"),
        ("chrome: error while loading shared libraries: libnss3.so: cannot open", "missing_libraries"),
        ("Failed to create a ProcessSingleton for your profile directory.", "profile_locked"),
        ("BrowserType.launch: Timeout 60000ms exceeded.", "timeout"),
        ("something new", "unknown"),
    ],
)
def test_launches_fail_for_a_reason_with_a_remedy(text: str, reason: str) -> None:
    found = launch_failure(Error(text), {reason: "do this"}, "it could not be started")  # type: ignore[dict-item]
    assert (found.reason, found.code, found.failure_class) == (reason, reason, "launch_failed")
    assert str(found).startswith("it could not be started: do this (")
    assert len(str(found)) < 1000


def test_a_path_that_is_too_long_is_told() -> None:
    text = "BrowserType.launch: Target page, context or browser has been closed\n[err] FATAL:process_singleton_posix.cc"
    found = launch_failure(Error(f"{text} Socket path too long: /x"), {}, "it could not be started")
    assert "set TMPDIR to a shorter one" in str(found)


def test_a_browser_is_replaced_by_count_age_or_memory() -> None:
    bounds = Bounds(jobs=200, age=1800, memory=1500)
    assert due(bounds, 199, 1799.0, 1499.0) is None
    assert due(bounds, 0, 0.0, None) is None
    assert due(bounds, 200, 0.0, None) == "it has served 200 jobs"
    assert due(bounds, 1, 1800.0, None) == "it is 1800 s old"
    assert due(bounds, 1, 0.0, 1500.2) == "it has 1500 MB"
    assert not measure_now(0) and 0 < sum(map(measure_now, range(1, 101))) <= 20
