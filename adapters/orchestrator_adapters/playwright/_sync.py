"""Playwright's sync API in a child: one driver and one browser, kept between jobs."""

from __future__ import annotations

import asyncio
import time

from orchestrator import child
from orchestrator_adapters.playwright import _handlers, _processes, _recycle
from orchestrator_adapters.playwright._deathwatch import DeathWatch
from orchestrator_adapters.playwright._launch import environment, launch_arguments, launching
from orchestrator_adapters.playwright._watch import note_who_closes, was_closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import psutil

    from orchestrator_adapters.playwright._options import BrowserOptions

# How long a browser may take to close before it is killed, and the driver, which does nothing else, to stop.
_CLOSE_DEADLINE = 5.0
_STOP_DEADLINE = 3.0
# The driver is what hangs if the browser's end did not end a call by then.
_DRIVER_PATIENCE = 0.5
# A browser whose last window is closed writes its profile and ends.
_ENDS_WITHIN = 3.0


class Driver:
    """Playwright's driver, with at most one browser.

    Attributes:
        playwright: The sync API.
        loop: Playwright's loop, which runs while a call waits.
        process: The driver's process.
        browser: The browser that is kept, or None.
        roots: The browser's processes; none of one that is not ours.
        served: How many jobs it has had.
        is_suspect: It did something that only a fresh one is free of.
        was_given_up: The driver was ended here, for its browser was dead and it did not end a call that waited.
    """

    def __init__(self) -> None:
        from playwright.sync_api import sync_playwright

        _handlers.guard()
        known = _processes.Known()
        self._starter = sync_playwright()
        with environment():
            self.playwright: Any = self._starter.start()
        self.process: psutil.Process | None = next(iter(known.new()), None)
        self.loop: asyncio.AbstractEventLoop = self.playwright._loop
        self.browser: Any = None
        self.roots: list[psutil.Process] = []
        self.served = 0
        self.is_suspect = False
        self.was_given_up = False
        self._deathwatch: DeathWatch | None = None
        self._key = ""
        self._since = 0.0

    @property
    def is_alive(self) -> bool:
        """The driver runs and is connected."""
        return _processes.is_alive(self.process) and not self.playwright._dispatcher_fiber.dead

    # The browser

    def has_browser(self, key: str) -> bool:
        """Return whether the browser that is kept lives and is what a job asks for."""
        return (
            self.browser is not None
            and self._key == key
            and not self.is_suspect
            and not was_closed(self.browser)
            and self.browser.is_connected()
            and (not self.roots or any(_processes.is_alive(root) for root in self.roots))
        )

    def why_recycle(self, bounds: _recycle.Bounds) -> str | None:
        """Return why the browser that is kept should be replaced, if it should."""
        if not self.roots:
            return None  # not ours
        memory = _processes.megabytes(self.roots) if _recycle.measure_now(self.served) else None
        return _recycle.due(bounds, self.served, time.monotonic() - self._since, memory)

    def open_browser(self, options: BrowserOptions) -> None:
        """Start the browser, or attach to it.

        Raises:
            LaunchFailed: If there is none to be had.
        """
        kind = getattr(self.playwright, options.engine)
        if options.mode == "cdp":
            timeout = options.launch_timeout * 1000
            with launching(options):
                self.browser = kind.connect_over_cdp(options.endpoint, timeout=timeout)
        else:
            arguments = launch_arguments(options)
            known = _processes.Known(self.process)
            with launching(options):
                self.browser = kind.launch(**arguments)
            self.roots = known.new()
        note_who_closes(self.browser)
        self._watch_for_death()
        self._key = options.launch_key()
        self._since = time.monotonic()

    def open_profile(self, options: BrowserOptions, arguments: dict[str, Any]) -> Any:
        """Open a profile for one job; return its context."""
        known = _processes.Known(self.process)
        kind = getattr(self.playwright, options.engine)
        with launching(options):
            context = kind.launch_persistent_context(options.user_data_dir, **launch_arguments(options), **arguments)
        self.roots = known.new()
        self._watch_for_death()
        return context

    def end_profile(self) -> None:
        """See to it that the browser that had a profile open is gone, so that the next one may have it."""
        self._watch_for_death(False)
        if self.roots:
            _processes.kill(root for root in self.roots if not _processes.ends_within(root, _ENDS_WITHIN))
            self.roots = []

    def drop_browser(self) -> None:
        """Close the browser that is kept, or leave the one that is not ours alone."""
        browser, roots = self.browser, self.roots
        self._watch_for_death(False)
        if browser is not None and browser.is_connected():
            try:
                # With one that is not ours, close() only ends the connection.
                self.within(_CLOSE_DEADLINE, browser.close)
            except Exception as error:
                child.log(f"a browser did not close: {error}", "debug")
        _processes.kill(root for root in roots if _processes.is_alive(root))
        self.browser, self.roots, self.served, self.is_suspect = None, [], 0, False

    def _watch_for_death(self, begins: bool = True) -> None:
        if self._deathwatch is not None:
            self._deathwatch.stop()
        self._deathwatch = DeathWatch(self.loop, self._is_browser_dead, self._give_up) if begins else None

    def _is_browser_dead(self) -> bool:
        if not self.roots or (self.browser is not None and was_closed(self.browser)):
            return False
        return not any(map(_processes.is_alive, self.roots))

    def _give_up(self) -> None:
        self.was_given_up = True
        self.kill_driver()

    # Calls with a deadline

    def within(self, seconds: float, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call; when it takes longer, the browser is killed, then the driver: either ends the call."""
        timers = [
            self.loop.call_later(seconds, self.kill_browser),
            self.loop.call_later(seconds + _DRIVER_PATIENCE, self.kill_driver),
        ]
        try:
            return call(*args, **kwargs)
        finally:
            for timer in timers:
                timer.cancel()

    def turn(self, seconds: float = 0.0) -> None:
        """Let the loop run, so that what has happened is heard of."""
        if self.is_alive:
            try:
                self.playwright._sync(asyncio.sleep(seconds))
            except Exception:
                return  # the driver died just now

    def forget_errors(self) -> None:
        """Drop what a listener of the last job raised: the next call, of the next job, would raise it."""
        connection: Any = getattr(self.playwright._impl_obj, "_connection", None)
        if getattr(connection, "_error", None) is not None:
            connection._error = None

    # The end

    def kill_browser(self) -> None:
        """End the browser's processes, from any thread; of one that is not ours, the connection."""
        if self.roots:
            _processes.kill(self.roots)
        elif self.browser is not None:
            self.kill_driver()
        elif self.process is not None:
            _processes.kill(_processes.children(self.process))  # one that is just being started

    def kill_driver(self) -> None:
        """End the driver and all that it has started, from any thread."""
        if self.process is not None:
            _processes.kill([self.process])

    def close(self) -> None:
        """Close the browser and stop the driver."""
        global _current
        if _current is self:
            _current = None
        self._watch_for_death(False)
        if self.is_alive:
            self.drop_browser()
        if not self.is_alive:
            self.kill_driver()
        try:
            self.within(_STOP_DEADLINE, self._starter.__exit__)
        except Exception as error:
            child.log(f"Playwright did not stop: {error}", "debug")
        self.kill_driver()


_current: Driver | None = None
_made = 0


def obtain() -> Driver:
    """Return the child's driver, a new one if it has none that works."""
    global _current, _made
    if _current is not None and not _current.is_alive:
        _current.close()
    if _current is None:
        _made += 1
        # As a resource, so that it and its browser are spared when a cancelled job is cleaned up after.
        _current = child.resource(f"playwright-{_made}", Driver)
    return _current


def current() -> Driver | None:
    """Return the child's driver, if it has one."""
    return _current
