"""Attached to a browser that somebody else runs, jobs leave its tabs and cookies alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import browsing
import psutil
import pytest
from orchestrator_adapters.playwright import BrowserJob, BrowserOptions
from small_site import COOKIE, Site

from orchestrator import Supervisor
from orchestrator.exceptions import JobFailed

pytestmark = [
    pytest.mark.usefixtures("browser_path"),
    pytest.mark.skipif(sys.platform == "win32", reason="sends signals"),
]
browser = pytest.mark.browser
DEADLINE = 60


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


class Running:
    """A browser that a person uses: with a port for others, logged in at the site, and with tabs open."""

    def __init__(self, path: str, site: Site, folder: Path) -> None:
        words = [path, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
        words += ["--no-first-run", "--no-default-browser-check", "--disable-gpu", f"{site.url}/plain?title=mine"]
        if os.geteuid() == 0:
            words.insert(1, "--no-sandbox")
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = folder / "DevToolsActivePort"
        deadline = time.monotonic() + DEADLINE
        while not port_file.exists() or "\n" not in port_file.read_text():
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.05)
        self.endpoint = f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"

    def tabs(self) -> list[str]:
        with urllib.request.urlopen(f"{self.endpoint}/json/list", timeout=DEADLINE) as answer:
            found = json.load(answer)
        return sorted(tab["url"] for tab in found if tab["type"] == "page")

    def settled_tabs(self, expected: list[str]) -> list[str]:
        """Return the tabs as soon as they are as expected, or as they are at the deadline."""
        deadline = time.monotonic() + DEADLINE
        while (found := self.tabs()) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
        return found


def look_in(endpoint: str, url: str, *, log_in: bool) -> dict[str, Any]:
    """Look at the running browser with a Playwright of one's own, as its user."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.connect_over_cdp(endpoint).contexts[0]
        if log_in:
            name, _, value = COOKIE.partition("=")
            own.add_cookies([{"name": name, "value": value, "url": url}])
            own.pages[0].evaluate("localStorage.setItem('mine', 'kept')")
        cookies = {cookie.get("name"): cookie.get("value") for cookie in own.cookies()}
        return {"cookies": cookies, "mine": own.pages[0].evaluate("({...localStorage})"), "pages": len(own.pages)}


def look(endpoint: str, url: str, log_in: bool = False) -> dict[str, Any]:
    # In a thread of its own, for a loop runs here.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(look_in, endpoint, url, log_in=log_in).result()


@pytest.fixture
def running(browser_path: str, site: Site) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Running(browser_path, site, Path(folder))
        try:
            yield made
        finally:
            tree = [psutil.Process(made.process.pid)] if made.process.poll() is None else []
            tree += [each for one in tree for each in one.children(recursive=True)]
            made.process.terminate()
            made.process.wait(DEADLINE)
            psutil.wait_procs(tree, DEADLINE)


async def test_tabs_and_cookies_are_left_alone(running: Running, site: Site) -> None:
    looked = look(running.endpoint, site.url, True)
    assert looked["cookies"] == {"session": "let-in"} and looked["mine"] == {"mine": "kept"}
    tabs = running.tabs()
    options = BrowserOptions(mode="cdp", endpoint=running.endpoint)
    async with Supervisor(workers=2) as supervisor:
        for target in (browsing.title, browsing.title_async):
            # The job is logged in as the browser is.
            job = BrowserJob(target, args=(f"{site.url}/whoami",), browser=options)
            assert await supervisor.run(job) == "known"
        assert await supervisor.run(BrowserJob(browsing.remember, args=(site.url,), browser=options)) == "left"
        with pytest.raises(JobFailed):
            await supervisor.run(BrowserJob(browsing.fail, args=(site.url,), browser=options))
        several = BrowserJob(browsing.several_pages_async, args=(site.url, 3), browser=options)
        assert await supervisor.run(several) == list("012")
        hung = await supervisor.submit(BrowserJob(browsing.spin, args=(site.url,), browser=options))
        await asyncio.to_thread(site.wait_asked, "/reached", 1, DEADLINE)
        hung.cancel()
        assert (await hung.outcome()).status == "cancelled"
        assert running.settled_tabs(tabs) == tabs, "also while the children that attached to it live"
    assert running.process.poll() is None
    assert running.settled_tabs(tabs) == tabs
    assert look(running.endpoint, site.url) == looked


@browser
async def test_login_of_nobody_and_login_shared(running: Running, site: Site) -> None:
    looked = look(running.endpoint, site.url, True)
    tabs = running.tabs()
    async with Supervisor(workers=1) as supervisor:
        for login, expected in (("none", "unknown"), ("copy", "known"), ("share", "known")):
            options = BrowserOptions(mode="cdp", endpoint=running.endpoint, login=login)  # type: ignore[arg-type]
            job = BrowserJob(browsing.title, args=(f"{site.url}/whoami",), browser=options)
            assert await supervisor.run(job) == expected
            assert running.settled_tabs(tabs) == tabs
    assert look(running.endpoint, site.url) == looked


@browser
async def test_jobs_that_close_or_kill_what_is_not_theirs(running: Running, site: Site) -> None:
    looked = look(running.endpoint, site.url, True)
    tabs = running.tabs()
    options = BrowserOptions(mode="cdp", endpoint=running.endpoint)
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(
            BrowserJob(browsing.close_browser, args=(f"{site.url}/plain",), browser=options)
        )
        await handle.outcome()
        handle = await supervisor.submit(BrowserJob(browsing.swallow, args=(site.url,), browser=options))
        await asyncio.to_thread(site.wait_asked, "/reached", 1, DEADLINE)
        handle.cancel()
        assert (await handle.outcome()).status == "cancelled"
        job = BrowserJob(browsing.title, args=(f"{site.url}/whoami",), browser=options)
        assert await supervisor.run(job) == "known"
    assert running.process.poll() is None, "a browser that is not ours outlives our children"
    assert set(tabs) <= set(running.tabs())
    found = look(running.endpoint, site.url)
    assert (found["cookies"], found["mine"]) == (looked["cookies"], looked["mine"])


async def test_browser_that_is_gone_and_one_that_never_was(running: Running, site: Site) -> None:
    options = BrowserOptions(mode="cdp", endpoint=running.endpoint)
    job = BrowserJob(browsing.title, args=(f"{site.url}/plain",), browser=options)
    async with Supervisor(workers=1) as supervisor:
        assert await supervisor.run(job) == "plain"
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(DEADLINE)
        for target in (browsing.title, browsing.title_async):
            again = BrowserJob(target, args=(f"{site.url}/plain",), browser=options)
            outcome = await (await supervisor.submit(again)).outcome()
            assert (outcome.status, outcome.failure_class) == ("failed", "launch_failed")
            assert isinstance(outcome.error, JobFailed) and outcome.error.error.data["code"] == "unreachable"
            text = str(outcome.error)
            print(text.partition("Traceback")[0])
            assert running.endpoint in text.partition("Traceback")[0]


@browser
async def test_endpoint_that_says_nothing(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes the line, and never answers
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        options = BrowserOptions(mode="cdp", endpoint=endpoint, launch_timeout=1)
        async with Supervisor(workers=1) as supervisor:
            outcome = await (await supervisor.submit(BrowserJob(browsing.who, browser=options))).outcome()
            assert (outcome.status, outcome.failure_class) == ("failed", "launch_failed")
            print(str(outcome.error).partition("Traceback")[0])
            assert endpoint in str(outcome.error)
            # A web server that is no browser.
            options = BrowserOptions(mode="cdp", endpoint=site.url)
            outcome = await (await supervisor.submit(BrowserJob(browsing.who, browser=options))).outcome()
            assert (outcome.status, outcome.failure_class) == ("failed", "launch_failed")
            print(str(outcome.error).partition("Traceback")[0])
