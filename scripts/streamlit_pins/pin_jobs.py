"""The job of the page: publish a table of pins on one page of a browser, and go on after pins that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_adapters.publisher import (
    FormChanged,
    LoginFailed,
    PublishError,
    SiteUnreachable,
    publish_pin,
)

from orchestrator import child

if TYPE_CHECKING:
    from playwright.sync_api import Page


def publish_all(page: Page, pins: list[dict[str, str]], profile: dict[str, Any]) -> list[dict[str, str]]:
    """Publish pins, and return what became of each: its title, `status` and `url`, or a `problem`.

    What it tells with `child.progress` moves the bar of the page. A pin that is on the site already is found and not
    published again; so the same table can be given again after whatever happened.
    """
    results = []
    for number, pin in enumerate(pins):
        child.progress(number, len(pins), pin["title"])
        result = {"title": pin["title"], "status": "failed", "url": "", "problem": ""}
        try:
            found = publish_pin(page, pin, profile)
            result |= {"status": found["status"], "url": found["url"] or ""}
        except (FormChanged, LoginFailed, SiteUnreachable):
            raise  # no other pin would fare better
        except PublishError as error:
            print(f"{pin['title']}: {error}")
            result["problem"] = str(error)
        results.append(result)
    child.progress(len(pins), len(pins), "all done")
    return results
