"""Browser jobs of all kinds together on one supervisor: shapes of targets, options, and what jobs do to each other."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
import pytest
from orchestrator_adapters.playwright import BrowserJob, BrowserOptions, save_state
from small_site import Site

from orchestrator import BlockingSupervisor, Job, Journal, Supervisor, callback

pytestmark = [
    pytest.mark.usefixtures("browser_path"),
    pytest.mark.skipif(sys.platform == "win32", reason="sends signals"),
]
browser = pytest.mark.browser


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def gone(pid: int) -> None:
    async with asyncio.timeout(60):
        while browsing.is_alive(pid):  # nobody tells of the death of a grandchild
            await asyncio.to_thread(time.sleep, 0.01)


@browser
async def test_every_shape_of_target(site: Site) -> None:
    url = f"{site.url}/plain"
    async with Supervisor(workers=1) as supervisor:
        for target in (browsing.title, browsing.title_async, browsing.title_in_context, browsing.title_in_browser):
            assert await supervisor.run(BrowserJob(target, args=(url,))) == "plain"
            assert await supervisor.run(BrowserJob(target, kwargs={"url": url})) == "plain"
        assert await supervisor.run(BrowserJob(browsing.title, (url,))) == "plain", "as Job takes them"
        reader = BrowserJob("browsing:Reader.read", init={"greeting": "good day"}, args=(url,))
        assert await supervisor.run(reader) == "good day plain"


@browser
@pytest.mark.parametrize("name", ["headings", "headings_async"])
async def test_generators(name: str, site: Site) -> None:
    urls = [f"{site.url}/plain?title={number}" for number in range(5)]
    target = getattr(browsing, name)
    async with Supervisor(workers=1) as supervisor:
        async with supervisor.stream(BrowserJob(target, args=(urls,))) as items:
            assert [item async for item in items] == list("01234")
        assert await supervisor.run(BrowserJob(target, args=(urls,))) == list("01234")
        async with supervisor.stream(BrowserJob(target, args=(urls * 100,))) as items:
            assert await anext(items) == "0"
        found = await supervisor.run(BrowserJob(browsing.who_async if "async" in name else browsing.who))
        assert len(found["browsers"]) == 1


@browser
async def test_map_progress_callbacks_and_replace(site: Site) -> None:
    urls = [f"{site.url}/plain?title={number}" for number in range(6)]
    template = BrowserJob(browsing.title, timeout=60)
    async with Supervisor(workers=2) as supervisor:
        async with supervisor.map(template, urls, ordered=True) as outcomes:
            assert [outcome.value async for outcome in outcomes] == list("012345")
        one = dataclasses.replace(template, args=(urls[3],))
        assert isinstance(one, BrowserJob) and await supervisor.run(one) == "3"
        seen: list[tuple[Any, ...]] = []
        job = BrowserJob(
            browsing.report, args=(urls,), kwargs={"progress_callback": callback(lambda *call: seen.append(call))}
        )
        assert await supervisor.run(job) == 6
        assert seen == [(number, 6, str(number - 1)) for number in range(1, 7)]


def test_in_a_blocking_supervisor(site: Site) -> None:
    urls = [f"{site.url}/plain?title={number}" for number in range(4)]
    with BlockingSupervisor(workers=1) as supervisor:
        assert supervisor.run(BrowserJob(browsing.title, args=(urls[1],))) == "1"
        with supervisor.map(BrowserJob(browsing.title), urls, ordered=True) as outcomes:
            assert [outcome.value for outcome in outcomes] == list("0123")
        with supervisor.stream(BrowserJob(browsing.headings, args=(urls,))) as items:
            assert list(items) == list("0123")
        seen: list[tuple[Any, ...]] = []
        job = BrowserJob(
            browsing.report, args=(urls,), kwargs={"progress_callback": callback(lambda *call: seen.append(call))}
        )
        assert supervisor.run(job) == 4 and len(seen) == 4


async def test_browser_is_kept_and_contexts_are_not(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        before = await supervisor.run(BrowserJob(browsing.who))
        assert await supervisor.run(BrowserJob(browsing.remember, args=(site.url,))) == "left"
        assert await supervisor.run(BrowserJob(browsing.recall, args=(site.url,))) == ["", None]
        assert await supervisor.run(BrowserJob(browsing.many_contexts, args=(20,))) == 20
        # What a job leaves open does not pile up.
        assert await supervisor.run(BrowserJob(browsing.contexts_open)) == 0
        assert await supervisor.run(BrowserJob(browsing.open_popups, args=(site.url,))) > 1
        assert await supervisor.run(BrowserJob(browsing.who)) == before
        for target in (browsing.close_page, browsing.close_context):
            assert await supervisor.run(BrowserJob(target)) is None
        assert await supervisor.run(BrowserJob(browsing.who)) == before
        assert await supervisor.run(BrowserJob(browsing.close_browser, args=(f"{site.url}/plain",))) == "plain"
        after = await supervisor.run(BrowserJob(browsing.who))
        assert after["child"] == before["child"] and len(after["browsers"]) == 1


@browser
async def test_two_jobs_with_different_options_in_one_child(site: Site) -> None:
    german = BrowserOptions(context={"locale": "de-DE", "viewport": {"width": 300, "height": 200}})
    small = BrowserOptions(args=["--window-size=400,300"])
    async with Supervisor(workers=1) as supervisor:
        plain = await supervisor.run(BrowserJob(browsing.language))
        assert await supervisor.run(BrowserJob(browsing.language, browser=german)) == ["de-DE", 300]
        assert await supervisor.run(BrowserJob(browsing.language)) == plain
        for _ in range(2):
            for options in (None, german, small):
                found = await supervisor.run(BrowserJob(browsing.who, browser=options))
                assert len(found["browsers"]) <= 2
        assert await supervisor.run(BrowserJob(browsing.title, args=(f"{site.url}/plain",), browser=small)) == "plain"


@browser
async def test_all_flavours_on_one_worker(site: Site) -> None:
    url = f"{site.url}/plain"
    async with Supervisor(workers=1) as supervisor:
        for _ in range(2):
            assert await supervisor.run(BrowserJob(browsing.title, args=(url,))) == "plain"
            assert await supervisor.run("chores:same", 1) == 1
            assert await supervisor.run(BrowserJob(browsing.title_async, args=(url,))) == "plain"
            assert await supervisor.run("chores:same_async", 2) == 2
        waiting = [
            await supervisor.submit(job)
            for job in (
                BrowserJob(browsing.title, args=(url,)),
                Job("chores:same", args=("plain",)),
                BrowserJob(browsing.title_async, args=(url,)),
                BrowserJob(browsing.title, args=(url,)),
                Job("chores:same_async", args=("plain",)),
            )
        ]
        assert [await handle.result() for handle in waiting] == ["plain"] * 5
        assert (supervisor.statistics().restarts, supervisor.statistics().retries) == (0, 0)


@browser
async def test_async_jobs_share_a_browser(site: Site) -> None:
    async with Supervisor(workers=1, concurrency=4) as supervisor:
        url = f"{site.url}/plain"
        async with supervisor.map(BrowserJob(browsing.title_async), [url] * 12) as outcomes:
            assert [outcome.value async for outcome in outcomes] == ["plain"] * 12
        assert len((await supervisor.run(BrowserJob(browsing.who_async)))["browsers"]) == 1
        job = BrowserJob(browsing.several_pages_async, args=(site.url, 5))
        assert await supervisor.run(job) == list("01234")


@browser
async def test_browser_killed_between_jobs(site: Site) -> None:
    url = f"{site.url}/plain"
    async with Supervisor(workers=1) as supervisor:
        for ask, target in ((browsing.who, browsing.title), (browsing.who_async, browsing.title_async)):
            for kind in ("browsers", "drivers"):
                before = await supervisor.run(BrowserJob(ask))
                for pid in before[kind]:
                    os.kill(pid, signal.SIGKILL)
                    await gone(pid)
                # Nobody's job failed, and so nobody's does.
                assert await supervisor.run(BrowserJob(target, args=(url,))) == "plain"
        assert await supervisor.run(BrowserJob(browsing.kill_browser_after)) == "left"
        assert await supervisor.run(BrowserJob(browsing.title, args=(url,))) == "plain"
        assert supervisor.statistics().settled == {"succeeded": supervisor.statistics().submitted}


@browser
async def test_large_results(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        assert len(await supervisor.run(BrowserJob(browsing.large, args=(3_000_000,)))) == 3_000_000


@browser
async def test_job_with_a_playwright_of_its_own(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        job = BrowserJob(browsing.own_playwright, args=(f"{site.url}/plain",))
        outcome = await (await supervisor.submit(job)).outcome()
        assert outcome.status == "failed"
        assert "asyncio loop" in str(outcome.error), "Playwright itself refuses, and says why"
        assert await supervisor.run(BrowserJob(browsing.title, args=(f"{site.url}/plain",))) == "plain"


@browser
@pytest.mark.parametrize(("dialogs", "answers"), [("dismiss", [False, None]), ("accept", [True, "me"])])
async def test_dialogs_are_answered(dialogs: Any, answers: list[Any], site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        job = BrowserJob(browsing.answer_dialogs, args=(site.url,), browser=BrowserOptions(dialogs=dialogs))
        assert await supervisor.run(job) == answers


@browser
async def test_downloads_are_artefacts(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        outcome = await (await supervisor.submit(BrowserJob(browsing.download, args=(site.url,)))).outcome()
        assert outcome.value == "a.bin"
        paths = [artifact.path for artifact in outcome.artifacts if artifact.path.endswith("a.bin")]
        assert len(paths) == 1 and Path(paths[0]).read_text().endswith("x" * 10_000)


@browser
async def test_login_that_is_kept_by_name(site: Site, tmp_path: Path) -> None:
    options = BrowserOptions(states=tmp_path / "states")
    logged_in = dataclasses.replace(options, storage_state="ada")
    async with Supervisor(workers=1) as supervisor:
        assert await supervisor.run(BrowserJob(browsing.log_in, args=(site.url, "ada"), browser=options)) == "kept"
        found = list((tmp_path / "states").iterdir())
        assert [path.stat().st_mode & 0o777 for path in found] == [0o600]
        for target in (browsing.title, browsing.title_async):
            job = BrowserJob(target, args=(f"{site.url}/whoami",), browser=logged_in)
            assert await supervisor.run(job) == "known"
            job = BrowserJob(target, args=(f"{site.url}/whoami",), browser=options)
            assert await supervisor.run(job) == "unknown"
    assert callable(save_state)


@browser
async def test_keys_are_kept_in_a_journal(site: Site, tmp_path: Path) -> None:
    url = f"{site.url}/plain"
    journal = Journal(tmp_path / "run.journal", durability="process")
    async with Supervisor(workers=1, journal=journal) as supervisor:
        assert await supervisor.run(BrowserJob(browsing.title, args=(url,), key="one")) == "plain"
    asked = site.asked.count("/plain")
    async with Supervisor(workers=1, journal=journal) as supervisor:
        assert await supervisor.run(BrowserJob(browsing.title, args=(url,), key="one")) == "plain"
    assert site.asked.count("/plain") == asked


@browser
@pytest.mark.parametrize("target", [browsing.talk_from_listeners, browsing.talk_from_listeners_async])
async def test_what_listeners_say_is_the_jobs(target: Any, site: Site) -> None:
    seen: list[str] = []
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(BrowserJob(target, args=(site.url, callback(seen.append))))
        events = [event async for event in handle.events()]
        assert await handle.result() == "done"
    assert seen.count("from the page") == 1  # beside what the browser says of a picture that the site has not
    lines = [event.text for event in events if event.kind == "log"]
    assert "printed: from the page" in lines and "logged: from the page" in lines
    assert [event.value for event in events if event.kind == "item"] == ["told: by the page"]
    assert any(event.kind == "progress" for event in events)


@browser
async def test_odd_ends(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        for target, args, expected in (
            (browsing.leave_by_exit, (), "SystemExit: 3"),
            (browsing.raise_in_listener, (site.url,), "LookupError: raised in a listener"),
            (browsing.download_for_ever, (site.url,), None),
            (browsing.ask_before_leaving, (site.url,), None),
            (browsing.run_a_loop, (), None),
            (browsing.many_contexts, (100,), None),
        ):
            outcome = await (await supervisor.submit(BrowserJob(target, args=args))).outcome()
            assert outcome.status == ("succeeded" if expected is None else "failed"), outcome.error
            assert expected is None or expected in str(outcome.error)
            assert await supervisor.run(BrowserJob(browsing.title, args=(f"{site.url}/plain",))) == "plain"


@browser
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is one clear error")
async def test_temp_folder_with_a_long_path(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    async with Supervisor(workers=1) as supervisor:
        for target in (browsing.title, browsing.title_async):
            assert await supervisor.run(BrowserJob(target, args=(f"{site.url}/plain",))) == "plain"
    assert list(folder.iterdir()) == []
