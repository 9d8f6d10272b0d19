"""A browser of one's own: started with the sync API where nothing else runs, replaced when it died, gone at the end."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from playwright.sync_api import BrowserContext, Page, Playwright

# Names of the errors by which Playwright says that browser or driver are gone; it exports only their base class.
_GONE = frozenset({"TargetClosedError"})
_GONE_TEXTS = ("has been closed", "Connection closed", "Browser closed", "Target crashed", "Page crashed")


class OwnBrowser:
    """A Chromium, its context and one page; a context manager.

    Args:
        executable: The browser's program; found by itself if it is left out.
        headless: Whether to do without a window.
        proxy: `http://user:password@host:port`.
        user_data_dir: A profile folder to open, with the logins that it has.

    Raises:
        LaunchFailed: On entering, if there is no browser.
    """

    def __init__(
        self,
        *,
        executable: str | None = None,
        headless: bool = True,
        proxy: str | None = None,
        user_data_dir: str | None = None,
    ) -> None:
        self._executable = executable
        self._headless = headless
        self._proxy = proxy
        self._user_data_dir = user_data_dir
        self._playwright: Playwright | None = None
        self._context: BrowserContext | None = None
        self._page: Page | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def page(self) -> Page:
        """Return the page; starts the browser when it is needed first, and again after `close`."""
        if self._page is None:
            self._start()
        assert self._page is not None
        return self._page

    def _start(self) -> None:
        from playwright.sync_api import sync_playwright

        from orchestrator_adapters.playwright import find_browser

        options: dict[str, Any] = {
            "executable_path": find_browser(self._executable, headless=self._headless),
            "headless": self._headless,
            # Chromium refuses to run as root with its sandbox.
            "chromium_sandbox": not (hasattr(os, "geteuid") and os.geteuid() == 0),
            # A Ctrl-C is for this program, which closes its browser itself.
            "handle_sigint": False,
            "handle_sigterm": False,
            "handle_sighup": False,
        }
        if self._proxy is not None:
            options["proxy"] = _proxy(self._proxy)
        self._playwright = sync_playwright().start()
        try:
            if self._user_data_dir is not None:
                self._context = self._playwright.chromium.launch_persistent_context(self._user_data_dir, **options)
            else:
                self._context = self._playwright.chromium.launch(**options).new_context()
            self._page = self._context.new_page()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End browser and driver, whatever state they are in."""
        playwright, context = self._playwright, self._context
        self._playwright = self._context = self._page = None
        # What is dead already says so, and that is no news.
        if context is not None:
            with contextlib.suppress(Exception):
                context.close()
            with contextlib.suppress(Exception):
                if context.browser is not None:
                    context.browser.close()
        if playwright is not None:
            with contextlib.suppress(Exception):
                playwright.stop()


def is_gone(error: BaseException) -> bool:
    """Return whether an error of Playwright says that page, browser or driver are gone."""
    return type(error).__name__ in _GONE or any(text in str(error) for text in _GONE_TEXTS)


def _proxy(address: str) -> dict[str, str]:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(address)
    if not parts.hostname:
        return {"server": address}
    port = "" if parts.port is None else f":{parts.port}"
    found = {"server": f"{parts.scheme}://{parts.hostname}{port}"}
    if parts.username:
        found |= {"username": unquote(parts.username), "password": unquote(parts.password or "")}
    return found
