"""What a browser job leaves behind for whoever has to find out why it failed, however it ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
import pytest
from orchestrator_adapters.playwright import ArtifactPolicy, BrowserJob
from small_site import Site

from orchestrator import Outcome, RetryPolicy, Supervisor

pytestmark = [
    pytest.mark.usefixtures("browser_path"),
    pytest.mark.skipif(sys.platform == "win32", reason="sends signals"),
]
browser = pytest.mark.browser
DEADLINE = 60
ALL = ArtifactPolicy(trace="on", screenshot="on", console="on")


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def outcome_of(supervisor: Supervisor, target: Any, *args: Any, **options: Any) -> Outcome:
    return await (await supervisor.submit(BrowserJob(target, args=args, **options))).outcome()


def files(outcome: Outcome) -> list[Path]:
    """Return what the outcome names; everything it names is there, and nobody else may read it."""
    found = [Path(artifact.path) for artifact in outcome.artifacts]
    assert len(set(found)) == len(found), "each is listed once"
    for path in found:
        assert path.is_absolute() and path.is_file(), path
    return found


def ending(found: list[Path], end: str) -> list[Path]:
    return [path for path in found if path.name.endswith(end)]


def console(found: list[Path]) -> str:
    (path,) = ending(found, "console.jsonl")
    return "\n".join(json.dumps(json.loads(line)) for line in path.read_text("utf-8").splitlines())


def is_picture(path: Path) -> bool:
    return path.read_bytes()[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xdb")


@pytest.mark.parametrize("name", ["fail", pytest.param("fail_async", marks=browser)])
async def test_failed_job_leaves_trace_screenshot_and_console(name: str, site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        outcome = await outcome_of(supervisor, getattr(browsing, name), site.url, artifacts=ArtifactPolicy())
        assert (outcome.status, outcome.failure_class) == ("failed", "error")
        found = files(outcome)
        assert len(ending(found, ".png") + ending(found, ".jpg") + ending(found, ".jpeg")) == 1
        assert all(is_picture(path) for path in ending(found, ".png"))
        (trace,) = ending(found, ".zip")
        with zipfile.ZipFile(trace) as zipped:
            assert zipped.testzip() is None
            names = zipped.namelist()
            assert any(each.endswith(".trace") for each in names)
            actions = b"".join(zipped.read(each) for each in names if each.endswith(".trace"))
            assert b"/noisy" in actions
        said = console(found)
        assert "first words" in said and "bad words" in said and "thrown in the page" in said
        # One that succeeds leaves nothing, by default.
        assert (await outcome_of(supervisor, browsing.noisy, site.url, artifacts=ArtifactPolicy())).artifacts == ()
        # And without a policy there is none.
        assert (await outcome_of(supervisor, browsing.fail, site.url)).artifacts == ()
    for path in found:
        for each in (path, *path.parents):
            if each == Path.cwd() / "artifacts" or Path.cwd() not in each.parents:
                break
            if each.is_dir():
                assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0, f"pages may show secrets: {each}"


@browser
async def test_everything_is_kept_when_asked(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        found = files(await outcome_of(supervisor, browsing.noisy, site.url, artifacts=ALL))
        assert ending(found, ".zip") and ending(found, ".png") and ending(found, "console.jsonl")
        again = files(await outcome_of(supervisor, browsing.noisy, site.url, artifacts=ALL))
        assert not set(found) & set(again), "each attempt has a folder of its own"


@pytest.mark.parametrize(
    "victim", ["child", pytest.param("browser", marks=browser), pytest.param("driver", marks=browser)]
)
async def test_evidence_of_what_was_killed(victim: str, site: Site) -> None:
    policy = ArtifactPolicy(trace="on", screenshot="on", console="on", live=0.2)
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(
            BrowserJob(browsing.noisy_until_killed, args=(site.url,), key="the victim", artifacts=policy)
        )
        pids: dict[str, Any] = {}
        async for event in handle.events():
            if event.kind == "item":
                pids = event.value
                break
        for pid in {"child": [pids["child"]], "browser": pids["browsers"], "driver": pids["drivers"]}[victim]:
            os.kill(pid, signal.SIGKILL)
        outcome = await handle.outcome()
        expected = {"child": "crashed", "browser": "browser_died", "driver": "driver_died"}[victim]
        assert outcome.failure_class == expected, outcome.error
        found = files(outcome)
        assert "first words" in console(found)
        assert all("the victim" in str(path) or "the-victim" in str(path) or "victim" in str(path) for path in found)
        # Of the trace there is at least what had been written down.
        traces = [path for path in found if path.suffix in (".zip", ".trace") or "trace" in path.name]
        assert traces, found
        assert any(path.stat().st_size for path in traces)


@browser
async def test_evidence_of_what_was_cancelled_and_timed_out(site: Site) -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(BrowserJob(browsing.sleep, args=(site.url,), artifacts=ALL))
        await asyncio.to_thread(site.wait_asked, "/reached", 1, DEADLINE)
        handle.cancel()
        outcome = await handle.outcome()
        assert outcome.status == "cancelled"
        assert ending(files(outcome), "console.jsonl")
        outcome = await outcome_of(supervisor, browsing.load_for_ever, site.url, artifacts=ALL, timeout=3)
        assert outcome.status == "timed_out"
        assert ending(files(outcome), "console.jsonl")
        # A page that is stuck gives no picture, and must not keep the job from ending.
        outcome = await outcome_of(supervisor, browsing.spin, site.url, artifacts=ALL, timeout=3)
        assert outcome.status == "timed_out"
        assert await supervisor.run(BrowserJob(browsing.title, args=(f"{site.url}/plain",))) == "plain"


@browser
async def test_each_attempt_has_its_own(site: Site, tmp_path: Path) -> None:
    retry = RetryPolicy(attempts=2, on="error", backoff=0)
    policy = ArtifactPolicy(trace="on-first-retry", screenshot="only-on-failure", console="off")
    async with Supervisor(workers=1) as supervisor:
        note = str(tmp_path / "tried")
        outcome = await outcome_of(
            supervisor, browsing.kill_browser_once, f"{site.url}/plain", note, retry=retry, artifacts=policy
        )
        assert (outcome.status, outcome.attempts) == ("succeeded", 2)
        traces = [artifact for artifact in outcome.artifacts if artifact.path.endswith(".zip")]
        assert [artifact.attempt for artifact in traces] == [2]
        outcome = await outcome_of(supervisor, browsing.fail, site.url, retry=retry, artifacts="retain-on-failure")
        assert {artifact.attempt for artifact in outcome.artifacts} == {1, 2}
        assert len([path for path in files(outcome) if path.suffix == ".zip"]) == 2


@browser
async def test_live_pictures(site: Site) -> None:
    policy = ArtifactPolicy(trace="off", screenshot="off", console="off", live=0.1)
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(BrowserJob(browsing.change_for_ever, args=(site.url,), artifacts=policy))
        seen = 0
        async for event in handle.events():
            if event.kind == "artifact" and event.path.endswith("live.jpg"):
                assert Path(event.path).read_bytes()[:2] == b"\xff\xd8", "always a whole picture"
                seen += 1
                if seen == 5:
                    handle.cancel()
        outcome = await handle.outcome()
        assert seen >= 5 and outcome.status == "cancelled"
        assert len([artifact for artifact in outcome.artifacts if artifact.path.endswith("live.jpg")]) <= 1


@browser
async def test_video(ffmpeg_path: str, site: Site) -> None:
    policy = ArtifactPolicy(trace="off", screenshot="off", console="off", video="on")
    async with Supervisor(workers=1) as supervisor:
        for target in (browsing.noisy, browsing.fail):
            found = files(await outcome_of(supervisor, target, site.url, artifacts=policy))
            (video,) = ending(found, ".webm")
            assert video.read_bytes()[:4] == b"\x1a\x45\xdf\xa3" and video.stat().st_size > 1000


async def test_video_without_ffmpeg_is_one_clear_error(site: Site, browser_path: str, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    bare = {name: str(folder) for name in ("PATH", "HOME", "PLAYWRIGHT_BROWSERS_PATH")}
    bare["ORCHESTRATOR_BROWSER"] = browser_path
    async with Supervisor(workers=1, env=bare) as supervisor:
        for target in (browsing.noisy, browsing.title_async):
            outcome = await outcome_of(supervisor, target, site.url, artifacts=ArtifactPolicy(video="on"))
            assert outcome.status == "failed"
            text = str(outcome.error).partition("Traceback")[0]
            print(text)
            assert "ffmpeg" in text and "install" in text
        assert "/noisy" not in site.asked, "before the job runs"


@browser
async def test_secrets_in_traces(site: Site) -> None:
    """A trace shows what was typed: that is told, and the rest of what travels is clean."""
    async with Supervisor(workers=1, secrets={"SITE_PASSWORD": "correct-horse-battery"}) as supervisor:
        outcome = await outcome_of(
            supervisor, browsing.type_secret, site.url, "SITE_PASSWORD", artifacts=ArtifactPolicy(console="on")
        )
        assert outcome.status == "failed" and "correct-horse" not in str(outcome.error)
        for path in files(outcome):
            assert "correct-horse" not in str(path)
            if path.suffix == ".jsonl":
                assert "correct-horse" not in path.read_text("utf-8")
