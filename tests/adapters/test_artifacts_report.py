"""The report of a run, from outcomes and what attempts wrote down of themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from orchestrator_adapters.playwright import _report as report
from orchestrator_adapters.playwright import write_report
from orchestrator_adapters.playwright._folders import FORMAT
from orchestrator_adapters.playwright._report_data import collect

from orchestrator import Outcome
from orchestrator._events import Artifact
from orchestrator._models import DeathCertificate, ErrorRecord, Status
from orchestrator.exceptions import JobCrashed, JobFailed

BEGUN = 1_700_000_000.0
OLD_TRACE = "File \"pins.py\", line 3, in publish\n    raise ValueError('<script>alert(1)</script>')"


def evidence(folder: Path, job: int, attempt: int, process: int, **facts: Any) -> tuple[Artifact, ...]:
    """Leave what an attempt would have left; return the artefacts that name it."""
    path = folder / f"job-{job}" / f"attempt-{attempt}"
    (path / "trace" / "resources").mkdir(parents=True)
    marker = {"format": FORMAT, "pid": [process, 1.5], "started": BEGUN + job + attempt, **facts}
    (path / "attempt.json").write_text(json.dumps(marker), "utf-8")
    (path / "screenshot-1.png").write_bytes(b"\x89PNG")
    (path / "trace" / "1-1.trace").write_bytes(b"{}\n")
    (path / "trace" / "resources" / "frame.jpeg").write_bytes(b"\xff\xd8")
    files = [found for found in sorted(path.rglob("*")) if found.is_file()]
    return tuple(Artifact(path=str(found), name=found.name, attempt=attempt) for found in files)


def three_jobs(folder: Path) -> list[Outcome]:
    record = ErrorRecord(type="ValueError", message="<script>", traceback=OLD_TRACE)
    death = DeathCertificate(
        worker="w2", generation=1, pid=30, reason="signal", signal="SIGKILL", stderr=("last line",)
    )
    return [
        Outcome(
            status=Status.SUCCEEDED,
            job_id=1,
            key="pin & paper",
            attempts=2,
            worker="w1",
            artifacts=(
                *evidence(folder, 1, 1, 10, ended=BEGUN + 4, failure="browser_died", error="it was killed"),
                *evidence(folder, 1, 2, 20, ended=BEGUN + 6, failure=None),
            ),
        ),
        Outcome(
            status=Status.FAILED,
            error=JobFailed("job 2 failed: <script>", error=record),
            job_id=2,
            attempts=1,
            worker="w2",
            artifacts=evidence(folder, 2, 1, 10, ended=BEGUN + 8, failure="ValueError", error="<script>"),
        ),
        Outcome(
            status=Status.CRASHED,
            error=JobCrashed("the child died", certificate=death),
            job_id=3,
            attempts=1,
            worker="w2",
            artifacts=evidence(folder, 3, 1, 30),
        ),
    ]


def test_attempts_are_told_with_times_and_workers(tmp_path: Path) -> None:
    failed, crashed, succeeded = collect(three_jobs(tmp_path))
    first, second = succeeded.attempts
    # Of an earlier attempt no outcome names the worker; its process ran another job's last one.
    assert [first.lane, second.lane] == ["w2", "w1"]
    assert (first.started, first.seconds, first.status, first.died) == (BEGUN + 2, 2, "failed", True)
    assert (second.status, second.died) == ("succeeded", False)
    assert (failed.failure_class, failed.attempts[0].status) == ("error", "failed")
    assert (crashed.attempts[0].status, crashed.attempts[0].died) == ("crashed", True)
    assert crashed.attempts[0].seconds > 0  # until it wrote the last of its files
    names = [path.name for path in first.files]
    assert names == ["attempt.json", "screenshot-1.png", "trace"]
    assert [path.name for path in first.pictures] == ["screenshot-1.png"]


def test_the_page_needs_nothing_else_and_shows_no_text_as_code(tmp_path: Path) -> None:
    page = write_report(tmp_path / "out" / "report.html", three_jobs(tmp_path / "evidence"), title="A <run>")
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]
    text = page.read_text("utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "A &lt;run&gt;" in text
    assert "last line" in text
    assert "killed by SIGKILL" in text
    assert not re.search(r"(src|href)=[\"'](https?:|//)", text)
    assert text.count("data:image/png;base64,") == 4
    assert text.count("<rect ") == 4
    assert text.count('class="is-failed died"') == 1
    assert text.count('class="is-crashed died"') == 1
    links = re.findall(r'href="(\.\./[^"]*)"', text)
    assert "../evidence/job-1/attempt-1/trace" in links
    assert all((page.parent / link).exists() for link in links)


def test_a_report_of_jobs_that_left_nothing_and_one_of_none(tmp_path: Path) -> None:
    done = [Outcome(status=Status.SUCCEEDED, job_id=number, attempts=1, run_seconds=0.25) for number in range(3)]
    text = write_report(tmp_path / "plain.html", done, figures={"pins": 3}).read_text("utf-8")
    assert "Nothing is known of when the attempts ran" in text
    assert "0.2 s" in text
    assert "<article" not in text
    assert "There are none" in write_report(tmp_path / "empty.html", []).read_text("utf-8")


def test_pictures_that_are_too_many_are_linked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_PICTURES", 10)
    text = write_report(tmp_path / "report.html", three_jobs(tmp_path)).read_text("utf-8")
    assert text.count("data:image/png;base64,") == 2
    assert "2 pictures are linked to" in text
