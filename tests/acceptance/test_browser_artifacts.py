"""The evidence of browser jobs is complete, each attempt's own, bounded, and opened by Playwright's own viewer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import evidence_jobs
import pytest
from gates import Gate
from orchestrator_adapters.playwright import ArtifactPolicy, BrowserJob, pack_trace, write_report

from orchestrator import Outcome, RetryPolicy, Supervisor

pytestmark = pytest.mark.usefixtures("browser_path")
DEADLINE = 60


async def outcome_of(supervisor: Supervisor, target: Any, *args: Any, **options: Any) -> Outcome:
    return await (await supervisor.submit(BrowserJob(target, args=args, timeout=DEADLINE, **options))).outcome()


def named(outcome: Outcome, attempt: int = 1) -> dict[str, Path]:
    return {Path(one.path).name: Path(one.path) for one in outcome.artifacts if one.attempt == attempt}


def actions_in(trace: Path, folder: Path) -> str:
    """Return what Playwright's own command finds in a trace."""
    folder.mkdir()
    said = ""
    for arguments in (["open", str(trace)], ["actions"]):
        command = [sys.executable, "-m", "playwright", "trace", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE)
        if "unknown command" in done.stderr:
            pytest.skip("this Playwright has no command that reads traces")
        assert done.returncode == 0, done.stderr
        said += done.stdout
    return said


async def test_a_killed_child_leaves_a_trace_that_opens_and_a_report_that_shows_it(tmp_path: Path) -> None:
    policy = ArtifactPolicy(folder=tmp_path / "evidence", screenshot="on")
    async with Supervisor(workers=1) as supervisor:
        outcome = await outcome_of(
            supervisor,
            evidence_jobs.say_and_die,
            "farewell",
            str(tmp_path / "note"),
            retry=RetryPolicy(attempts=2, on="crash", backoff=0),
            artifacts=policy,
            key="the last words",
        )
        assert (outcome.value, outcome.attempts) == ("farewell", 2)
        died = named(outcome, attempt=1)
        raw = next(path for name, path in died.items() if name.endswith(".trace"))
        assert json.loads(died["attempt.json"].read_text("utf-8")).get("ended") is None
        assert set(named(outcome, attempt=2)) >= {"screenshot-1.png", "attempt.json"}
        failed = await outcome_of(supervisor, evidence_jobs.say_and_fail, "<never>", artifacts=policy)
    for number, trace in enumerate((raw.parent, pack_trace(raw.parent))):
        said = actions_in(trace, tmp_path / f"opened-{number}")
        assert "the last words" in said
        assert "farewell" in said
        assert "Click" in said
    page = write_report(tmp_path / "report.html", [outcome, failed], title="Last <words>", figures={"said": 2})
    check_page(page.read_text("utf-8"))


def check_page(text: str) -> None:
    class Page(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.ids: list[str] = []
            self.targets: list[str] = []
            self.pictures: list[str] = []
            self.bars: list[str] = []
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            told = {name: value or "" for name, value in attributes}
            assert not {"srcset", "onclick", "onload"} & set(told)
            assert tag not in ("script", "link", "iframe")
            if "id" in told:
                self.ids.append(told["id"])
            if told.get("href", "").startswith("#"):
                self.targets.append(told["href"][1:])
            else:
                assert "://" not in told.get("href", "")
            if tag == "img":
                assert told["alt"]
                self.pictures.append(told["src"])
            if tag == "rect":
                self.bars.append(told["class"])
            if tag not in ("meta", "img", "line", "rect"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

        def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.handle_starttag(tag, attributes)

    page = Page()
    page.feed(text)
    assert not page.open
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.targets) <= set(page.ids)
    assert sorted(page.bars) == ["is-crashed died", "is-failed", "is-succeeded"]
    # Of the attempt that died there is none, of the other two one each.
    assert len(page.pictures) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.pictures)
    assert "Last &lt;words&gt;" in text
    assert "<b><never></b>" not in text
    assert "in say_and_fail" in text  # the child's traceback


async def test_side_by_side_each_attempt_has_its_own_trace(tmp_path: Path) -> None:
    policy = ArtifactPolicy(folder=tmp_path / "evidence", screenshot="off")
    async with Gate() as gate, Supervisor(workers=1, concurrency=2) as supervisor:
        handles = [
            await supervisor.submit(
                BrowserJob(
                    evidence_jobs.say_beside, args=(word, gate.port, word != "beta"), timeout=DEADLINE, artifacts=policy
                )
            )
            for word in ("alpha", "beta")
        ]
        await gate.arrived(2)
        gate.let("alpha")
        alpha = await handles[0].outcome()
        gate.let("beta")
        beta = await handles[1].outcome()
        assert beta.value == "beta"
        gate.open()
        gamma = await outcome_of(supervisor, evidence_jobs.say_beside, "gamma", gate.port, True, artifacts=policy)
    assert set(named(alpha)) == set(named(gamma)) == {"attempt.json", "console.jsonl", "trace.zip"}
    assert beta.artifacts == ()
    for word, outcome in (("alpha", alpha), ("gamma", gamma)):
        with zipfile.ZipFile(named(outcome)["trace.zip"]) as trace:
            said = b"".join(trace.read(name) for name in trace.namelist() if name.endswith(".trace"))
        assert b'"method":"fill"' in said
        assert word.encode() in said
        assert b"beta" not in said
    # What the driver wrote before it was asked for the file is gone, and so is what succeeded left.
    left = {path.name for path in (tmp_path / "evidence").rglob("*") if path.is_dir()}
    assert left == {"attempt-1", f"say_beside-{alpha.job_id}", f"say_beside-{gamma.job_id}"}


async def test_an_attempt_leaves_no_more_than_it_may(tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        policy = ArtifactPolicy(folder=tmp_path / "small", max_mb_per_job=0.001)
        outcome = await outcome_of(supervisor, evidence_jobs.say_and_fail, "one", artifacts=policy)
        files = named(outcome)
        assert set(files) == {"attempt.json", "console.jsonl", "screenshot-1.png"}
        assert json.loads(files["attempt.json"].read_text("utf-8"))["dropped"] == ["trace"]
        # What this run left is not removed for what comes later; that is smaller instead, and says so.
        policy = ArtifactPolicy(folder=tmp_path / "full", max_total_mb=0.01)
        first = await outcome_of(supervisor, evidence_jobs.say_and_fail, "one", artifacts=policy)
        second = await outcome_of(supervisor, evidence_jobs.say_and_fail, "two", artifacts=policy)
        # Afterwards the same browser serves jobs that record a trace themselves.
        assert await supervisor.run(BrowserJob(evidence_jobs.trace_oneself, args=(str(tmp_path / "mine.zip"),))) > 1000
    assert "trace.zip" in named(first)
    assert all(path.exists() for path in named(first).values())
    assert "trace.zip" not in named(second)
    assert "screenshot-1.png" in named(second)
    assert "no trace or video" in named(second)["console.jsonl"].read_text("utf-8")


async def test_the_live_view_shows_a_sync_job_and_is_gone_with_it(tmp_path: Path) -> None:
    policy = ArtifactPolicy(folder=tmp_path / "evidence", trace="off", screenshot="off", console="off", live=0.1)
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(
            BrowserJob(evidence_jobs.move_for, args=(2,), timeout=DEADLINE, artifacts=policy)
        )
        sizes = [
            os.path.getsize(event.path) if os.path.exists(event.path) else 0
            async for event in handle.events()
            if event.kind == "artifact" and event.name == "live.jpg"
        ]
        outcome = await handle.outcome()
    assert outcome.value == "moved"
    assert len(sizes) >= 2
    assert max(sizes) > 1000
    assert outcome.artifacts == ()
    assert list((tmp_path / "evidence").iterdir()) == []


@pytest.mark.browser
async def test_pictures_of_all_pages_but_not_of_hundreds(tmp_path: Path) -> None:
    policy = ArtifactPolicy(folder=tmp_path / "evidence", trace="off")
    async with Supervisor(workers=1) as supervisor:
        outcome = await outcome_of(supervisor, evidence_jobs.open_many, 12, artifacts=policy)
    pictures = [name for name in named(outcome) if name.endswith(".png")]
    # All of them have two seconds together, which on a busy machine are not enough for ten.
    assert 1 <= len(pictures) <= 10


@pytest.mark.browser
async def test_a_video_is_kept_of_failures(ffmpeg_path: str, tmp_path: Path) -> None:
    policy = ArtifactPolicy(
        folder=tmp_path / "evidence", trace="off", screenshot="off", console="off", video="retain-on-failure"
    )
    async with Supervisor(workers=1) as supervisor:
        good = await outcome_of(supervisor, evidence_jobs.say, "fine", artifacts=policy)
        bad = await outcome_of(supervisor, evidence_jobs.say_and_fail, "broken", artifacts=policy)
    assert good.artifacts == ()
    assert set(named(bad)) == {"attempt.json", "video-1.webm"}
    assert named(bad)["video-1.webm"].read_bytes()[:4] == b"\x1a\x45\xdf\xa3"
