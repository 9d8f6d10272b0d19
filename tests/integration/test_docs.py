"""The documentation is true: its programs print what it says, its lists match the code, its links lead on."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import orchestrator
from orchestrator import testing

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A fence opens with its language and perhaps the name of the file that it shows.
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
# What differs from run to run, in what is printed and on the page alike.
VARYING = (
    (re.compile(r"child \d+ of worker w\d+"), "child N of worker w"),
    (re.compile(r"after \d+\.\d s"), "after T s"),
    (re.compile(r"worker='w\d+'"), "worker='w'"),
    (re.compile(r"pid=\d+"), "pid=N"),
    (re.compile(r"child \d+ "), "child N "),
    (re.compile(r"\b\d\d\d\d-\d\d-\d\d "), "DAY "),
    (re.compile(r"\b\d\d:\d\d:\d\d([+-]\d\d:\d\d)?\b"), "TIME"),
    (re.compile(r"\bin \d+\.\d s\b"), "in T s"),
    (re.compile(r"rate: \d+\.\d tasks"), "rate: R tasks"),
    (re.compile(r", \d+ restarts?$"), ", N restarts"),
)


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    title: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    # What scripts/docs.py writes are signatures, not programs.
    text = re.sub(r"<!-- from the code.*?<!-- end -->", "", page.read_text("utf-8"), flags=re.DOTALL)
    return [Block(*found.groups(""), text.count("\n", 0, found.start()) + 1) for found in FENCE.finditer(text)]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def is_run(page: Path) -> bool:
    """A page whose programs have names, and whose commands can be run with them."""
    return any(block.title for block in blocks(page)) and any(block.language == "console" for block in blocks(page))


RUN = [page for page in PAGES if is_run(page) and page.name != "embed.md"]  # that one has a test of its own


# Programs and what they print


@pytest.mark.skipif(sys.platform == "win32", reason="the pages show the signals and paths of POSIX systems")
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_programs_print_what_the_page_says(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if any("playwright" in block.text for block in blocks(page) if block.title):
        request.getfixturevalue("browser_path")
    for block in blocks(page):
        if block.title:
            (tmp_path / block.title).write_text(block.text, "utf-8")
        elif block.language == "python" and page.name in ("README.md", "tutorial.md"):
            pytest.fail(f'{name_of(page)}:{block.line}: name the program, ```python title="….py", so that it is run')
        elif block.language == "console":
            for command, expected in sessions(block):
                if command.startswith(("python ", "orchestrator ")) or "=" in command.split()[0]:
                    stdout, stderr = run(command, tmp_path)
                    problem = difference(expected, stdout, stderr)
                    place = f"{name_of(page)}:{block.line}: $ {command}"
                    assert not problem, f"{place}\n{problem}\nIt printed:\n{stdout}\n{stderr}"


def sessions(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a console block with the lines that follow it."""
    command, lines = "", list[str]()
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, lines
            command, lines = line[2:], []
        else:
            lines.append(line)
    if command:
        yield command, lines


def run(command: str, folder: Path) -> tuple[str, str]:
    """Run a command as a reader would, and return what it printed on each stream."""
    words = shlex.split(command.partition("  #")[0])
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR", "PYTHON"))}
    env |= {name: value for name, value in os.environ.items() if name == "ORCHESTRATOR_NOTHING_LEFT"}
    # The plugin for asyncio, which our own tests need, warns readers' tests of settings that only we have.
    env |= {"PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": "-p no:asyncio"}
    while "=" in words[0]:
        name, _, env[name] = words.pop(0).partition("=")
    words[:1] = {"python": [sys.executable], "orchestrator": [sys.executable, "-m", "orchestrator"]}[words[0]]
    ended = subprocess.run(words, cwd=folder, env=env, capture_output=True, encoding="utf-8", timeout=120, check=False)
    # What a shell says of a program that was killed.
    return ended.stdout, ended.stderr + ("Killed\n" if ended.returncode == -9 else "")


def difference(expected: list[str], stdout: str, stderr: str) -> str:
    """Say how two streams, shown together as on a terminal, differ from the page; empty when they do not.

    On the page `…` stands for anything within a line, and a line of its own for any number of lines.
    """
    streams = [stdout.splitlines(), stderr.splitlines()]
    skipping = False
    for line in expected:
        if line.strip() == "…":
            skipping = True
            continue
        pattern = re.compile(".*".join(map(re.escape, steady(line).split("…"))))
        for stream in streams:
            places = range(len(stream)) if skipping else range(min(1, len(stream)))
            place = next((place for place in places if pattern.fullmatch(steady(stream[place]))), None)
            if place is not None:
                del stream[: place + 1]
                break
        else:
            return f"It did not print the line {line!r}."
        skipping = False
    if not skipping and any(streams):
        return f"It printed more than the page shows: {next(filter(None, streams))[0]!r}"
    return ""


def steady(line: str) -> str:
    for pattern, text in VARYING:
        line = pattern.sub(text, line)
    return line


# Python that is only shown


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_on_pages_is_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, f"{name_of(page)}:{block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


class Shown(dict[str, Any]):
    """Names as a reader understands them: those of the library, and functions that the reader has."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        for module in (orchestrator, testing):
            if name in module.__all__:
                return getattr(module, name)
        return pytest if name == "pytest" else lambda *args, **kwargs: None


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "howto").glob("*.md")), ids=name_of)
def test_pieces_of_programs_can_be_run(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python" and not block.title:
            exec(compile(block.text, f"{name_of(page)}:{block.line}", "exec"), {}, Shown())


# Lists that must match the code


def test_generated_parts_are_up_to_date() -> None:
    # It also compares the diagrams with the tables that the engine runs on.
    env = {**os.environ, "ORCHESTRATOR_VENV": "none"}
    ended = subprocess.run(
        [sys.executable, ROOT / "scripts" / "docs.py", "--check"],
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_log_event_is_documented() -> None:
    emitted = set(logged_names())
    page = (ROOT / "docs" / "reference" / "events-and-logs.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", page, re.MULTILINE))
    assert emitted - documented == set(), "the code logs these, and the page does not list them"
    assert documented - emitted == set(), "the page lists these, and nothing logs them"


def logged_names() -> Iterator[str]:
    """Yield the events that the library logs: `noun.past_verb` as first argument of a method that logs."""
    for path in (ROOT / "orchestrator").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            logs = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("log", "_log", "debug")
            )
            for part in ast.walk(node.args[0]) if logs and node.args else ():
                if isinstance(part, ast.Constant) and re.fullmatch(r"[a-z]+\.[a-z_]+", str(part.value)):
                    yield str(part.value)


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join((ROOT / "docs" / "reference" / name).read_text("utf-8") for name in ("api.md", "exceptions.md"))
    documented = set(re.findall(r"<!-- from the code: \w+ ([\w.]+:\w+)", pages))
    modules = {name for name in orchestrator.__all__ if inspect.ismodule(getattr(orchestrator, name))}
    wanted = {f"orchestrator:{name}" for name in orchestrator.__all__ if name not in modules}
    for name in modules:
        wanted |= {f"orchestrator.{name}:{each}" for each in getattr(orchestrator, name).__all__}
    assert wanted <= documented, sorted(wanted - documented)


@pytest.mark.parametrize("name", ["batch", "executor", "playwright", "publisher", "streamlit"])
def test_every_public_name_of_an_adapter_is_in_the_reference(name: str) -> None:
    module = importlib.import_module(f"orchestrator_adapters.{name}")
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    # An exception may be a row of a table, and everything else has its docstring there.
    missing = [
        each
        for each in module.__all__
        if f"orchestrator_adapters.{name}:{each} " not in pages and f"| `{each}` |" not in pages
    ]
    assert not missing


# Links


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {link}, which is not there"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", target.read_text("utf-8")), re.MULTILINE)
            assert anchor in [slug(heading) for heading in headings], f"{name_of(page)}: no heading for {link}"


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)\)", index.read_text("utf-8"))}
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page != index}
    assert pages <= linked, f"not in docs/index.md: {sorted(map(name_of, pages - linked))}"
