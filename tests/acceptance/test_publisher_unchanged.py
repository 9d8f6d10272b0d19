"""A user's own publisher runs in every host with the same result, and not one line of its file is ours."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_site import Site

from orchestrator import BlockingSupervisor, Job, Supervisor, callback
from orchestrator.exceptions import JobCancelled, JobFailed

pytestmark = pytest.mark.usefixtures("browser_path")

TARGETS = Path(__file__).parent.parent / "targets"
FILE = TARGETS / "pins" / "publisher.py"
# Of the file as its author wrote it: whoever has to change the file to make a test pass has to say so here.
WRITTEN = "102bfef97b4a50bb2d0075ce9ff7d3f6c9ba5000a61b0b33a8fd4d0b522b232d"

PINS = [
    {"title": "A wren", "description": "small\nand loud", "board": "Birds"},
    {"title": "Die Küste ⛵", "description": "", "board": "Maps"},
    {"title": "A <b>heron</b>", "description": 'said "so"', "board": "Birds"},
]
PROGRESS = [[number, 3, pin["title"]] for number, pin in enumerate(PINS, 1)]
DEADLINE = 120


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "pins.json"
    path.write_text(json.dumps(PINS), "utf-8")
    return path


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    yield
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == WRITTEN


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(TARGETS), "PYTHONIOENCODING": "utf-8"}
    ended = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=DEADLINE
    )
    assert ended.returncode == 0, ended.stderr
    return ended


def job(site: Site, note: Any = None, pins: Any = PINS, **options: Any) -> Job:
    kwargs = {} if note is None else {"progress_callback": callback(note)}
    return Job("pins.publisher:Publisher.publish", init={"site": site.url}, args=(pins,), kwargs=kwargs, **options)


def published(site: Site) -> list[dict[str, str]]:
    return [{**pin, "description": pin["description"].replace("\r\n", "\n")} for pin in site.pins]


def test_file_imports_nothing_of_ours() -> None:
    found = set()
    for node in ast.walk(ast.parse(FILE.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).partition(".")[0])
    assert found == {"json", "shutil", "sys", "playwright"}
    assert "orchestrator" not in FILE.read_text("utf-8")
    listed = subprocess.run(["git", "diff", "HEAD", "--", str(FILE)], cwd=FILE.parent, capture_output=True, text=True)
    assert listed.returncode or listed.stdout == "", "the diff of the user's file is empty"


def test_from_the_command_line(site: Site, pins: Path, tmp_path: Path) -> None:
    ended = run("-m", "pins.publisher", site.url, str(pins), cwd=tmp_path)
    assert json.loads(ended.stdout) == ["0", "1", "2"]
    assert ended.stderr.splitlines() == [f"{done}/{total} {title}" for done, total, title in PROGRESS]
    assert published(site) == PINS


# The rest of the hosts start as many browsers again.
browser = pytest.mark.browser
HOSTS = [
    "awaited-old",
    "streamlit-old",
    pytest.param("awaited", marks=browser),
    pytest.param("notebook", marks=browser),
    pytest.param("blocking", marks=browser),
    pytest.param("blocking-old", marks=browser),
    pytest.param("notebook-old", marks=browser),
    pytest.param("streamlit", marks=browser),
]


@pytest.mark.parametrize("host", HOSTS)
def test_in_a_child_of_any_host(host: str, site: Site, pins: Path, tmp_path: Path) -> None:
    strict = [] if host.startswith("streamlit") else ["-W", "error"]  # Streamlit's own tester forgets a folder
    ended = run(*strict, str(TARGETS / "pins_host.py"), host, site.url, str(pins), cwd=tmp_path)
    assert json.loads(ended.stdout) == {"ids": ["0", "1", "2"], "progress": PROGRESS}
    assert published(site) == PINS
    assert ended.stderr.count("the host's main module ran") == 1


@pytest.mark.parametrize(
    ("host", "error", "text"),
    [
        ("direct-old", "NotImplementedError", ""),
        ("direct_in_loop", "Error", "Playwright Sync API inside the asyncio loop"),
    ],
)
def test_hosts_in_which_it_dies_by_itself(
    host: str, error: str, text: str, site: Site, pins: Path, tmp_path: Path
) -> None:
    # Otherwise the test above would show nothing.
    ended = run(str(TARGETS / "pins_host.py"), host, site.url, str(pins), cwd=tmp_path)
    found = json.loads(ended.stdout)
    assert found["error"] == error and text in found["text"]
    assert site.pins == []


async def test_progress_is_live_and_the_host_stays_responsive(site: Site) -> None:
    told = [threading.Event() for _ in PINS]
    ticks = [0]

    def hold(number: int) -> None:
        # Each pin is accepted when the host was told of the one before, so a call that comes late is seen.
        if number:
            assert told[number - 1].wait(DEADLINE)

    site.on_publish = hold

    async def tick() -> None:
        while True:
            await asyncio.sleep(0)
            ticks[0] += 1

    ticking = asyncio.create_task(tick())
    turns: list[int] = []

    def note(done: int, total: int, title: str) -> None:
        turns.append(ticks[0])
        told[done - 1].set()

    async with Supervisor(workers=1) as supervisor:
        assert await supervisor.run(job(site, note)) == ["0", "1", "2"]
    ticking.cancel()
    assert len(set(turns)) == 3, "the loop turned between one call and the next"


@pytest.mark.parametrize("wrong", ["pin", pytest.param("password", marks=browser), pytest.param("site", marks=browser)])
async def test_its_errors_come_with_the_line_of_its_file(wrong: str, site: Site) -> None:
    seen: list[list[Any]] = []
    one = job(site, lambda *call: seen.append(list(call)), [PINS[0], {**PINS[1], "title": ""}, PINS[2]])
    if wrong == "password":
        one = Job(one.target, init={"site": site.url, "password": "no"}, args=one.args)
    elif wrong == "site":
        one = Job(one.target, init={"site": "http://127.0.0.1:9"}, args=one.args)
    async with Supervisor(workers=1) as supervisor:
        with pytest.raises(JobFailed) as failure:
            await supervisor.run(one)
        text = {"pin": "ValueError: : a pin needs a title", "password": "login failed: wrong password"}
        assert text.get(wrong, "net::ERR_") in str(failure.value)
        assert 'publisher.py", line' in failure.value.error.traceback
        assert "_publish_one" in failure.value.error.traceback or wrong != "pin"
        assert seen == ([[1, 3, "A wren"]] if wrong == "pin" else [])
        # The same child runs the next one: nothing of the first is left in it.
        assert await supervisor.run(job(site)) == [str(number) for number in range(len(site.pins) - 3, len(site.pins))]


@pytest.mark.parametrize("blocking", [False, pytest.param(True, marks=browser)], ids=["asyncio", "blocking"])
async def test_cancelled_midway_nothing_is_left(blocking: bool, site: Site) -> None:
    reached = threading.Event()
    let = threading.Event()

    def hold(number: int) -> None:
        if number == 1 and not let.is_set():
            reached.set()
            let.wait(DEADLINE)

    site.on_publish = hold
    try:
        if blocking:
            with BlockingSupervisor(workers=1) as other:
                handle = other.submit(job(site))
                assert reached.wait(DEADLINE)
                handle.cancel()
                assert handle.outcome().status == "cancelled"
                browsers = browsers_below(psutil.Process())
                let.set()
        else:
            async with Supervisor(workers=1) as supervisor:
                running = await supervisor.submit(job(site))
                assert await asyncio.to_thread(reached.wait, DEADLINE)
                running.cancel()
                with pytest.raises(JobCancelled):
                    await running.result()
                browsers = browsers_below(psutil.Process())
                let.set()
                assert len(await supervisor.run(job(site))) == 3
        assert browsers == []
    finally:
        let.set()


def browsers_below(process: psutil.Process) -> list[str]:
    found = []
    for each in process.children(recursive=True):
        try:
            if each.status() != psutil.STATUS_ZOMBIE and ("chrom" in each.name() or "node" in each.name()):
                found.append(each.name())
        except psutil.NoSuchProcess:
            pass
    return found


@browser
def test_many_at_once_from_many_threads(site: Site) -> None:
    found: dict[int, Any] = {}

    with BlockingSupervisor(workers=2) as supervisor:

        def publish(number: int) -> None:
            seen: list[Any] = []
            one = [{**pin, "title": f"{pin['title']} {number}"} for pin in PINS]
            ids = supervisor.run(job(site, lambda *call: seen.append(call), one))
            found[number] = ([site.pins[int(each)]["title"] for each in ids], seen)

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(4):
        titles = [f"{pin['title']} {number}" for pin in PINS]
        assert found[number] == (titles, [(done, 3, title) for done, title in enumerate(titles, 1)])
    assert len(site.pins) == 12


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=browser)])
async def test_publisher_that_never_closes_its_browser_works_again_and_again(times: int, site: Site) -> None:
    seen: list[list[Any]] = []
    lasting = Job(
        "pins.lasting_publisher:LastingPublisher.publish",
        init={"site": site.url},
        args=([{"title": "one"}, {"title": "two"}],),
        kwargs={"progress_callback": callback(lambda *call: seen.append(list(call)))},
    )
    async with Supervisor(workers=1) as supervisor:
        for _ in range(times):
            assert await supervisor.run(lasting) == ["one", "two"]
            # What its Playwright leaves in the child must not meet anybody else's job.
            assert await supervisor.run("chores:same_async", 1) == 1
            assert await supervisor.run("chores:same", 2) == 2
        # Submitted together they follow each other at once, and each finds a child that is fit for it.
        handles = [await supervisor.submit(lasting) for _ in range(2)]
        assert [await handle.result() for handle in handles] == [["one", "two"]] * 2
        found = supervisor.statistics()
        assert (found.restarts, found.retries) == (0, 0), "a child that is spent is no child that crashed"
        assert found.settled == {"succeeded": 3 * times + 2}
    assert seen == [[1, 2, "one"], [2, 2, "two"]] * (times + 2)
