"""Playwright's async API in a child: one driver and one browser, kept between jobs and shared by those side by side."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar

from orchestrator import child
from orchestrator_adapters.playwright import _processes, _recycle
from orchestrator_adapters.playwright._launch import environment, launch_arguments, launching
from orchestrator_adapters.playwright._watch import note_who_closes, was_closed

# The contexts that the running attempt has made itself, of a browser that it may share with others.
made_here: ContextVar[list[Any] | None] = ContextVar("orchestrator_browser_contexts", default=None)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeVar

    import psutil

    from orchestrator_adapters.playwright._options import BrowserOptions

    T = TypeVar("T")

_CLOSE_DEADLINE = 5.0
_STOP_DEADLINE = 3.0
# What still waits when browser and driver are dead waits for nothing.
_AFTER_KILL = 1.0


class Browser:
    """One browser; jobs that were given it keep it until they end, also when others get a newer one.

    Attributes:
        handle: Playwright's object.
        roots: Its processes; none of one that is not ours.
        served: How many jobs it has had.
        users: How many have it now.
        is_suspect: It did something that only a fresh one is free of.
    """

    def __init__(self, handle: Any, roots: list[psutil.Process], key: str) -> None:
        self.handle = handle
        self.roots = roots
        self.served = 0
        self.users = 0
        self.is_suspect = False
        self.key = key
        self._since = time.monotonic()
        note_who_closes(handle)
        _note_who_makes(handle)

    def serves(self, key: str) -> bool:
        """Return whether it lives and is what a job asks for."""
        return (
            self.key == key
            and not self.is_suspect
            and not was_closed(self.handle)
            and bool(self.handle.is_connected())
            and (not self.roots or any(map(_processes.is_alive, self.roots)))
        )

    def why_recycle(self, bounds: _recycle.Bounds) -> str | None:
        """Return why it should be replaced, if it should."""
        if not self.roots:
            return None  # not ours
        memory = _processes.megabytes(self.roots) if _recycle.measure_now(self.served) else None
        return _recycle.due(bounds, self.served, time.monotonic() - self._since, memory)

    def kill(self) -> None:
        """End its processes."""
        _processes.kill(self.roots)


class Driver:
    """Playwright's driver, with one browser that new jobs get.

    Attributes:
        playwright: The async API.
        process: The driver's process.
        browser: The browser for the next job, or None.
        was_given_up: It was ended here, for a browser was dead and it did not end a call that waited.
    """

    def __init__(self) -> None:
        self._starter: Any = None
        self.playwright: Any = None
        self.process: psutil.Process | None = None
        self.browser: Browser | None = None
        self.was_given_up = False
        self._lock = asyncio.Lock()
        self._closed = False

    async def start(self) -> Driver:
        """Start it."""
        from playwright.async_api import async_playwright

        known = _processes.Known()
        self._starter = async_playwright()
        with environment():
            self.playwright = await self._starter.start()
        self.process = next(iter(known.new()), None)
        return self

    @property
    def is_alive(self) -> bool:
        """The driver runs."""
        return not self._closed and _processes.is_alive(self.process)

    async def take_browser(self, options: BrowserOptions, bounds: _recycle.Bounds) -> Browser:
        """Return the browser for a job, starting one if there is none that will do; to be given back with `release`.

        Raises:
            LaunchFailed: If there is none to be had.
        """
        key = options.launch_key()
        async with self._lock:
            found = self.browser
            if found is not None and found.serves(key):
                reason = found.why_recycle(bounds)
                if reason is not None:
                    child.log("browser.recycled", reason=reason)
                    await self._retire()
            elif found is not None:
                await self._retire()
            if self.browser is None:
                self.browser = await self._open(options, key)
            self.browser.served += 1
            self.browser.users += 1
            return self.browser

    async def release(self, browser: Browser) -> None:
        """Take a browser back from a job; the last one closes it when there is a newer one."""
        browser.users -= 1
        if browser is not self.browser and not browser.users:
            await self._end(browser)

    async def _retire(self) -> None:
        """Give the browser to no more jobs; close it unless some still have it."""
        browser, self.browser = self.browser, None
        if browser is not None and not browser.users:
            await self._end(browser)

    async def _open(self, options: BrowserOptions, key: str) -> Browser:
        kind = getattr(self.playwright, options.engine)
        if options.mode == "cdp":
            with launching(options):
                handle = await kind.connect_over_cdp(options.endpoint, timeout=options.launch_timeout * 1000)
            return Browser(handle, [], key)
        handle, roots = await self._launch(lambda: kind.launch(**launch_arguments(options)), options)
        return Browser(handle, roots, key)

    async def _launch(
        self, launch: Callable[[], Awaitable[T]], options: BrowserOptions
    ) -> tuple[T, list[psutil.Process]]:
        """Start a browser, wholly or not at all: one whose start was cancelled halfway would be nobody's."""
        known = _processes.Known(self.process)
        with launching(options):
            starting = asyncio.ensure_future(launch())
            try:
                await asyncio.wait([starting])
            except asyncio.CancelledError:
                _processes.kill(known.new())
                await asyncio.wait([starting], timeout=_AFTER_KILL)
                starting.cancel()
                # Read, or the loop complains of an error that nobody wants.
                starting.add_done_callback(lambda done: done.cancelled() or done.exception())
                raise
            return starting.result(), known.new()

    async def open_profile(
        self, options: BrowserOptions, arguments: dict[str, Any]
    ) -> tuple[Any, list[psutil.Process]]:
        """Open a profile for one job; return its context and the browser's processes."""
        kind = getattr(self.playwright, options.engine)
        arguments = {**launch_arguments(options), **arguments}
        return await self._launch(lambda: kind.launch_persistent_context(options.user_data_dir, **arguments), options)

    async def _end(self, browser: Browser) -> None:
        if browser.handle.is_connected():
            # With one that is not ours, close() only ends the connection.
            await within(_CLOSE_DEADLINE, browser.handle.close(), browser.kill)
        _processes.kill(root for root in browser.roots if _processes.is_alive(root))

    def give_up(self, browser: Browser | None) -> None:
        """End the driver for the sake of a call that waits for a dead browser, unless jobs have another one."""
        if self.browser is None or self.browser is browser or not self.browser.users:
            self.was_given_up = True
            self.kill()

    def kill(self) -> None:
        """End the driver and all that it has started."""
        if self.process is not None:
            _processes.kill([self.process])

    async def aclose(self) -> None:
        """Close the browser and stop the driver."""
        global _current
        if _current is self:
            _current = None
        if self._closed:
            return
        if self.is_alive:
            await self._retire()
        self._closed = True
        await within(_STOP_DEADLINE, self._starter.__aexit__(), self.kill)
        self.kill()


def _note_who_makes(handle: Any) -> None:
    """Have contexts that jobs make themselves known as theirs, so that they are closed when those end."""
    own_context, own_page = handle.new_context, handle.new_page

    async def new_context(*args: Any, **kwargs: Any) -> Any:
        context = await own_context(*args, **kwargs)
        made = made_here.get()
        if made is not None:
            made.append(context)
        return context

    async def new_page(*args: Any, **kwargs: Any) -> Any:
        page = await own_page(*args, **kwargs)
        made = made_here.get()
        if made is not None:
            made.append(page.context)
        return page

    handle.new_context, handle.new_page = new_context, new_page


async def within(seconds: float, awaitable: Awaitable[Any], kill: Callable[[], None]) -> BaseException | None:
    """Await a call of Playwright; when it takes longer, kill what it needs. Return what it raised."""
    task = asyncio.ensure_future(awaitable)
    try:
        for left, then in ((seconds, kill), (_AFTER_KILL, task.cancel)):
            done, _ = await asyncio.wait([task], timeout=left)
            if done:
                break
            then()
        await asyncio.wait([task], timeout=_AFTER_KILL)
    finally:
        if not task.done():
            task.cancel()
    if not task.done() or task.cancelled():
        return None
    return task.exception()


_current: Driver | None = None
_generation = 1


async def obtain() -> Driver:
    """Return the child's driver, a new one if it has none that works."""
    global _current, _generation
    if _current is not None and _current.is_alive:
        return _current
    dead, _current = _current, None
    if dead is not None:
        _generation += 1  # before the first await: whoever asks meanwhile gets the new one too
        await dead.aclose()
    # As a resource, so that it is spared when a cancelled job is cleaned up after, and made once for all who ask.
    driver: Driver = await child.resource(f"async-playwright-{_generation}", Driver().start)
    _current = driver
    return driver
