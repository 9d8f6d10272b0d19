"""Browser jobs as users write them, good ones and hostile ones."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psutil

from orchestrator import child

# The page itself tells the site that it is stuck, in the same turn in which it gets stuck.
STUCK = "(() => { const x = new XMLHttpRequest(); x.open('GET', '/reached', false); x.send(); while (true) {} })()"


def browsers(pid: int | None = None) -> list[int]:
    """Return the pids of the main processes of the browsers that a child (this one) has."""
    found = []
    for each in psutil.Process(pid or os.getpid()).children(recursive=True):
        try:
            words = each.cmdline()
        except psutil.Error:
            continue
        if words and "chrom" in words[0] and not any("--type=" in word for word in words):
            found.append(each.pid)
    return sorted(found)


def drivers(pid: int | None = None) -> list[int]:
    return sorted(each.pid for each in psutil.Process(pid or os.getpid()).children() if each.name().startswith("node"))


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def who(page: Any) -> dict[str, Any]:
    """Tell which child and which browsers run this."""
    return {"child": os.getpid(), "browsers": browsers(), "drivers": drivers()}


async def who_async(page: Any) -> dict[str, Any]:
    return who(page)


def who_plain() -> dict[str, Any]:
    return who(None)


def title(page: Any, url: str) -> str:
    page.goto(url)
    return str(page.inner_text("h1"))


async def title_async(page: Any, url: str) -> str:
    await page.goto(url)
    return str(await page.inner_text("h1"))


def title_in_context(context: Any, url: str) -> str:
    return title(context.new_page(), url)


def title_in_browser(browser: Any, url: str) -> str:
    context = browser.new_context()
    try:
        return title(context.new_page(), url)
    finally:
        context.close()


class Reader:
    """A class whose method is the target."""

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    def read(self, page: Any, url: str) -> str:
        return f"{self.greeting} {title(page, url)}"


def wrong_first(url: str, page: Any) -> None:
    raise AssertionError("nobody calls this")


# Jobs that hang.


def spin(page: Any, url: str) -> None:
    page.goto(f"{url}/plain")
    page.evaluate(STUCK)


async def spin_async(page: Any, url: str) -> None:
    await page.goto(f"{url}/plain")
    await page.evaluate(STUCK)


def load_for_ever(page: Any, url: str) -> None:
    page.goto(f"{url}/endless", timeout=0)


async def load_for_ever_async(page: Any, url: str) -> None:
    await page.goto(f"{url}/endless", timeout=0)


def leave_dialog(page: Any, url: str) -> None:
    page.goto(f"{url}/plain")
    page.evaluate(STUCK.replace("while (true) {}", "alert('answer me')"))


async def leave_dialog_async(page: Any, url: str) -> None:
    await page.goto(f"{url}/plain")
    await page.evaluate(STUCK.replace("while (true) {}", "alert('answer me')"))


def wait_for_popup(page: Any, url: str) -> None:
    page.goto(f"{url}/plain")
    with page.expect_popup(timeout=0):
        page.evaluate("fetch('/reached')")


def wait_for_selector(page: Any, url: str) -> None:
    page.goto(f"{url}/plain")
    page.evaluate("fetch('/reached')")
    page.wait_for_selector("#never", timeout=0)


def sleep(page: Any, url: str) -> None:
    page.goto(f"{url}/plain")
    page.evaluate("fetch('/reached')")
    time.sleep(600)


def handle_for_ever(page: Any, url: str) -> None:
    """Sleep in an event handler, which runs in a greenlet of its own."""

    def on_console(_: Any) -> None:
        page.evaluate("fetch('/reached')")
        time.sleep(600)

    page.goto(f"{url}/plain")
    page.on("console", on_console)
    page.evaluate("console.log(1)")
    page.wait_for_selector("#never", timeout=0)


def route_for_ever(page: Any, url: str) -> None:
    """Never answer a request that the page waits for."""
    page.route("**/hole", lambda route: None)
    page.goto(f"{url}/plain")
    page.evaluate("fetch('/reached')")
    page.evaluate("fetch('/hole')")


def swallow(page: Any, url: str) -> None:
    """Go on whatever is raised."""
    page.goto(f"{url}/plain")
    while True:
        try:
            page.evaluate(STUCK)
        except BaseException:
            continue


# Jobs that break things.


def close_browser(browser: Any, url: str) -> str:
    found = title_in_browser(browser, url)
    browser.close()
    return found


def close_context(context: Any) -> None:
    context.close()


def close_page(page: Any) -> None:
    page.close()


def use_closed_page(page: Any) -> None:
    page.close()
    page.title()


def kill_browser(page: Any, url: str, first: bool = True) -> str:
    """Kill the browser that this job uses, on every attempt or the first one only."""
    page.goto(url)
    for pid in browsers():
        os.kill(pid, signal.SIGKILL)
    return str(page.inner_text("h1"))


def kill_browser_once(page: Any, url: str, note: str) -> str:
    if not os.path.exists(note):
        with open(note, "w"):
            return kill_browser(page, url)
    return title(page, url)


async def kill_browser_async(page: Any, url: str) -> str:
    await page.goto(url)
    for pid in browsers():
        os.kill(pid, signal.SIGKILL)
    return str(await page.inner_text("h1"))


def kill_driver(page: Any, url: str) -> str:
    page.goto(url)
    for pid in drivers():
        os.kill(pid, signal.SIGKILL)
    return str(page.inner_text("h1"))


def kill_browser_after(page: Any) -> str:
    """Leave well, and take the browser along."""
    for pid in browsers():
        os.kill(pid, signal.SIGKILL)
    return "left"


def crash_page(page: Any) -> None:
    page.goto("chrome://crash")
    page.title()


def die(page: Any, url: str) -> None:
    page.goto(f"{url}/noisy")
    os._exit(7)


def fail(page: Any, url: str, word: str = "as it should") -> None:
    page.goto(f"{url}/noisy")
    page.wait_for_timeout(200)
    raise LookupError(f"failed {word}")


async def fail_async(page: Any, url: str) -> None:
    await page.goto(f"{url}/noisy")
    raise LookupError("failed as it should")


def find_nothing(page: Any, url: str) -> None:
    page.goto(f"{url}/plain")
    page.click("#not-there", timeout=300)


def noisy(page: Any, url: str) -> str:
    page.goto(f"{url}/noisy")
    page.wait_for_timeout(200)
    return "fine"


def own_playwright(page: Any, url: str) -> str:
    """Start a Playwright of one's own, as old code does, where one is running already."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return title(playwright.chromium.launch().new_page(), url)


def return_page(page: Any) -> Any:
    return page


def return_in_list(page: Any) -> Any:
    return [1, {"where": page.context}]


async def return_browser_async(browser: Any) -> Any:
    return browser


# Jobs that do much.


def headings(page: Any, urls: list[str]) -> Iterator[str]:
    for url in urls:
        yield title(page, url)


async def headings_async(page: Any, urls: list[str]) -> AsyncIterator[str]:
    for url in urls:
        yield await title_async(page, url)


def open_popups(page: Any, url: str) -> int:
    page.goto(f"{url}/popups")
    for _ in range(3):
        with page.expect_popup():
            page.click("button")
    return len(page.context.pages)


def many_contexts(browser: Any, count: int) -> int:
    """Make contexts and leave them all open."""
    made = [browser.new_context() for _ in range(count)]
    made[-1].new_page().goto("data:text/html,<h1>one of many</h1>")
    return len(browser.contexts)


def contexts_open(browser: Any) -> int:
    return len(browser.contexts)


def large(page: Any, size: int) -> str:
    found = page.evaluate("size => 'x'.repeat(size)", size)
    assert isinstance(found, str)
    return found


def report(page: Any, urls: list[str], progress_callback: Callable[..., None]) -> int:
    for number, url in enumerate(urls, 1):
        progress_callback(number, len(urls), title(page, url))
        child.progress(number, len(urls))
    return len(urls)


def remember(page: Any, url: str) -> str:
    """Leave a cookie and something in local storage."""
    page.goto(f"{url}/plain")
    page.evaluate("document.cookie = 'crumb=1'; localStorage.setItem('left', 'behind')")
    return "left"


def recall(page: Any, url: str) -> list[Any]:
    page.goto(f"{url}/plain")
    found = page.evaluate("[document.cookie, localStorage.getItem('left')]")
    assert isinstance(found, list)
    return found


def download(page: Any, url: str) -> str:
    page.goto(f"{url}/download")
    with page.expect_download() as waiting:
        page.click("#file")
    return str(waiting.value.suggested_filename)


def answer_dialogs(page: Any, url: str) -> list[Any]:
    page.goto(f"{url}/plain")
    return [page.evaluate("confirm('really?')"), page.evaluate("prompt('who?', 'me')")]


def temp_entries(page: Any) -> list[str]:
    """Return what lies in the child's temp folder."""
    return sorted(os.listdir(tempfile.gettempdir()))


def environment(page: Any, name: str) -> str | None:
    return os.environ.get(name)


def type_secret(page: Any, url: str, name: str) -> None:
    """Type a secret into a form, and fail."""
    page.goto(f"{url}/login")
    page.fill("#password", os.environ[name])
    page.click("#login")
    raise LookupError(f"could not log in with {os.environ[name]}")


async def several_pages_async(context: Any, url: str, count: int) -> list[str]:
    async def one(number: int) -> str:
        page = await context.new_page()
        return await title_async(page, f"{url}/plain?title={number}")

    return list(await asyncio.gather(*(one(number) for number in range(count))))


def language(page: Any) -> list[Any]:
    found = page.evaluate("[navigator.language, innerWidth]")
    assert isinstance(found, list)
    return found


def log_in(page: Any, url: str, name: str) -> str:
    from orchestrator_adapters.playwright import save_state

    page.goto(f"{url}/login")
    page.fill("#username", "ada")
    page.fill("#password", "pins-please")
    page.click("#login")
    page.wait_for_selector("#title")
    save_state(page, name)
    return "kept"


def noisy_until_killed(page: Any, url: str) -> None:
    """Say who is to be killed once the page has spoken, and go on asking the browser until that shows."""
    page.goto(f"{url}/noisy")
    page.wait_for_timeout(500)
    child.emit(who(page))
    while True:
        page.wait_for_timeout(50)
        page.title()


def change_for_ever(page: Any, url: str) -> None:
    page.goto(f"{url}/plain")
    number = 0
    while True:
        number += 1
        page.evaluate("number => { document.querySelector('h1').textContent = number }", number)
        page.wait_for_timeout(20)


# Jobs that talk from inside Playwright, or are talked to there.


def talk_from_listeners(page: Any, url: str, show: Callable[[str], None]) -> str:
    """Report from an event listener and from a function that the page calls, as pages' own news arrive there."""

    def hear(message: Any) -> None:
        print(f"printed: {message.text}")
        child.log(f"logged: {message.text}")
        child.progress(1, 2, message.text)
        show(message.text)

    page.on("console", hear)
    page.expose_function("tell", lambda text: child.emit(f"told: {text}"))
    page.goto(f"{url}/plain")
    page.evaluate("console.log('from the page'); tell('by the page')")
    page.wait_for_timeout(100)
    return "done"


async def talk_from_listeners_async(page: Any, url: str, show: Callable[[str], None]) -> str:
    def hear(message: Any) -> None:
        print(f"printed: {message.text}")
        child.log(f"logged: {message.text}")
        child.progress(1, 2, message.text)
        show(message.text)

    page.on("console", hear)
    await page.expose_function("tell", lambda text: child.emit(f"told: {text}"))
    await page.goto(f"{url}/plain")
    await page.evaluate("console.log('from the page'); tell('by the page')")
    await page.wait_for_timeout(100)
    return "done"


def wait_for_permit(page: Any, url: str, name: str) -> str:
    page.goto(f"{url}/plain")
    page.evaluate("fetch('/reached')")
    with child.permit(name):
        return title(page, f"{url}/plain")


def hold_permit(page: Any, url: str, name: str) -> None:
    with child.permit(name):
        page.goto(f"{url}/plain")
        page.evaluate(STUCK)


def leave_by_exit(page: Any) -> None:
    raise SystemExit(3)


def raise_in_listener(page: Any, url: str) -> str:
    def hear(_: Any) -> None:
        raise LookupError("raised in a listener")

    page.on("console", hear)
    page.goto(f"{url}/noisy")
    page.wait_for_timeout(300)
    return "done"


def download_for_ever(page: Any, url: str) -> str:
    page.goto(f"{url}/download")
    with page.expect_download() as waiting:
        page.click("#endless")
    return str(waiting.value.suggested_filename)


def ask_before_leaving(page: Any, url: str) -> str:
    """Leave a page that asks whether one really wants to go."""
    page.goto(f"{url}/plain")
    page.evaluate("addEventListener('beforeunload', event => { event.preventDefault(); event.returnValue = 'stay' })")
    page.click("h1")
    return "left"


def run_a_loop(page: Any) -> int:
    """Run a loop of one's own, in a thread, for Playwright's runs in this one."""
    from concurrent.futures import ThreadPoolExecutor

    async def one() -> int:
        await asyncio.sleep(0)
        return 1

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, one()).result()


def announce_and_spin(page: Any, url: str) -> None:
    child.emit(who(page))
    spin(page, url)
