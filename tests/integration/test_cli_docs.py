"""The pages about the command line: their commands print what they say, their tables match the code."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import orchestrator_adapters.batch
import pytest
import typer
from orchestrator_adapters.batch import Report
from orchestrator_adapters.batch._classes import CLASSES
from orchestrator_adapters.batch._cli import app as batch
from orchestrator_adapters.publisher._cli import publish

from orchestrator._models import Status
from orchestrator.cli._app import app
from orchestrator.cli._rows import JOB_FIELDS

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "howto" / "batch-run.md").read_text("utf-8")
REFERENCE = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
DEADLINE = 60

needs_shell = pytest.mark.skipif(
    sys.platform == "win32" or not (shutil.which("jq") and shutil.which("seq")), reason="the guide's shell, jq and seq"
)
# What differs from run to run.
VARYING = (
    (r"\d\d:\d\d:\d\d ", "TIME "),
    (r"rate: [\d.,]+ tasks/sec", "rate"),
    (r"(jobs?) in [\d.]+ s", r"\1 in T"),
    (r"after [\d.]+ s", "after T"),
    (r"(child|pid=|child=)\s?\d+", r"\1 N"),
)


def block_after(text: str, page: str = GUIDE) -> str:
    """Return the fenced block that follows a text."""
    found = re.compile(r"```\w*\n(.*?)```", re.DOTALL).search(page, page.index(text))
    assert found is not None
    return found[1]


def steady(text: str) -> list[str]:
    for pattern, replacement in VARYING:
        text = re.sub(pattern, replacement, text)
    return text.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pages.py").write_text(block_after("`pages.py`, an ordinary module"))
    (tmp_path / "visits.csv").write_text(block_after("`visits.csv`, whose header"))
    (tmp_path / "mixed.jsonl").write_text(block_after("`mixed.jsonl`, has"))
    return tmp_path


def sessions() -> list[str]:
    """Return the guide's console blocks that show what is printed."""
    blocks = re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL)
    return [block for block in blocks if any(not line.startswith("$ ") for line in block.splitlines())]


def test_the_guide_shows_five_sessions() -> None:
    assert [block.split()[1] for block in sessions()] == ["orchestrator", "jq", "seq", "orchestrator", "orchestrator"]


@needs_shell
@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_the_guide_prints_what_it_says(last: int, folder: Path) -> None:
    # The second session reads what the first one wrote.
    for block in sessions()[:2] if last == 1 else sessions()[last : last + 1]:
        commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
        # The command line is printed between two commands, and must not change what `$?` says of the first.
        script = "\n".join(
            f"code=$?\nprintf '%s\\n' {shlex.quote('$ ' + command)}\n(exit $code)\n{command}" for command in commands
        )
        done = subprocess.run(
            ["/bin/sh", "-c", f'orchestrator() {{ "$PYTHON" -m orchestrator "$@"; }}\n{script}'],
            cwd=folder,
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            encoding="utf-8",
            timeout=DEADLINE,
            check=False,
        )
        out, errors = steady(done.stdout), steady(done.stderr)
        expected = steady(block)
        # A terminal shows both streams in one; which line comes first is chance.
        assert [line for line in expected if line not in errors] == out
        assert [line for line in expected if line in errors] == errors


def names_in_table(heading: str) -> list[str]:
    """Return what the first column of the table after a heading has in backquotes."""
    rows = []
    for line in REFERENCE[REFERENCE.index(heading) :].splitlines():
        if line.startswith("| `"):
            rows.append(line.split("| ")[1])
        elif rows:
            break
    return re.findall(r"`([^`]+)`", " ".join(rows))


def test_every_option_is_in_the_table_with_its_default() -> None:
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    named = {re.split(r"[ \\]", name)[0] for name in names_in_table("### Options")}
    options = {name for option in command.params[1:] for name in (*option.opts, *option.secondary_opts)}
    assert named == options - {"--limit-rows"}  # the default, which nobody needs to write
    section = REFERENCE[REFERENCE.index("## orchestrator run") : REFERENCE.index("## orchestrator batch")]
    for line in section.splitlines():
        match = re.match(r"\| `--(workers|concurrency|retries|progress|log-level)\b.*\| (.*) \|$", line)
        if match is not None:
            option = next(each for each in command.params if f"--{match[1]}" in each.opts)
            expected = "one per CPU" if option.default is None else str(option.default)
            assert expected in match[2]


def test_every_option_of_a_batch_is_on_the_page() -> None:
    commands = typer.main.get_command(batch).commands  # type: ignore[attr-defined]
    section = REFERENCE[REFERENCE.index("## orchestrator batch") : REFERENCE.index("## orchestrator quarantine")]
    options = {
        name
        for command in commands.values()
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("-")
    }
    shown = re.sub(r"^    Progress.*$|python -m", "", section, flags=re.MULTILINE)
    assert options == set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", shown))
    in_table = {re.split(r"[ \\]", name)[0] for name in names_in_table("### Options of run and check")}
    both = [option for name in ("run", "check") for option in commands[name].params]
    assert in_table == {name for option in both for name in (*option.opts, *option.secondary_opts)}
    assert {re.split(" ", name)[0] for name in names_in_table("## orchestrator batch")} == set(commands)


def test_the_page_about_batches_has_every_name_class_and_number() -> None:
    page = (ROOT / "docs" / "reference" / "batch.md").read_text("utf-8")
    names = re.findall(r"<!-- from the code: \w+ orchestrator_adapters.batch:(\w+)", page)
    assert sorted(names) == sorted(orchestrator_adapters.batch.__all__)
    table = page[page.index("## Failure classes") : page.index("What decides")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [*CLASSES]
    (metrics,) = re.findall(r"^\| `metrics.json` \|(.*)$", page, re.MULTILINE)
    numbers = Report(name="", exit_code=0, by_class={"CLASS": 1}, usage={"NAME": 1}).metrics()
    assert re.findall(r"`(\w+)`", metrics) == [*numbers]


def test_every_field_of_a_job_is_in_the_table() -> None:
    table = REFERENCE[REFERENCE.index("### Input") : REFERENCE.index("With `--target` each line")]
    first = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(first))) == set(JOB_FIELDS)


def test_statuses_are_all_named() -> None:
    line = next(line for line in REFERENCE.splitlines() if line.startswith("| `status` |"))
    assert set(re.findall(r"`(\w+)`", line)) == {"status", *Status}


def test_outcomes_on_the_page_are_like_real_ones(folder: Path) -> None:
    (folder / "bad.py").write_text("def go(x):\n    if x < 0:\n        raise ValueError('bad')\n    return 120\n")
    (folder / "in.jsonl").write_text('\n\n{"target":"bad:go","args":[1]}\n{"target":"bad:go","args":[-1],"key":"b"}\n')
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "run", "in.jsonl", "--ordered"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        timeout=DEADLINE,
        check=False,
    )
    shown = [json.loads(line) for line in block_after("### Outcomes", REFERENCE).splitlines()]
    real = [json.loads(line) for line in done.stdout.splitlines()]
    for outcome in (*shown, *real):
        outcome["seconds"] = 0
        if "error" in outcome:
            outcome["error"]["traceback"] = ""
    assert shown == real


def test_doctor_prints_the_lines_on_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "doctor", "--json"],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=DEADLINE,
        check=False,
    )
    real = [check["name"] for check in json.loads(done.stdout)["checks"]]
    section = REFERENCE[REFERENCE.index("## orchestrator doctor") :]
    assert re.findall(r"^    (?:ok  |FAIL|note)  ([a-z]+(?: [a-z]+)?) ", section, re.MULTILINE) == real
    assert re.findall(r"^\| `([a-z ]+)` \|", section, re.MULTILINE) == real


def test_every_option_of_publish_is_on_the_page() -> None:
    alone = typer.Typer(add_completion=False)
    alone.command()(publish)
    options = {name for option in typer.main.get_command(alone).params for name in option.opts if name.startswith("-")}
    assert options == {name.split()[0] for name in names_in_table("## orchestrator publish")}
