"""A job that does a bit of everything with its page, for ever, to be cancelled at any moment; and small ones."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import psutil

from orchestrator import child


def do_everything(page: Any, seed: int) -> None:
    """Do one thing after the other, in an order that only the seed knows; says `on` when it begins."""
    chance = random.Random(seed)
    page.on("request", lambda request: request.url)
    page.on("console", lambda message: chance.random() < 0.3 and page.title())
    page.expose_function("python_add", lambda a, b: a + b)
    page.route("**/routed", lambda route: route.fulfill(body="<title>routed</title>", content_type="text/html"))
    child.progress(1, text="on")
    while True:
        chance.choice(THINGS)(page)


def add_in_python(page: Any) -> None:
    page.evaluate("() => python_add(1, 2)")


def expect_a_message(page: Any) -> None:
    with page.expect_console_message() as found:
        page.evaluate("() => setTimeout(() => console.log('later'), 20)")
    found.value.text  # noqa: B018  asks for it


def open_another(page: Any) -> None:
    other = page.context.new_page()
    other.goto("about:blank")
    other.close()


THINGS = (
    lambda page: page.set_content("<title>x</title><button id=b>b</button>"),
    lambda page: page.evaluate("() => new Promise(done => setTimeout(done, 20))"),
    lambda page: page.wait_for_timeout(15),
    lambda page: time.sleep(0.01),
    lambda page: page.evaluate("() => { console.log('one'); console.log('two') }"),
    add_in_python,
    lambda page: page.goto("http://nowhere.test/routed"),
    expect_a_message,
    lambda page: page.screenshot(),
    lambda page: sum(range(50_000)),
    open_another,
    lambda page: page.locator("body").count(),
)


def processes(browser: Any) -> list[int]:
    """Return the child, its driver and its browser."""
    drivers = living(psutil.Process())
    return [os.getpid(), *(each.pid for each in drivers), *(one.pid for each in drivers for one in living(each))]


def living(parent: psutil.Process) -> list[psutil.Process]:
    return [each for each in parent.children() if each.status() != psutil.STATUS_ZOMBIE]


def open_contexts(browser: Any) -> int:
    return len(browser.contexts)


def count_visits(page: Any, url: str) -> int:
    """Return how often a profile was here."""
    page.goto(url)
    found: int = page.evaluate("() => localStorage.visits = 1 + Number(localStorage.visits || 0)")
    return int(found)


def hold(page: Any, path: str) -> None:
    """Keep the page until somebody removes the file that says that it is open."""
    with open(path, "x", encoding="utf-8"):
        pass
    while os.path.exists(path):
        page.wait_for_timeout(50)


async def hold_async(page: Any, path: str) -> None:
    with open(path, "x", encoding="utf-8"):
        pass
    while os.path.exists(path):
        await page.wait_for_timeout(50)


async def count_visits_async(page: Any, url: str) -> int:
    await page.goto(url)
    return int(await page.evaluate("() => localStorage.visits = 1 + Number(localStorage.visits || 0)"))


def sleep_in_listener(page: Any, kind: str) -> None:
    """Sleep in what Playwright calls, each kind of which has a greenlet of its own."""

    def sleep(*_: Any) -> None:
        child.progress(1, text="on")
        time.sleep(600)

    if kind == "event":
        page.on("console", sleep)
        page.evaluate("() => console.log(1)")
        page.wait_for_timeout(600_000)
    elif kind == "route":
        page.route("**/*", sleep)
        page.goto("http://nowhere.test/")
    else:
        page.expose_function("ask", sleep)
        page.evaluate("() => ask()")
