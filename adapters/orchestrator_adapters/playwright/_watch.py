"""What happens to the pages of one attempt while it runs: crashes, closings, downloads, dialogs."""

from __future__ import annotations

from orchestrator_adapters.playwright._processes import is_alive
from orchestrator_adapters.playwright._translate import Look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import psutil

# Marks a method of a browser or context that was put over its own to see who closes it.
_SEEN = "_orchestrator_closed"


class Watch:
    """Listens to one attempt's context and pages, of the sync or the async API.

    Attributes:
        crashed: The process of a page died.
        downloads: What the job downloads, in the order in which it began.
    """

    def __init__(self) -> None:
        self.crashed = False
        self.downloads: list[Any] = []
        self._context: Any = None
        self._page: Any = None
        self._keeps_downloads = False

    def attach(self, context: Any, *, downloads: bool) -> None:
        """Listen to a context and to all pages of it, also those that come to be later."""
        self._context = context
        self._keeps_downloads = downloads
        note_who_closes(context)
        for page in context.pages:
            self.page(page)
        context.on("page", self.page)

    def detach(self) -> None:
        """Listen no more, to a context that lives on."""
        if self._context is not None:
            self._context.remove_listener("page", self.page)

    def page(self, page: Any) -> None:
        """Listen to a page."""
        page.on("crash", self._crash)
        if self._keeps_downloads:
            page.on("download", self._download)

    def follow(self, page: Any) -> None:
        """Note which page the job was given."""
        self._page = page

    def _crash(self, page: Any) -> None:
        self.crashed = True

    def _download(self, download: Any) -> None:
        self.downloads.append(download)

    def look(self, browser: Any, roots: list[psutil.Process], driver: psutil.Process | None, name: str) -> Look:
        """Return what has become of all.

        Args:
            browser: Playwright's object, or None.
            roots: The browser's processes; empty for one that is not ours.
            driver: The driver's process.
            name: How to call the browser.
        """
        connected = browser is None or browser.is_connected()
        running = not roots or any(is_alive(root) for root in roots)
        closed = None
        if browser is not None and was_closed(browser):
            closed = "browser"
        elif self._context is not None and was_closed(self._context):
            closed = "context"
        elif self._page is not None and self._page.is_closed():
            closed = "page"
        text = f"{name}, process {roots[0].pid}," if roots else name
        return Look(
            driver_alive=driver is None or is_alive(driver),
            browser_alive=connected and running,
            crashed=self.crashed,
            closed=closed,
            name=text,
        )


def note_who_closes(closable: Any) -> None:
    """Have `close` of a browser or context leave a mark: only so a job's own doing can be told from a death."""
    own = closable.close

    def close(*args: Any, **kwargs: Any) -> Any:
        setattr(closable, _SEEN, True)
        return own(*args, **kwargs)

    closable.close = close


def was_closed(closable: Any) -> bool:
    """Return whether somebody called `close`."""
    return bool(getattr(closable, _SEEN, False))
