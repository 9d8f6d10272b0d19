"""A publisher that opens its browser when it is made, and leaves it to the end of the program to close it."""

import shutil

from playwright.sync_api import sync_playwright


class LastingPublisher:
    """Never calls `stop` and never closes anything."""

    def __init__(self, site):
        self.site = site
        self.playwright = sync_playwright().start()
        path = shutil.which("chromium") or shutil.which("google-chrome")
        self.browser = self.playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        self.page = self.browser.new_page()

    def publish(self, pins, progress_callback=None):
        """Return the headings that the pages of these pins have."""
        found = []
        for number, pin in enumerate(pins, 1):
            self.page.goto(f"{self.site}/plain?title={pin['title']}")
            found.append(self.page.inner_text("h1"))
            if progress_callback is not None:
                progress_callback(number, len(pins), pin["title"])
        return found
