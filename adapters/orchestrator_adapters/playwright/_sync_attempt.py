"""One attempt of a sync browser job: a fresh context of the child's browser before it, all of it gone after it."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from orchestrator import child
from orchestrator_adapters.playwright import _processes, _states, _sync
from orchestrator_adapters.playwright._cancel import Canceller
from orchestrator_adapters.playwright._errors import BrowserDied, DriverDied, PageCrashed
from orchestrator_adapters.playwright._launch import context_arguments
from orchestrator_adapters.playwright._plan import (
    CLOSE_DEADLINE,
    CRASH_TAKES,
    DEATH_TAKES,
    DOWNLOADS_DEADLINE,
    EVIDENCE_DEADLINE,
    HURRIED_DEADLINE,
    LEAST,
    OPEN_DEADLINE,
    Plan,
    download_path,
    tell_lost,
)
from orchestrator_adapters.playwright._profile import Lease
from orchestrator_adapters.playwright._translate import is_gone, is_playwrights, is_timeout, may_be_crash, note, why
from orchestrator_adapters.playwright._watch import Watch, was_closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any

    from orchestrator.child import Call
    from orchestrator_adapters.playwright._evidence import Evidence


class SyncAttempt:
    """Stands around one attempt; what the child's runtime asks of a fixture is `with`, `may_interrupt`, `interrupt`.

    Args:
        call: The attempt.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._plan = Plan(call)
        self._canceller = Canceller(self._kill_browser, self._kill_driver)
        self._watch = Watch()
        self._driver: _sync.Driver | None = None
        self._evidence: Evidence | None = None
        self._lease: Lease | None = None
        self._context: Any = None
        self._own_context = True
        self._page: Any = None
        self._before: list[Any] = []
        self._token: Any = None
        # To look at all processes takes milliseconds: only where a driver has still to be started.
        self._known = _processes.Known() if _sync.current() is None else None

    # Cancelling

    def may_interrupt(self, frame: FrameType | None) -> bool:
        """Return whether a cancel may be raised in this frame."""
        return self._canceller.may_interrupt(frame)

    def interrupt(self) -> None:
        """End what the job waits for."""
        self._canceller.interrupt()

    def _kill_browser(self) -> None:
        if self._driver is not None:
            self._driver.kill_browser()

    def _kill_driver(self) -> None:
        if self._driver is not None:
            self._driver.kill_driver()
        elif self._known is not None:
            _processes.kill(self._known.new())  # a driver that does not get ready

    def _stop_if_asked(self) -> None:
        if self._call.ended_by is not None:
            raise child.JobCancelled("the supervisor asked this job to end before it began")

    # Before

    def __enter__(self) -> Any:
        try:
            try:
                first = self._open()
            except Exception as error:
                # One that died between two jobs, or hung: the job has not begun, so it may have a new one.
                if not is_gone(error) or self._call.ended_by is not None:
                    raise
                self._canceller.pause()
                self._close_all(hurried=False)
                first = self._open()
        except BaseException as error:
            self._canceller.end()
            translated = self._translated(error)
            self._close(translated)
            self._canceller.close()
            if translated is error:
                raise
            raise translated from error
        self._token = _states.running.set(self._plan.keeper)
        assert self._driver is not None
        self._canceller.begin(self._driver.loop)
        return first

    def _open(self) -> Any:
        plan = self._plan
        state = plan.state()
        if plan.artifacts is not None and self._evidence is None:
            from orchestrator_adapters.playwright._evidence import Evidence

            self._evidence = Evidence(plan.artifacts, self._call)
        driver = self._driver = _sync.obtain()
        self._stop_if_asked()
        if plan.options.mode == "persistent":
            self._open_profile(driver)
        else:
            self._open_browser(driver)
            self._stop_if_asked()
            if plan.first == "browser":
                return driver.browser
            # A browser is started wholly or not at all; a context that is only half there can be closed.
            self._canceller.begin(driver.loop)
            driver.within(OPEN_DEADLINE, self._open_context, driver, state)
        self._stop_if_asked()
        self._watch.attach(self._context, downloads=plan.options.downloads)
        self._listen_to_dialogs()
        if self._evidence is not None:
            driver.within(OPEN_DEADLINE, self._evidence.begin, self._context, self._own_context)
        if plan.first == "page":
            self._page = driver.within(OPEN_DEADLINE, self._context.new_page)
            self._watch.follow(self._page)
            if self._evidence is not None:
                self._evidence.page(self._page)
        self._stop_if_asked()
        return self._context if plan.first == "context" else self._page

    def _open_browser(self, driver: _sync.Driver) -> None:
        key = self._plan.options.launch_key()
        if driver.has_browser(key):
            reason = driver.why_recycle(self._plan.bounds)
            if reason is not None:
                child.log("browser.recycled", reason=reason)
                driver.drop_browser()
        else:
            driver.drop_browser()
        if driver.browser is None:
            driver.open_browser(self._plan.options)
        driver.served += 1
        # Of a browser that is ours, all are this job's: one may be left of a job that was cancelled while it was made.
        self._before = list(driver.browser.contexts) if self._plan.options.mode == "cdp" else []

    def _open_context(self, driver: _sync.Driver, state: dict[str, Any] | None) -> None:
        options = self._plan.options
        if options.mode == "cdp" and self._before:
            if options.login == "share":
                self._context, self._own_context = self._before[0], False
                return
            if options.login == "copy" and state is None:
                state = self._before[0].storage_state()
        extra = self._evidence.context_options() if self._evidence is not None else {}
        self._context = driver.browser.new_context(**context_arguments(options, state, extra))

    def _open_profile(self, driver: _sync.Driver) -> None:
        options = self._plan.options
        driver.drop_browser()  # one browser a child
        self._lease = Lease(os.fspath(options.user_data_dir or ""))
        extra = self._evidence.context_options() if self._evidence is not None else {}
        self._context = driver.open_profile(options, context_arguments(options, None, extra))

    def _listen_to_dialogs(self) -> None:
        # Without a listener Playwright dismisses them itself, and with one of ours the job could have none of its own.
        if self._plan.options.dialogs == "accept":
            self._context.on("dialog", _accept)
        elif self._plan.options.dialogs == "leave":
            self._context.on("dialog", _leave)

    # After

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._canceller.end()
        try:
            _states.running.reset(self._token)
            translated = None if error is None else self._translated(error)
            problem = self._close(translated)
            if translated is None:
                if problem is not None:
                    raise problem
                self._plan.keeper.commit()
            elif translated is not error:
                raise translated from error
        finally:
            self._plan.keeper.drop()
            self._canceller.close()

    def _translated(self, error: BaseException) -> BaseException:
        """Return what really happened: the same exception if it says so itself."""
        if self._call.ended_by is not None and (is_playwrights(error) or not isinstance(error, Exception)):
            # What ended the call, and how that looks in Playwright, is of no interest.
            return error if _is_cancel(error) else child.JobCancelled("the supervisor asked this job to end")
        driver = self._driver
        if driver is None or not isinstance(error, Exception):
            return error
        if is_gone(error):
            driver.turn()
            self._wait_for_death(driver)
        elif may_be_crash(error):
            until = time.monotonic() + CRASH_TAKES
            while not self._watch.crashed and driver.is_alive and time.monotonic() < until:
                driver.turn(0.02)
        process = None if driver.was_given_up else driver.process  # its end is no reason, but a consequence
        look = self._watch.look(self._browser(), driver.roots, process, self._plan.name)
        if is_timeout(error) and not look.crashed and look.driver_alive and look.browser_alive:
            error.failure_class = "timed_out"  # type: ignore[attr-defined]
            return error
        found = why(error, look)
        if found is not None:
            driver.is_suspect |= isinstance(found, BrowserDied | DriverDied | PageCrashed)
            return found
        remark = note(look)
        if remark is not None and not is_playwrights(error) and not hasattr(error, "failure_class"):
            error.add_note(remark)
        return error

    def _browser(self) -> Any:
        if self._driver is None:
            return None
        if self._driver.browser is None and self._context is not None:
            return self._context.browser
        return self._driver.browser

    def _wait_for_death(self, driver: _sync.Driver) -> None:
        """Give a process whose end Playwright has noticed the time to be gone."""
        browser = self._browser()
        until = time.monotonic() + DEATH_TAKES
        while time.monotonic() < until:
            if not _processes.is_alive(driver.process):
                return
            gone = browser is None or browser.is_connected() or not any(map(_processes.is_alive, driver.roots))
            # The driver's own end takes as long to be seen, and looks like a connection that was closed.
            if gone and driver.is_alive:
                return
            time.sleep(0.01)

    def _close(self, error: BaseException | None) -> BaseException | None:
        """End the attempt; return what a listener of the job raised last, which nobody has heard of."""
        driver, evidence = self._driver, self._evidence
        hurried = self._call.ended_by is not None
        if driver is not None and self._context is not None:
            alive = driver.is_alive
            if evidence is not None:
                seconds = self._canceller.left(at_least=LEAST) if hurried else EVIDENCE_DEADLINE
                self._try(driver, seconds, evidence.finish, error, self._call.ended_by, alive)
            if self._watch.downloads and alive and not hurried:
                self._try(driver, 2 * DOWNLOADS_DEADLINE, self._save_downloads)
        problem = self._close_all(hurried=hurried)
        if self._evidence is not None:
            self._evidence.after_close(error)
        return problem

    def _close_all(self, *, hurried: bool) -> BaseException | None:
        """Close what was opened; return what a listener of the job raised."""
        driver = self._driver
        problem = None
        if driver is not None and driver.is_alive:
            deadline = self._canceller.left(at_least=LEAST) if hurried else CLOSE_DEADLINE
            problem = self._try(driver, deadline, self._close_contexts, driver)
            if problem is not None:
                self._try(driver, deadline, self._close_contexts, driver)  # a listener's error came instead
            driver.turn()
            driver.forget_errors()
        if driver is not None and self._plan.options.mode == "persistent":
            driver.end_profile()
        if self._lease is not None:
            self._lease.close()
        self._lease, self._context, self._page = None, None, None
        return problem

    def _try(self, driver: _sync.Driver, seconds: float, call: Any, *args: Any) -> BaseException | None:
        """Make a call of the closing; return what a listener of the job raised."""
        try:
            driver.within(seconds, call, *args)
        except Exception as error:
            if not is_playwrights(error):
                return error
            child.log(f"closing: {error}", "debug")
        return None

    def _save_downloads(self) -> None:
        from orchestrator_adapters.playwright._evidence import Evidence, within

        if self._evidence is None:
            self._evidence = Evidence(self._plan.no_artifacts, self._call)
        folder = os.fspath(self._evidence.folder)
        taken: set[str] = set()
        until = time.monotonic() + DOWNLOADS_DEADLINE
        for download in self._watch.downloads:
            path = download_path(folder, download.suggested_filename, taken)
            try:
                with within(download, max(0.1, until - time.monotonic())):
                    download.save_as(path)
            except Exception as error:
                tell_lost(download, error)
                with suppress(Exception), within(download, HURRIED_DEADLINE):
                    download.cancel()  # what still comes in would keep its context from closing

    def _close_contexts(self, driver: _sync.Driver) -> None:
        if self._context is not None and self._own_context and not was_closed(self._context):
            self._context.close()
        elif self._context is not None and not self._own_context:
            self._watch.detach()
            if self._page is not None:
                self._page.close()
        if driver.browser is not None and driver.browser.is_connected() and not was_closed(driver.browser):
            # Those that the job made itself.
            for context in driver.browser.contexts:
                if context not in self._before:
                    context.close()


def _accept(dialog: Any) -> None:
    try:
        dialog.accept(dialog.default_value)  # as who presses OK
    except Exception:
        return  # the job has answered it, or the page is gone


def _leave(dialog: Any) -> None:
    return None


def _is_cancel(error: BaseException) -> bool:
    import asyncio

    return isinstance(error, child.JobCancelled | asyncio.CancelledError)
