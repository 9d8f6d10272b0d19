"""One attempt of an async browser job: a fresh context of the child's browser before it, all of it gone after it."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress

from orchestrator import child
from orchestrator_adapters.playwright import _async, _processes, _states
from orchestrator_adapters.playwright._deathwatch import DeathWatch
from orchestrator_adapters.playwright._errors import BrowserDied, DriverDied, PageCrashed
from orchestrator_adapters.playwright._launch import context_arguments
from orchestrator_adapters.playwright._plan import (
    CLOSE_DEADLINE,
    CRASH_TAKES,
    DEATH_TAKES,
    DOWNLOADS_DEADLINE,
    EVIDENCE_DEADLINE,
    HURRIED_DEADLINE,
    LAST_PATIENCE,
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
    from collections.abc import Awaitable
    from types import TracebackType
    from typing import Any, TypeVar

    import psutil

    from orchestrator.child import Call
    from orchestrator_adapters.playwright._evidence_async import AsyncEvidence

    T = TypeVar("T")


class AsyncAttempt:
    """Stands around one attempt; other attempts may run beside it in the same browser, each in a context of its own.

    Args:
        call: The attempt.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._plan = Plan(call)
        self._watch = Watch()
        self._driver: _async.Driver | None = None
        self._browser: _async.Browser | None = None
        self._profile: list[psutil.Process] = []
        self._deathwatch: DeathWatch | None = None
        self._evidence: AsyncEvidence | None = None
        self._lease: Lease | None = None
        self._context: Any = None
        self._own_context = True
        self._page: Any = None
        self._made: list[Any] = []
        self._tokens: tuple[Any, Any] | None = None
        self._asked: float | None = None

    def _kill(self) -> None:
        """End the browser, unless others use it too; then the end of the child is the end of what hangs."""
        if self._profile:
            _processes.kill(self._profile)
        elif self._browser is not None and self._browser.users <= 1:
            if self._browser.roots:
                self._browser.kill()
            elif self._driver is not None:
                self._driver.kill()  # a browser that is not ours: only the connection ends

    def _left(self) -> float:
        """Return the seconds that may pass from now, of an attempt that was asked to end."""
        if self._asked is None:
            self._asked = time.monotonic()  # the first that is heard of it
        return max(LEAST, self._asked + LAST_PATIENCE - time.monotonic())

    # Before

    async def __aenter__(self) -> Any:
        try:
            try:
                first = await self._open()
            except Exception as error:
                # One that died between two jobs, or hung: the job has not begun, so it may have a new one.
                if not is_gone(error) or self._call.ended_by is not None:
                    raise
                await self._close_all(hurried=True)
                first = await self._open()
        except BaseException as error:
            translated = await self._translated(error)
            await self._close(translated)
            if translated is error:
                raise
            raise translated from error
        self._tokens = _states.running.set(self._plan.keeper), _async.made_here.set(self._made)
        return first

    async def _open(self) -> Any:
        plan = self._plan
        state = plan.state()
        if plan.artifacts is not None and self._evidence is None:
            from orchestrator_adapters.playwright._evidence_async import AsyncEvidence

            self._evidence = AsyncEvidence(plan.artifacts, self._call)
        self._driver = driver = await _async.obtain()
        if plan.options.mode == "persistent":
            await self._open_profile(driver)
            self._watch_for_death()
        else:
            self._browser = await driver.take_browser(plan.options, plan.bounds)
            self._watch_for_death()
            if plan.first == "browser":
                return self._browser.handle
            await self._open_context(self._browser, state)
        self._watch.attach(self._context, downloads=plan.options.downloads)
        self._listen_to_dialogs()
        if self._evidence is not None:
            await self._evidence.begin(self._context, self._own_context)
        if plan.first == "page":
            self._page = await self._whole(self._context.new_page())
            self._watch.follow(self._page)
            if self._evidence is not None:
                await self._evidence.page(self._page)
        return self._context if plan.first == "context" else self._page

    async def _open_context(self, browser: _async.Browser, state: dict[str, Any] | None) -> None:
        options = self._plan.options
        there = browser.handle.contexts
        if options.mode == "cdp" and there:
            if options.login == "share":
                self._context, self._own_context = there[0], False
                return
            if options.login == "copy" and state is None:
                state = await self._whole(there[0].storage_state())
        extra = self._evidence.context_options() if self._evidence is not None else {}
        await self._whole(self._new_context(browser, context_arguments(options, state, extra)))

    async def _new_context(self, browser: _async.Browser, arguments: dict[str, Any]) -> None:
        # Noted in the task that makes it, so that it is known, and closed, also if the job is cancelled meanwhile.
        self._context = await browser.handle.new_context(**arguments)

    async def _open_profile(self, driver: _async.Driver) -> None:
        options = self._plan.options
        self._lease = Lease(os.fspath(options.user_data_dir or ""))
        extra = self._evidence.context_options() if self._evidence is not None else {}
        self._context, self._profile = await driver.open_profile(options, context_arguments(options, None, extra))

    async def _whole(self, awaitable: Awaitable[T]) -> T:
        """Await a call with a deadline; when the job is cancelled meanwhile, the call is not broken off."""
        task = asyncio.ensure_future(awaitable)
        try:
            done, _ = await asyncio.wait([task], timeout=OPEN_DEADLINE)
            if not done:
                self._kill()
                await asyncio.wait([task], timeout=HURRIED_DEADLINE)
        except asyncio.CancelledError:
            done, _ = await asyncio.wait([task], timeout=self._left())
            if not done:
                self._kill()
            raise
        finally:
            if not task.done():
                task.cancel()
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task.result()

    def _watch_for_death(self) -> None:
        loop = asyncio.get_running_loop()
        self._deathwatch = DeathWatch(loop, self._is_browser_dead, self._give_up)

    def _is_browser_dead(self) -> bool:
        roots = self._roots()
        if not roots or (self._browser is not None and was_closed(self._browser.handle)):
            return False
        return not any(map(_processes.is_alive, roots))

    def _give_up(self) -> None:
        if self._driver is not None:
            self._driver.give_up(self._browser)

    def _roots(self) -> list[psutil.Process]:
        return self._profile or (self._browser.roots if self._browser is not None else [])

    def _listen_to_dialogs(self) -> None:
        # Without a listener Playwright dismisses them itself, and with one of ours the job could have none of its own.
        if self._plan.options.dialogs == "accept":
            self._context.on("dialog", _accept)
        elif self._plan.options.dialogs == "leave":
            self._context.on("dialog", _leave)

    # After

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._tokens is not None:
                _states.running.reset(self._tokens[0])
                _async.made_here.reset(self._tokens[1])
            translated = None if error is None else await self._translated(error)
            await self._close(translated)
            if translated is None:
                self._plan.keeper.commit()
            elif translated is not error:
                raise translated from error
        finally:
            self._plan.keeper.drop()

    async def _translated(self, error: BaseException) -> BaseException:
        """Return what really happened: the same exception if it says so itself."""
        if self._call.ended_by is not None and is_playwrights(error):
            # What ended the call, and how that looks in Playwright, is of no interest.
            return asyncio.CancelledError()
        driver = self._driver
        if driver is None or not isinstance(error, Exception):
            return error
        roots = self._roots()
        handle = self._browser.handle if self._browser is not None else getattr(self._context, "browser", None)
        if is_gone(error):
            await self._wait_for_death(driver, handle, roots)
        elif may_be_crash(error):
            until = time.monotonic() + CRASH_TAKES
            while not self._watch.crashed and time.monotonic() < until:  # noqa: ASYNC110  one failed navigation, and a second at most
                await asyncio.sleep(0.02)
        process = None if driver.was_given_up else driver.process  # its end is no reason, but a consequence
        look = self._watch.look(handle, roots, process, self._plan.name)
        if is_timeout(error) and not look.crashed and look.driver_alive and look.browser_alive:
            error.failure_class = "timed_out"  # type: ignore[attr-defined]
            return error
        found = why(error, look)
        if found is not None:
            if self._browser is not None:
                self._browser.is_suspect |= isinstance(found, BrowserDied | DriverDied | PageCrashed)
            return found
        remark = note(look)
        if remark is not None and not is_playwrights(error) and not hasattr(error, "failure_class"):
            error.add_note(remark)
        return error

    async def _wait_for_death(self, driver: _async.Driver, handle: Any, roots: list[psutil.Process]) -> None:
        """Give a process whose end Playwright has noticed the time to be gone."""
        until = time.monotonic() + DEATH_TAKES
        await asyncio.sleep(0)
        while time.monotonic() < until and driver.is_alive:
            if handle is None or handle.is_connected() or not any(map(_processes.is_alive, roots)):
                return
            await asyncio.sleep(0.01)

    async def _close(self, error: BaseException | None) -> None:
        """End the attempt."""
        hurried = self._call.ended_by is not None
        driver, evidence = self._driver, self._evidence
        if driver is not None and self._context is not None:
            alive = driver.is_alive
            if evidence is not None:
                seconds = self._left() if hurried else EVIDENCE_DEADLINE
                await _async.within(seconds, evidence.finish(error, self._call.ended_by, alive), self._kill)
            if self._watch.downloads and alive and not hurried:
                await _async.within(2 * DOWNLOADS_DEADLINE, self._save_downloads(), self._kill)
        await self._close_all(hurried=hurried)
        if self._evidence is not None:
            await self._evidence.after_close(error)

    async def _close_all(self, *, hurried: bool) -> None:
        """Close what was opened."""
        if self._deathwatch is not None:
            self._deathwatch.stop()
        driver = self._driver
        if driver is not None and driver.is_alive:
            deadline = self._left() if hurried else CLOSE_DEADLINE
            problem = await _async.within(deadline, self._close_contexts(), self._kill)
            if problem is not None:
                child.log(f"closing: {problem}", "debug")
            if self._browser is not None:
                await driver.release(self._browser)
        if self._profile:
            left = [root for root in self._profile if not await _ends(root)]
            _processes.kill(left)
        if self._lease is not None:
            self._lease.close()
        self._lease, self._context, self._page, self._browser, self._profile = None, None, None, None, []

    async def _save_downloads(self) -> None:
        if self._evidence is None:
            from orchestrator_adapters.playwright._evidence_async import AsyncEvidence

            self._evidence = AsyncEvidence(self._plan.no_artifacts, self._call)
        folder = os.fspath(self._evidence.folder)
        taken: set[str] = set()
        until = time.monotonic() + DOWNLOADS_DEADLINE
        for download in self._watch.downloads:
            path = download_path(folder, download.suggested_filename, taken)
            try:
                async with asyncio.timeout(max(0.1, until - time.monotonic())):
                    await download.save_as(path)
            except Exception as error:
                tell_lost(download, error)
                with suppress(Exception):
                    async with asyncio.timeout(HURRIED_DEADLINE):
                        await download.cancel()  # what still comes in would keep its context from closing

    async def _close_contexts(self) -> None:
        if self._context is not None and self._own_context and not was_closed(self._context):
            await self._context.close()
        elif self._context is not None and not self._own_context:
            self._watch.detach()
            if self._page is not None:
                await self._page.close()
        # Those that the job made itself.
        for context in self._made:
            await context.close()


async def _ends(process: psutil.Process) -> bool:
    until = time.monotonic() + CLOSE_DEADLINE
    while _processes.is_alive(process):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.01)
    return True


async def _accept(dialog: Any) -> None:
    try:
        await dialog.accept(dialog.default_value)  # as who presses OK
    except Exception:
        return  # the job has answered it, or the page is gone


def _leave(dialog: Any) -> None:
    return None
