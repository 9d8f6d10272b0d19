"""A frozen app with a Streamlit page and Playwright: it works from everywhere, and its size is bounded and printed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from freezing import Builder, run

JOBS = """\
from playwright.sync_api import sync_playwright

HTML = "data:text/html,<title>A small page</title>"

def title(page):
    page.goto(HTML)
    return page.title()

def alone(browser):
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, chromium_sandbox=False)
        try:
            return title(chromium.new_page())
        finally:
            chromium.close()
"""
APP = """\
import os
import sys
import urllib.request
from orchestrator import BlockingSupervisor
from orchestrator_adapters.streamlit import streamlit_service

def main(way):
    if way == "main":
        import browsing_jobs
        say(browsing_jobs.alone(os.environ["ORCHESTRATOR_BROWSER"]))
    elif way == "job":
        import browsing_jobs
        from orchestrator_adapters.playwright import BrowserJob
        with BlockingSupervisor(workers=1) as supervisor:
            say(supervisor.run(BrowserJob(browsing_jobs.title, timeout=90)))
    else:
        options = {"server.scriptHealthCheckEnabled": True}
        page = streamlit_service(way, options=options, start_timeout=90)
        with BlockingSupervisor(workers=0) as supervisor, supervisor.service(page) as service:
            service.wait_ready(90)
            # Runs the whole page, as a visit does.
            with urllib.request.urlopen(service.url + "/_stcore/script-health-check", timeout=90) as answer:
                say(answer.status, answer.read().decode())

def say(*words):
    print(*words, flush=True)

if __name__ == "__main__":
    main(sys.argv[1])
"""
DIRECTLY = """\
import os
import pandas
import streamlit as st
import browsing_jobs

st.title(browsing_jobs.alone(os.environ["ORCHESTRATOR_BROWSER"]))
st.dataframe(pandas.DataFrame({"pin": ["tea", "cup"], "seen": [1, 2]}))
st.line_chart({"seen": [1, 2, 3]})
open(os.environ["PAGE_SAYS"], "a").write("seen directly\\n")
"""
SUPERVISING = """\
import os
import streamlit as st
from orchestrator import BlockingSupervisor
from orchestrator_adapters.playwright import BrowserJob

with BlockingSupervisor(workers=1) as supervisor:
    found = supervisor.run(BrowserJob("browsing_jobs:title", timeout=90))
st.title(found)
open(os.environ["PAGE_SAYS"], "a").write(f"seen in a job: {found}\\n")
"""
FILES = {
    "app.py": APP,
    "browsing_jobs.py": JOBS,
    "directly.py": DIRECTLY,
    "pages/supervising.py": SUPERVISING,
    "pyproject.toml": """\
[tool.orchestrator.pyinstaller]
modules = ["browsing_jobs"]
pages = ["directly.py", "pages/*.py"]
""",
}
# Without Playwright, whose driver brings a JavaScript engine of 117 MB.
PAGE_ONLY = {
    "app.py": """\
import sys
import urllib.request
from orchestrator import BlockingSupervisor
from orchestrator_adapters.streamlit import streamlit_service

if __name__ == "__main__":
    options = {"server.scriptHealthCheckEnabled": True}
    page = streamlit_service("page.py", options=options, start_timeout=90)
    with BlockingSupervisor(workers=0) as supervisor, supervisor.service(page) as service:
        service.wait_ready(90)
        with urllib.request.urlopen(service.url + "/_stcore/script-health-check", timeout=90) as answer:
            print(answer.status, answer.read().decode(), flush=True)
""",
    "page.py": 'import pandas\nimport streamlit as st\nst.dataframe(pandas.DataFrame({"pin": ["tea"]}))\n',
    "pyproject.toml": '[tool.orchestrator.pyinstaller]\npages = ["page.py"]\n',
}
MEGABYTE = 1e6


def size_of(program: Path) -> float:
    """Print what a bundle consists of, and return its size in MB."""
    if not (program.parent / "_internal").is_dir():
        print(f"{program.name}: {program.stat().st_size / MEGABYTE:.1f} MB as one file")
        return program.stat().st_size / MEGABYTE
    parts: Counter[str] = Counter()
    for path in program.parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(program.parent)
            parts[name.parts[1] if name.parts[0] == "_internal" else name.parts[0]] += path.stat().st_size
    whole = sum(parts.values()) / MEGABYTE
    print(f"{program.name}: {whole:.1f} MB as a folder; the largest parts:")
    for part, size in parts.most_common(15):
        print(f"  {size / MEGABYTE:6.1f} MB  {part}")
    return whole


@pytest.fixture(scope="session")
def app(build: Builder) -> Path:
    return build(FILES, "--onedir", "--windowed")


@pytest.fixture
def environment(browser_path: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    # What is unpacked once for a user is unpacked once for these tests.
    unpacked = tmp_path_factory.getbasetemp() / "unpacked"
    return {
        "ORCHESTRATOR_BROWSER": browser_path,
        "PAGE_SAYS": str(tmp_path / "says"),
        "XDG_CACHE_HOME": str(unpacked),
        "LOCALAPPDATA": str(unpacked),
    }


@pytest.mark.parametrize("way", ["main", "job"])
def test_playwright_works_from_the_main_process_and_from_a_job(
    app: Path, environment: dict[str, str], way: str
) -> None:
    done = run(app, way, env=environment, allowed=40)
    assert (done.returncode, done.stdout) == (0, "A small page\n"), done.stderr


@pytest.mark.parametrize(
    ("page", "says"),
    [("directly.py", "seen directly\n"), ("pages/supervising.py", "seen in a job: A small page\n")],
)
def test_playwright_works_in_a_page_directly_and_from_its_own_supervisor(
    app: Path, environment: dict[str, str], tmp_path: Path, page: str, says: str
) -> None:
    done = run(app, page, env=environment, allowed=40)
    assert (done.returncode, done.stdout) == (0, "200 ok\n"), done.stderr
    assert (tmp_path / "says").read_text() == says


def test_a_folder_with_streamlit_and_playwright_is_below_200_mb(app: Path) -> None:
    assert size_of(app) < 200


@pytest.mark.parametrize(("options", "most"), [((), 200), (("--onefile",), 100)], ids=["onedir", "onefile"])
def test_an_app_with_streamlit_keeps_its_size_and_serves_its_page(
    build: Builder, environment: dict[str, str], options: tuple[str, ...], most: int
) -> None:
    program = build(PAGE_ONLY, *options)
    assert size_of(program) < most
    done = run(program, env=environment)
    assert (done.returncode, done.stdout) == (0, "200 ok\n"), done.stderr
