"""`orchestrator quarantine`: what a person sees of quarantined jobs, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from journalling import attempt, job, outcome, recording, rows

from orchestrator._journal_file import JournalFile
from orchestrator._store_batch import LARGE
from orchestrator.cli import main
from orchestrator.exceptions import JournalError


def certificate(pid: int, *stderr: str) -> dict[str, Any]:
    return {"worker": "w/1", "generation": pid, "pid": pid, "signal": "SIGSEGV", "exit_code": None, "stderr": stderr}


@pytest.fixture
async def journal(tmp_path: Path) -> Path:
    """Jobs 1 (succeeded), 2 and 3 (quarantined), 4 (open), 5 (quarantined, with long arguments and a long error)."""
    path = tmp_path / "j.db"
    async with recording(path) as run:
        for number in range(1, 5):
            await run.submit(job(number, key=f"row {number}", options='{"timeout": 3}', deaths=0))
        await run.submit(job(5, body=b'"args":["' + b"x" * LARGE + b'"]'))
        await run.settle(1, outcome())
        for number in (2, 3, 5):
            for death in (1, 2, 3):
                text = json.dumps(certificate(1000 + death, "going down", f"for the {death}. time"))
                run.store.attempt(
                    attempt(number, 10 * number + death, number=death, state="ended", outcome="crash", certificate=text)
                )
            message = "killed its child three times" if number != 5 else "y" * LARGE
            error = json.dumps({"type": "JobQuarantined", "message": message, "certificate": certificate(1003)})
            await run.settle(number, outcome(None, status="quarantined", error=error, attempts=3, deaths=3))
        run.store.effect(4, "pin", "begun", 1)
        await run.store.flush()
    return path


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["quarantine", *map(str, arguments)])
    out, error = capsys.readouterr()
    return code, out, error


async def test_list_shows_a_line_for_each_and_counts_the_rest(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, error = run_cli(capsys, "list", journal)
    lines = out.splitlines()
    assert (code, error, len(lines)) == (0, "", 4)
    assert lines[0].lstrip().startswith("2 'row 2'  chores:double  3 deaths, ")
    assert lines[0].endswith("  killed its child three times")
    assert lines[-1] == "1 open, 3 quarantined, 1 succeeded"
    code, out, _ = run_cli(capsys, "list", journal, "--json")
    report = json.loads(out)
    assert report["counts"] == {"open": 1, "quarantined": 3, "succeeded": 1}
    assert [each["id"] for each in report["quarantined"]] == [2, 3, 5]
    assert report["quarantined"][0]["reason"] == "killed its child three times"


async def test_show_says_how_it_died(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_cli(capsys, "show", journal, 2)
    assert code == 0
    assert out.startswith("job 2 'row 2': chores:double\n")
    assert '  called with  {"args": [2]}\n' in out
    for death in (1, 2, 3):
        assert f"  death {death}      child 100{death} killed by SIGSEGV\n" in out
    assert out.endswith("  last lines of stderr:\n    going down\n    for the 3. time\n")
    _, out, _ = run_cli(capsys, "show", journal, 5)
    assert "characters; `show --json` has all)" in out and len(out) < 2 * LARGE
    _, out, _ = run_cli(capsys, "show", journal, 5, "--json")
    found = json.loads(out)
    assert found["call"]["args"] == ["x" * LARGE] and found["error"]["message"] == "y" * LARGE
    assert [each["certificate"]["pid"] for each in found["attempts"]] == [1001, 1002, 1003]


async def test_a_released_job_is_open_again_with_all_its_attempts(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run_cli(capsys, "release", journal, 2, 5)
    assert (code, out) == (0, "Released 2 jobs: the next run with this journal takes them up.\n")
    async with recording(journal) as run:
        found = await run.open_jobs()
        assert [each.job.id for each in found] == [2, 4, 5]
        assert [(each.job.attempts, each.job.deaths, each.job.suspect) for each in found] == [(0, 0, False)] * 3
        assert found[2].job.body == b'"args":["' + b"x" * LARGE + b'"]'
        assert found[0].attempt is not None and found[0].attempt.state == "ended"
        await run.settle(2, outcome("2"))
    with JournalFile(journal) as file:
        assert file.counts() == {"open": 2, "quarantined": 1, "succeeded": 2}
    found = rows(journal, "SELECT verb, job, json_extract(detail, '$.deaths') FROM audit")
    assert found == [("release", 2, 3), ("release", 5, 3)]


async def test_a_discarded_job_is_listed_no_more_and_may_be_released(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(capsys, "discard", journal, 3)[:2] == (0, "Discarded 1 job.\n")
    _, out, _ = run_cli(capsys, "list", journal)
    assert out.splitlines()[-1] == "1 discarded, 1 open, 2 quarantined, 1 succeeded"
    assert "\n  discarded    " in run_cli(capsys, "show", journal, 3)[1]
    code, _, error = run_cli(capsys, "discard", journal, 3)
    problem = "has no job 3 in quarantine: it was discarded; `orchestrator quarantine list` has those that are"
    assert (code, error) == (1, f"Error: the journal {str(journal)!r} {problem}.\n")
    assert run_cli(capsys, "release", journal, "--all")[1].startswith("Released 2 jobs")
    assert run_cli(capsys, "release", journal, 3)[1].startswith("Released 1 job: ")
    assert run_cli(capsys, "list", journal)[1] == "4 open, 1 succeeded\n"
    assert rows(journal, "SELECT verb, job FROM audit ORDER BY number") == [
        ("discard", 3), ("release", 2), ("release", 5), ("release", 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "problem"), [(1, "it ended as succeeded"), (4, "it is open"), (9, "there is no such job")]
)
async def test_all_or_none(journal: Path, capsys: pytest.CaptureFixture[str], wrong: int, problem: str) -> None:
    for verb in ("release", "discard"):
        code, out, error = run_cli(capsys, verb, journal, 2, wrong)
        assert (code, out) == (1, "")
        assert f"has no job {wrong} in quarantine: {problem};" in error and error.count("\n") == 1
    assert rows(journal, "SELECT count(*) FROM jobs WHERE status='quarantined' AND discarded IS NULL") == [(3,)]
    assert rows(journal, "SELECT count(*) FROM audit") == [(0,)]


async def test_export_has_everything(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.json"
    code, out, _ = run_cli(capsys, "export", journal, "--output", target)
    assert (code, out) == (0, f"Wrote 3 jobs to {target}.\n")
    report = json.loads(target.read_text("utf-8"))
    assert {"orchestrator", "python"} <= report["versions"].keys()
    assert [each["id"] for each in report["jobs"]] == [2, 3, 5]
    first = report["jobs"][0]
    assert (first["call"], first["options"], first["target"]) == (
        {"target": "chores:double", "args": [2]}, {"timeout": 3}, "chores:double",
    )  # fmt: skip
    assert len([each["certificate"] for each in first["attempts"]]) == 3
    assert first["stderr"] == ["going down", "for the 3. time"]
    assert first["platform"].startswith("Python 3.")
    code, _, error = run_cli(capsys, "export", journal, "--output", target)
    assert (code, error) == (2, f"Error: --output: {str(target)!r} exists; name a new file.\n")
    _, out, _ = run_cli(capsys, "export", journal, 3)
    assert [each["id"] for each in json.loads(out)["jobs"]] == [3]


async def test_jobs_must_be_named(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("release", journal), ("discard", journal), ("release", journal, 2, "--all")):
        code, _, error = run_cli(capsys, *arguments)
        assert (code, error) == (2, "Error: name the jobs, or all of them with --all, and not both.\n")


async def test_a_journal_in_use_is_not_touched(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with recording(journal) as run:
        for arguments in (("list", journal), ("show", journal, 2), ("release", journal, 2), ("export", journal)):
            code, out, error = run_cli(capsys, *arguments)
            assert (code, out) == (75, "")
            assert error.startswith(f"Error: the journal {str(journal)!r} is in use by another supervisor")
            assert error.count("\n") == 1
        await run.settle(4, outcome())


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "does not exist; check the path."), (b"", "is empty; "), (b"hello " * 1000, "is no journal (")],
)
def test_a_file_that_is_no_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, problem: str
) -> None:
    path = tmp_path / "j.db"
    if content is not None:
        path.write_bytes(content)
    code, out, error = run_cli(capsys, "list", path)
    assert (code, out) == (1, "")
    assert problem in error and error.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ([] if content is None else ["j.db"])


async def test_a_lost_payload_is_said(journal: Path) -> None:
    for each in Path(f"{journal}.payloads").iterdir():
        each.unlink()
    with JournalFile(journal) as file, pytest.raises(JournalError, match="lacks a file of job 5: .*; restore it"):
        file.job(5)


async def test_an_empty_journal_has_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with recording(tmp_path / "j.db"):
        pass
    assert run_cli(capsys, "list", tmp_path / "j.db")[:2] == (0, "no jobs\n")
