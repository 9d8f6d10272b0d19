"""Whatever hangs in a browser job can be ended: softly if that works, and otherwise nothing of it survives."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
import psutil
import pytest
from orchestrator_adapters.playwright import BrowserJob, BrowserOptions
from small_site import Site

from orchestrator import BlockingSupervisor, Job, Limit, Supervisor
from orchestrator.exceptions import JobTimedOut

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


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def no_temp_folder_left() -> Iterator[None]:
    before = set(os.listdir(tempfile.gettempdir()))
    yield
    # What a guardian cleans up after a host that was killed may be on its way.
    deadline = time.monotonic() + DEADLINE
    while (left := set(os.listdir(tempfile.gettempdir())) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


async def reached(site: Site, path: str, count: int) -> None:
    await asyncio.to_thread(site.wait_asked, path, count, DEADLINE)


HANGS: list[Any] = [
    (browsing.spin, "/reached"),
    (browsing.spin_async, "/reached"),
    (browsing.load_for_ever, "/endless"),
    (browsing.leave_dialog, "/reached"),
    *(
        pytest.param(target, path, marks=browser)
        for target, path in [
            (browsing.load_for_ever_async, "/endless"),
            (browsing.leave_dialog_async, "/reached"),
            (browsing.wait_for_popup, "/reached"),
            (browsing.wait_for_selector, "/reached"),
            (browsing.sleep, "/reached"),
            (browsing.route_for_ever, "/reached"),
        ]
    ),
]


@pytest.mark.parametrize(("target", "path"), HANGS)
@pytest.mark.parametrize("end", ["cancel", pytest.param("timeout", marks=browser)])
async def test_soft_end_keeps_the_browser(target: Any, path: str, end: str, site: Site) -> None:
    options = BrowserOptions(dialogs="leave")
    ask: Any = browsing.who_async if asyncio.iscoroutinefunction(target) else browsing.who
    took: list[float] = []
    async with Supervisor(workers=1) as supervisor:
        for number in range(1, 7):
            before = await supervisor.run(BrowserJob(ask, browser=options))
            assert len(before["browsers"]) == 1
            if end == "cancel":
                handle = await supervisor.submit(BrowserJob(target, args=(site.url,), browser=options))
                await reached(site, path, number)
                began = time.monotonic()
                handle.cancel()
                outcome = await handle.outcome()
                took.append(time.monotonic() - began)
                assert (outcome.status, outcome.failure_class) == ("cancelled", "cancelled")
            else:
                handle = await supervisor.submit(BrowserJob(target, args=(site.url,), browser=options, timeout=2))
                outcome = await handle.outcome()
                assert (outcome.status, outcome.failure_class) == ("timed_out", "timed_out")
            after = await supervisor.run(BrowserJob(ask, browser=options))
            assert len(after["browsers"]) == 1
            # A machine that is busy enough lets the soft way run into its deadline, but hardly six times in a row.
            if after == before and (not took or took[-1] < 1):
                return
    raise AssertionError(f"the browser or the child was another one each time, or it took {took} s")


@pytest.mark.parametrize("target", [browsing.swallow])
async def test_job_that_cannot_be_interrupted_loses_its_child_only(target: Any, site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        before = await supervisor.run(BrowserJob(browsing.who))
        handle = await supervisor.submit(BrowserJob(target, args=(site.url,)))
        await reached(site, "/reached", 1)
        began = time.monotonic()
        handle.cancel()
        assert (await handle.outcome()).status == "cancelled"
        print(f"{time.monotonic() - began:.2f} s")
        assert not any(map(browsing.is_alive, [before["child"], *before["browsers"], *before["drivers"]]))
        after = await supervisor.run(BrowserJob(browsing.who))
        assert after["child"] != before["child"] and len(after["browsers"]) == 1


async def test_stopped_browser_and_killed_child_leave_nothing(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        before = await supervisor.run(BrowserJob(browsing.who))
        handle = await supervisor.submit(BrowserJob(browsing.load_for_ever, args=(site.url,)))
        await reached(site, "/endless", 1)
        child = psutil.Process(before["child"])
        tree = child.children(recursive=True)
        assert len(tree) > 4
        for each in tree:
            if not each.name().startswith("node"):
                each.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        child.send_signal(signal.SIGKILL)
        outcome = await handle.outcome()
        assert (outcome.status, outcome.failure_class) == ("crashed", "crashed")
        gone, alive = await asyncio.to_thread(psutil.wait_procs, [child, *tree], 2 + DEADLINE)
        print(f"{len(gone)} processes were gone after {time.monotonic() - began:.2f} s")
        assert alive == []
        assert await supervisor.run(BrowserJob(browsing.title, args=(f"{site.url}/plain",))) == "plain"


@pytest.mark.parametrize("stopped", [True, pytest.param(False, marks=browser)])
def test_killed_host_takes_its_browsers_along(stopped: bool, site: Site) -> None:
    script = Path(browsing.__file__).with_name("browser_host.py")
    host = subprocess.Popen([sys.executable, str(script), site.url], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    with host.stdout:
        found = json.loads(host.stdout.readline())
        site.wait_asked("/reached", 1, DEADLINE)
        tree = psutil.Process(host.pid).children(recursive=True)
        assert {found["child"], *found["browsers"], *found["drivers"]} <= {each.pid for each in tree}
        if stopped:
            for pid in found["browsers"]:
                os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        host.kill()
        host.wait()
        gone, alive = psutil.wait_procs(tree, 3 + DEADLINE)
    print(f"{len(gone)} processes were gone after {time.monotonic() - began:.2f} s")
    assert alive == []


@browser
async def test_cancel_while_a_job_waits_for_a_permit(site: Site) -> None:
    async with Supervisor(workers=2, limits=[Limit("door", concurrency=1)]) as supervisor:
        holding = await supervisor.submit(BrowserJob(browsing.hold_permit, args=(site.url, "door")))
        await reached(site, "/reached", 1)
        waiting = await supervisor.submit(BrowserJob(browsing.wait_for_permit, args=(site.url, "door")))
        await reached(site, "/reached", 2)
        waiting.cancel()
        assert (await waiting.outcome()).status == "cancelled"
        again = await supervisor.submit(BrowserJob(browsing.wait_for_permit, args=(site.url, "door")))
        await reached(site, "/reached", 3)
        holding.cancel()
        assert (await holding.outcome()).status == "cancelled"
        assert await again.result() == "plain", "the permit of a job that was ended came back"


@browser
async def test_handler_that_sleeps_is_ended(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(BrowserJob(browsing.handle_for_ever, args=(site.url,)))
        await reached(site, "/reached", 1)
        handle.cancel()
        assert (await handle.outcome()).status == "cancelled"
        assert await supervisor.run(BrowserJob(browsing.title, args=(f"{site.url}/plain",))) == "plain"


@browser
async def test_stopped_browser_is_killed_alone(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        before = await supervisor.run(BrowserJob(browsing.who))
        for each in psutil.Process(before["browsers"][0]).children(recursive=True):
            each.send_signal(signal.SIGSTOP)
        os.kill(before["browsers"][0], signal.SIGSTOP)
        handle = await supervisor.submit(BrowserJob(browsing.title, args=(f"{site.url}/plain",), timeout=3))
        outcome = await handle.outcome()
        assert outcome.status in ("timed_out", "failed")
        # What is stuck there must not be handed to the next one.
        after = await supervisor.run(BrowserJob(browsing.title, args=(f"{site.url}/plain",), timeout=DEADLINE))
        assert after == "plain"
        assert not browsing.is_alive(before["browsers"][0])


@pytest.mark.parametrize("count", [3, pytest.param(50, marks=browser)])
async def test_launches_leave_no_zombie_and_no_temp_folder(count: int, site: Site) -> None:
    seen: set[psutil.Process] = set()
    stop = threading.Event()
    me = psutil.Process()
    before = set(me.children(recursive=True))  # multiprocessing's resource tracker, say: it ends with this process

    def watch() -> None:
        while not stop.wait(0.2):
            seen.update(set(me.children(recursive=True)) - before)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        async with Supervisor(workers=1) as supervisor:
            options = BrowserOptions(recycle_after=1)
            pids = []
            entries: list[list[str]] = []
            for number in range(count):
                found = await supervisor.run(BrowserJob(browsing.who, browser=options))
                pids += found["browsers"]
                if number % 2:
                    url = f"{site.url}/plain"
                    assert await supervisor.run(BrowserJob(browsing.title, args=(url,), browser=options)) == "plain"
                entries.append(await supervisor.run(BrowserJob(browsing.temp_entries, browser=options)))
            assert len(set(pids)) == count, "one launch for each job"
            assert len(entries[-1]) <= len(entries[0]) + 1, entries[-1]
    finally:
        stop.set()
        watching.join()
    # The zygotes of a browser that is gone belong to the system's first process, which reaps them when it likes.
    deadline = time.monotonic() + DEADLINE
    while (left := [each for each in seen if each.is_running()]) and time.monotonic() < deadline:
        await asyncio.to_thread(time.sleep, 0.1)
    assert left == []


@pytest.mark.parametrize("timeout", [0.05, pytest.param(0.3, marks=browser), pytest.param(0.8, marks=browser)])
async def test_timeouts_that_end_before_the_browser_is_up(timeout: float, site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        for target in (browsing.spin, browsing.spin_async):
            with pytest.raises(JobTimedOut):
                await supervisor.run(BrowserJob(target, args=(site.url,), timeout=timeout))
            assert await supervisor.run(BrowserJob(browsing.title, args=(f"{site.url}/plain",))) == "plain"


@browser
@pytest.mark.parametrize("count", [40])
async def test_cancels_at_any_moment(count: int, site: Site) -> None:
    chance = random.Random(count)
    async with Supervisor(workers=1) as supervisor:
        for number in range(count):
            target: Any = (browsing.title, browsing.title_async)[number % 8 == 7]
            handle = await supervisor.submit(BrowserJob(target, args=(f"{site.url}/plain",)))
            await asyncio.sleep(chance.random() * (1 if number % 4 else 0.3))
            handle.cancel()
            outcome = await handle.outcome()
            assert outcome.status in ("cancelled", "succeeded"), outcome
        assert await supervisor.run(BrowserJob(browsing.title, args=(f"{site.url}/plain",))) == "plain"
        assert supervisor.statistics().settled.get("failed", 0) == 0


@pytest.mark.parametrize(
    ("moment", "blocking"),
    [
        pytest.param("starting", False, marks=browser),
        ("hanging", True),
        pytest.param("starting", True, marks=browser),
        pytest.param("hanging", False, marks=browser),
    ],
)
async def test_supervisor_closed_midway(moment: str, blocking: bool, site: Site) -> None:
    job = BrowserJob(browsing.spin, args=(site.url,))
    if blocking:
        with BlockingSupervisor(workers=1, on_exit="cancel") as other:
            waiting = other.submit(job)
            if moment == "hanging":
                site.wait_asked("/reached", 1, DEADLINE)
        assert waiting.outcome().status == "cancelled"
    else:
        async with Supervisor(workers=1, on_exit="cancel") as supervisor:
            handle = await supervisor.submit(job)
            if moment == "hanging":
                await reached(site, "/reached", 1)
        assert (await handle.outcome()).status == "cancelled"


@browser
async def test_plain_jobs_beside_a_hung_browser(site: Site) -> None:
    async with Supervisor(workers=2) as supervisor:
        handle = await supervisor.submit(BrowserJob(browsing.spin, args=(site.url,)))
        await reached(site, "/reached", 1)
        assert await supervisor.run(Job("chores:same", args=(1,))) == 1
        assert await supervisor.run("chores:same_async", 2) == 2
        handle.cancel()
        assert (await handle.outcome()).status == "cancelled"
