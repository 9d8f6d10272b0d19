"""Somebody's class that drives a browser by itself, and knows nothing of this project: measured here and in a child."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, sync_playwright

FORM = """data:text/html,<title>New pin</title><input id=title><textarea id=text></textarea>
<button onclick="document.title = 'Published ' + document.getElementById('title').value">Publish</button>"""


def facts(page: Page, url: str) -> dict[str, Any]:
    """Return what a page has; the job of every measured way to run a browser."""
    page.goto(url)
    return {"title": page.title(), "links": page.locator("a").count()}


class Publisher:
    """Fills a form for one pin after the other."""

    def __init__(self, **launch: Any) -> None:
        self.launch = launch

    def publish(self, pins: list[str], progress_callback: Callable[[int, int], object] | None = None) -> list[str]:
        """Return the titles of the pages that came when each pin was published."""
        titles = []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(**self.launch)
            page = browser.new_page()
            for number, pin in enumerate(pins, 1):
                page.goto(FORM)
                page.fill("#title", pin)
                page.fill("#text", f"About {pin}")
                page.click("button")
                titles.append(page.title())
                if progress_callback is not None:
                    progress_callback(number, len(pins))
            browser.close()
        return titles
