"""Pins as jobs: one pin on a page of a warm browser, and the question whether a pin is there, for who lost track."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from orchestrator import RetryPolicy, child
from orchestrator_adapters.publisher._errors import (
    PublishError,
    RateLimited,
    SiteFailed,
    SiteUnreachable,
    UnknownResult,
)
from orchestrator_adapters.publisher._lookup import SETTLE, PageLookup, ask_api, surely
from orchestrator_adapters.publisher._pins import row_of
from orchestrator_adapters.publisher._profile import Profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from playwright.sync_api import Page

    from orchestrator_adapters.playwright import ArtifactPolicy, BrowserJob, BrowserOptions
    from orchestrator_adapters.publisher._pins import Pin

# A pin takes seconds. What waits for a site that wants to be left alone waits within this time.
TIMEOUT = 300.0
# Deaths and errors of the site, a few in a row; what a site refuses is not tried again.
RETRY = RetryPolicy(attempts=8, on=("crash", "timeout", "SiteFailed", "BrowserError"), backoff=0.5, max_backoff=15.0)
# Between two looks at a site that has errors, before anything is published there.
_LOOK_PAUSE = 1.0
_LONGEST_LOOK_PAUSE = 30.0
PARAMS = "publisher"
_SESSIONS = "orchestrator_adapters.publisher: sessions"


def publish_job(
    pin: Pin | Mapping[str, str],
    profile: Profile | None = None,
    *,
    dry_run: bool = False,
    limit: str | None = None,
    browser: BrowserOptions | None = None,
    artifacts: ArtifactPolicy | str | None = None,
    timeout: float = TIMEOUT,
    retry: RetryPolicy | None = RETRY,
    key: str | None = None,
) -> BrowserJob:
    """Return the job that publishes one pin, once, whatever dies; its value is `{"status", "id", "url"}`.

    The status is `published`, `found` (the site had it already) or `rehearsed` (a dry run). The children need the
    environment variables that the profile names: `Supervisor(secrets=profile.secrets)`.

    Args:
        pin: What to publish.
        profile: Of the site. Without one, the job uses what its supervisor has:
            `Supervisor(params={"publisher": profile.data})`; then a profile may change while a journal has such jobs.
        dry_run: Do everything but press the button.
        limit: Name of a limit of the supervisor under which pins are published; it pauses when the site says so.
        browser: Which browser, and how it is started.
        artifacts: What is kept of attempts.
        timeout: Seconds for one attempt.
        retry: When to try again.
        key: Of the job; by default the pin's.
    """
    from orchestrator_adapters.playwright import BrowserJob

    row = row_of(pin)
    kwargs: dict[str, Any] = {}
    if dry_run:
        kwargs["dry_run"] = True
    if limit is not None:
        kwargs["limit"] = limit
    return BrowserJob(
        "orchestrator_adapters.publisher:publish_pin",
        args=(row,) if profile is None else (row, profile.data),
        kwargs=kwargs,
        browser=browser,
        artifacts=artifacts,
        timeout=timeout,
        retry=retry,
        key=row["key"] if key is None else key,
        effects="pure" if dry_run else "external",
        reconcile=None if dry_run else "orchestrator_adapters.publisher:is_published",
    )


def publish_pin(
    page: Page,
    pin: dict[str, str],
    profile: dict[str, Any] | None = None,
    *,
    dry_run: bool = False,
    limit: str | None = None,
) -> dict[str, Any]:
    """Publish one pin on a page, and return `{"status", "id", "url"}`: the target of `publish_job`.

    Args:
        page: A page of the sync API.
        pin: As `Pin.as_json` gives it.
        profile: The data of the profile; by default `publisher` among the supervisor's params.
        dry_run: Do everything but press the button.
        limit: Name of a limit of the supervisor.
    """
    from orchestrator_adapters.publisher._form import Form
    from orchestrator_adapters.publisher._publishing import Publication

    site = _profile(profile)
    sessions: dict[str, Any] = child.resource(_SESSIONS, dict)
    known = sessions.get(site.url)
    if known:
        page.context.add_cookies(known)
    form = Form(page, site)
    try:
        publication = Publication(form, pin, site, limit=limit)
        return publication.rehearse() if dry_run else publication.publish()
    finally:
        form.close()
        if form.logged_in is not None:
            # The next pin of this child need not log in.
            sessions[site.url] = form.logged_in


def inspect_site(page: Page, profile: dict[str, Any]) -> dict[str, Any]:
    """Log in and open the form once, so that what is wrong with everything is told once; returns its boards."""
    from orchestrator_adapters.publisher._form import Form
    from orchestrator_adapters.publisher._publishing import inspect

    site = Profile(profile)
    form = Form(page, site)
    for tries_left in (3, 2, 1, 0):
        try:
            return {"boards": inspect(form, site)}
        except SiteUnreachable:
            raise  # somebody waits for this answer
        except SiteFailed as error:
            if not tries_left:
                raise
            pause = min(error.retry_after, _LONGEST_LOOK_PAUSE) if isinstance(error, RateLimited) else _LOOK_PAUSE
            page.wait_for_timeout(pause * 1e3)
    raise AssertionError("unreachable")


def is_published(
    key: str | None,
    pin: Any,
    profile: dict[str, Any] | None = None,
    **_: Any,
) -> bool | None:
    """Say whether a pin is on the site: the reconcile function of jobs that publish.

    A no is believed only after the profile's `settle` seconds, and a site that has errors is asked for a minute.

    Args:
        key: Of the pin; None if no attempt had pressed the button.
        pin: The pin, as `Pin.as_json` gives it, or a list of pins of which one has that key.
        profile: The data of the profile; by default `publisher` among the supervisor's params.

    Returns:
        None if the profile does not say how to find a pin again.
    """
    if key is None:
        return False
    site = _profile(profile)
    if not site.has("lookup"):
        return None
    row = _row(key, pin)
    settle = float(site.get("lookup", "settle", SETTLE))
    if site.get("lookup", "api") is not None and not site.get("lookup", "login"):
        return bool(surely(lambda: ask_api(site, row), settle, time.sleep))
    from orchestrator_adapters.publisher._browser import OwnBrowser
    from orchestrator_adapters.publisher._form import Form

    with OwnBrowser(proxy=site.proxy) as browser:
        page = browser.page()
        lookup = PageLookup(page, site)

        def ask() -> list[str]:
            if site.get("lookup", "login"):
                Form(page, site).open()
            return lookup.ids(row)

        return bool(surely(ask, settle, time.sleep))


def _profile(data: dict[str, Any] | None) -> Profile:
    if data is None:
        data = child.params().get(PARAMS)
    if data is None:
        raise PublishError(f"no profile: give one, or Supervisor(params={{{PARAMS!r}: profile.data}})")
    return Profile(data)


def _row(key: str, pin: Any) -> Mapping[str, str]:
    rows: Sequence[Any] = [pin] if isinstance(pin, dict) else pin
    for each in rows:
        row = row_of(each)
        if row["key"] == key:
            return row
    raise UnknownResult(f"there is no pin {key!r} among those of the job")
