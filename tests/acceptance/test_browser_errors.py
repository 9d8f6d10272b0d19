"""Each mistake and each death in a browser job is one clear error, and the jobs after it run."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
import pytest
from orchestrator_adapters.playwright import BrowserJob, BrowserOptions, LaunchFailed, find_browser
from small_site import Site

from orchestrator import Outcome, RetryPolicy, Supervisor
from orchestrator.exceptions import ConfigurationError, JobFailed, OrchestratorError, PayloadError, TargetError

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


async def outcome_of(supervisor: Supervisor, target: Any, *args: Any, **options: Any) -> Outcome:
    return await (await supervisor.submit(BrowserJob(target, args=args, **options))).outcome()


async def goes_on(supervisor: Supervisor, site: Site, **options: Any) -> None:
    assert await supervisor.run(BrowserJob(browsing.title, args=(f"{site.url}/plain",), **options)) == "plain"


def read(outcome: Outcome) -> str:
    """Return an error's text, when it is one that a user can read: no log of a launch, no second traceback."""
    text = str(outcome.error)
    summary = text.partition("Traceback (most recent call last)")[0]
    assert len(summary) < 1200, summary
    assert text.count("Traceback (most recent call last)") <= 2
    print(summary)
    return summary


async def test_browser_that_is_missing(site: Site, tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        outcome = await outcome_of(
            supervisor, browsing.who, browser=BrowserOptions(executable=str(tmp_path / "nowhere"))
        )
        assert (outcome.status, outcome.failure_class) == ("failed", "launch_failed")
        text = read(outcome)
        assert "nowhere" in text and "playwright install" not in text.replace("playwright install chromium", "")
        # One job's mistake is not the other's.
        await goes_on(supervisor, site)
    folder = tmp_path / "empty"
    folder.mkdir()
    if sys.platform == "darwin":
        return  # it is looked for among the applications, too
    bare = {"PATH": str(folder), "HOME": str(folder), "PLAYWRIGHT_BROWSERS_PATH": str(folder)}
    async with Supervisor(workers=1, env={**bare, "ORCHESTRATOR_BROWSER": ""}) as supervisor:
        for target in (browsing.who, browsing.who_async):
            outcome = await outcome_of(supervisor, target)
            assert (outcome.status, outcome.failure_class) == ("failed", "launch_failed")
            text = read(outcome)
            assert "install" in text and "chromium" in text.lower(), "it says what to install"
            assert isinstance(outcome.error, JobFailed) and outcome.error.error.data["code"] == "no_executable"
    with pytest.raises(LaunchFailed) as failure:
        find_browser(environment=bare)
    assert failure.value.reason == "no_executable"


@browser
async def test_program_that_is_no_browser(site: Site, tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        for program in ("false", "true"):
            outcome = await outcome_of(supervisor, browsing.who, browser=BrowserOptions(executable=program))
            assert (outcome.status, outcome.failure_class) == ("failed", "launch_failed")
            text = read(outcome)
            assert f"({program})" in text and "exitCode" in text and "has been closed" not in text
        wrong = BrowserOptions(context={"no_such_option": 1})
        outcome = await outcome_of(supervisor, browsing.who, browser=wrong)
        assert outcome.status == "failed" and "no_such_option" in read(outcome)
        await goes_on(supervisor, site)


async def test_profile_that_another_browser_has_open(browser_path: str, site: Site, tmp_path: Path) -> None:
    options = BrowserOptions(mode="persistent", user_data_dir=tmp_path / "profile")
    async with Supervisor(workers=2) as supervisor:
        assert (await outcome_of(supervisor, browsing.remember, site.url, browser=options)).value == "left"
        # What a profile keeps is there for the next job; session cookies are not meant to be.
        assert (await outcome_of(supervisor, browsing.recall, site.url, browser=options)).value[1] == "behind"
        holding = await supervisor.submit(BrowserJob(browsing.spin, args=(site.url,), browser=options))
        await _reached(site, "/reached")
        outcome = await outcome_of(supervisor, browsing.who, browser=options)
        assert (outcome.status, outcome.failure_class) == ("failed", "launch_failed")
        assert isinstance(outcome.error, JobFailed) and outcome.error.error.data["code"] == "profile_locked"
        assert str(tmp_path / "profile") in read(outcome)
        await goes_on(supervisor, site)
        holding.cancel()
        assert (await holding.outcome()).status == "cancelled"
        assert (await outcome_of(supervisor, browsing.recall, site.url, browser=options)).value[1] == "behind"


async def _reached(site: Site, path: str, count: int = 1) -> None:
    await asyncio.to_thread(site.wait_asked, path, count, DEADLINE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


async def test_proxy_that_is_not_there(site: Site) -> None:
    wrong = BrowserOptions(proxy=f"http://somebody:hush-hush@127.0.0.1:{free_port()}")
    async with Supervisor(workers=1) as supervisor:
        # Browsers ask no proxy for their own machine; a name ending in .test is nobody's.
        for target in (browsing.title, browsing.title_async):
            outcome = await outcome_of(supervisor, target, "http://somewhere.test/", browser=wrong)
            assert (outcome.status, outcome.failure_class) == ("failed", "proxy")
            assert "hush-hush" not in str(outcome.error) and "ERR_PROXY_CONNECTION_FAILED" in read(outcome)
        await goes_on(supervisor, site)


@browser
async def test_page_that_cannot_be_loaded(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        for target in (browsing.title, browsing.title_async):
            outcome = await outcome_of(supervisor, target, f"http://127.0.0.1:{free_port()}/")
            assert (outcome.status, outcome.failure_class) == ("failed", "navigation")
            assert "ERR_CONNECTION_REFUSED" in read(outcome)
            # An address that is no address is the job's mistake, and Playwright says so itself.
            outcome = await outcome_of(supervisor, target, "no address")
            assert outcome.status == "failed" and "invalid URL" in read(outcome)
        await goes_on(supervisor, site)


@pytest.mark.parametrize(
    ("target", "url", "failure"),
    [
        (browsing.kill_browser, True, "browser_died"),
        pytest.param(browsing.kill_browser_async, True, "browser_died", marks=browser),
        (browsing.kill_driver, True, "driver_died"),
        (browsing.crash_page, False, "page_crashed"),
        pytest.param(browsing.die, True, "crashed", marks=browser),
    ],
)
async def test_why_a_target_closed(target: Any, url: bool, failure: str, site: Site) -> None:
    args = (f"{site.url}/plain",) if url else ()
    async with Supervisor(workers=1) as supervisor:
        for _ in range(2):
            outcome = await outcome_of(supervisor, target, *args)
            assert outcome.failure_class == failure, outcome.error
            assert outcome.status == ("crashed" if failure == "crashed" else "failed")
            read(outcome)
            await goes_on(supervisor, site)


@browser
@pytest.mark.parametrize("target", [browsing.use_closed_page])
async def test_job_that_uses_what_it_closed(target: Any, site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        outcome = await outcome_of(supervisor, target)
        assert (outcome.status, outcome.failure_class) == ("failed", "browser_closed")
        assert "the job" in read(outcome)
        await goes_on(supervisor, site)


@browser
async def test_retries_name_the_reason_and_get_a_new_browser(site: Site, tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        before = await supervisor.run(BrowserJob(browsing.who))
        retry = RetryPolicy(attempts=2, on="BrowserDied", backoff=0)
        note = str(tmp_path / "tried")
        outcome = await outcome_of(supervisor, browsing.kill_browser_once, f"{site.url}/plain", note, retry=retry)
        assert (outcome.status, outcome.attempts, outcome.value) == ("succeeded", 2, "plain")
        assert outcome.failure_class is None
        after = await supervisor.run(BrowserJob(browsing.who))
        assert after["child"] == before["child"] and after["browsers"] != before["browsers"]
        # Only what was asked for is tried again.
        outcome = await outcome_of(supervisor, browsing.fail, site.url, retry=retry)
        assert (outcome.status, outcome.attempts, outcome.failure_class) == ("failed", 1, "error")


@pytest.mark.parametrize(
    "target",
    [
        browsing.return_page,
        pytest.param(browsing.return_in_list, marks=browser),
        pytest.param(browsing.return_browser_async, marks=browser),
    ],
)
async def test_returning_what_only_the_child_has(target: Any, site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        with pytest.raises(PayloadError) as failure:
            await supervisor.run(BrowserJob(target))
        text = str(failure.value)
        print(text)
        assert any(word in text for word in ("Page", "BrowserContext", "Browser")) and len(text) < 500
        await goes_on(supervisor, site)


def test_first_parameter_that_says_nothing() -> None:
    for target in (browsing.wrong_first, browsing.who_plain):
        with pytest.raises(TargetError) as failure:
            BrowserJob(target, args=("http://x",))
        text = str(failure.value)
        print(text)
        assert "page, context or browser" in text


@browser
async def test_first_parameter_of_a_target_given_as_text(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        for name in ("wrong_first", "who_plain"):
            args = ("x",) if name == "wrong_first" else ()
            try:
                outcome = await outcome_of(supervisor, f"browsing:{name}", *args)
            except TargetError as error:
                text = str(error)
            else:
                assert outcome.status == "failed"
                text = read(outcome)
            assert "page, context or browser" in text
        assert await supervisor.run(BrowserJob("browsing:title", args=(f"{site.url}/plain",))) == "plain"
        reader = BrowserJob("browsing:Reader.read", init={"greeting": "hello"}, args=(f"{site.url}/plain",))
        assert await supervisor.run(reader) == "hello plain"


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "netscape"},
        {"mode": "persistent"},
        {"mode": "cdp"},
        {"mode": "cdp", "endpoint": "127.0.0.1:9222"},
        {"user_data_dir": "profile"},
        {"proxy": 3},
        {"proxy": {"host": "x"}},
        {"context": {"locale": {1}}},
        {"dialogs": "shout"},
        {"recycle_after": 0},
        {"recycle_age": -1},
        {"args": "--headless"},
        {"launch_timeout": 0},
    ],
    ids=repr,
)
def test_wrong_options_are_refused_where_they_are_written(wrong: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, TypeError)) as failure:
        BrowserOptions(**wrong)
    text = str(failure.value)
    print(text)
    assert any(name in text for name in (*wrong, "user_data_dir", "endpoint"))


@pytest.mark.parametrize("wrong", [{"browser": {"headless": True}}, {"artifacts": "sometimes"}, {"timeout": 0}])
def test_wrong_jobs_are_refused_where_they_are_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as failure:
        BrowserJob(browsing.who, **wrong)
    assert next(iter(wrong)) in str(failure.value)


@browser
async def test_arguments_that_do_not_fit(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        with pytest.raises(TargetError):
            await supervisor.run(BrowserJob(browsing.title))
        with pytest.raises(TargetError):
            await supervisor.run(BrowserJob(browsing.title, args=("a", "b", "c")))
        with pytest.raises(TargetError):
            await supervisor.run(BrowserJob(browsing.title, args=("a",), kwargs={"page": "mine"}))
        await goes_on(supervisor, site)


async def test_inline_is_refused_with_the_reason() -> None:
    async with Supervisor(workers=1, isolation="inline") as supervisor:
        with pytest.raises(OrchestratorError) as failure:
            await supervisor.run(BrowserJob(browsing.who))
        text = str(failure.value)
        print(text)
        assert "inline" in text


@browser
async def test_playwrights_own_timeout_is_not_the_jobs(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        outcome = await outcome_of(supervisor, browsing.find_nothing, site.url)
        # The attempt had no timeout: it failed, because a call of the browser's took too long.
        assert (outcome.status, outcome.failure_class) == ("failed", "timed_out")
        text = read(outcome)
        assert "#not-there" in text and "TimeoutError" in text


@browser
async def test_storage_state_that_is_not_there(site: Site, tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        for state in ("nobody", str(tmp_path / "nobody.json")):
            outcome = await outcome_of(supervisor, browsing.who, browser=BrowserOptions(storage_state=state))
            assert outcome.status == "failed" and "nobody" in read(outcome)
        (tmp_path / "broken.json").write_text("{")
        options = BrowserOptions(storage_state=str(tmp_path / "broken.json"))
        outcome = await outcome_of(supervisor, browsing.who, browser=options)
        assert outcome.status == "failed" and "broken.json" in read(outcome)
        await goes_on(supervisor, site)
