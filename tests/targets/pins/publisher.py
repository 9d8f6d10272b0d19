"""Publish pins to our board with a real browser; `python -m pins.publisher URL pins.json` does it from a shell."""

import json
import shutil
import sys

from playwright.sync_api import sync_playwright


class Publisher:
    """Logs in once, then fills the form for one pin after the other."""

    def __init__(self, site, user="ada", password="pins-please", browser=None):
        self.site = site
        self.user = user
        self.password = password
        self.browser = browser or shutil.which("chromium") or shutil.which("google-chrome")

    def publish(self, pins, progress_callback=None):
        """Publish the pins and return their ids."""
        ids = []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=self.browser, args=["--no-sandbox"])
            page = browser.new_page()
            self._log_in(page)
            for number, pin in enumerate(pins, 1):
                ids.append(self._publish_one(page, pin))
                if progress_callback is not None:
                    progress_callback(number, len(pins), pin["title"])
            browser.close()
        return ids

    def _log_in(self, page):
        page.goto(f"{self.site}/login")
        page.fill("#username", self.user)
        page.fill("#password", self.password)
        page.click("#login")
        if page.locator(".error").count():
            raise RuntimeError(f"login failed: {page.inner_text('.error')}")

    def _publish_one(self, page, pin):
        page.goto(f"{self.site}/new")
        page.fill("#title", pin["title"])
        page.fill("#description", pin.get("description", ""))
        page.select_option("#board", pin["board"])
        page.click("#publish")
        page.wait_for_selector("[data-pin-id], .error")
        if page.locator(".error").count():
            raise ValueError(f"{pin['title']}: {page.inner_text('.error')}")
        return page.get_attribute("[data-pin-id]", "data-pin-id")


def show(done, total, title):
    print(f"{done}/{total} {title}", file=sys.stderr)


if __name__ == "__main__":
    with open(sys.argv[2]) as file:
        print(json.dumps(Publisher(sys.argv[1]).publish(json.load(file), progress_callback=show)))
