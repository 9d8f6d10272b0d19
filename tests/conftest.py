"""Every test that starts something ends by asserting that nothing of it is left."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio
import structlog

from orchestrator.testing import Resources, leftovers, nothing_left

# A shell ignores Ctrl-C for what it starts in the background, which everything started from there inherits.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What pytest makes of the tests' asserts takes each process ten seconds, unless it may keep that, as by default it may.
_writes_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, False

# Its bound on one example is a fifth of a second, which a busy machine takes for anything.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

TESTS = Path(__file__).parent
# What takes longest. Where processes share the files these are begun first: begun last, one would keep all waiting.
LONGEST = """
integration/test_docs.py acceptance/test_streamlit_pages.py integration/test_survival_hang.py
integration/test_cli_journal.py integration/test_journal_crashes.py acceptance/test_publisher_unchanged.py
integration/test_cli_run.py acceptance/test_browser_errors.py integration/test_loop_blocking.py
acceptance/test_batch_run.py acceptance/test_browser_hangs.py acceptance/test_batch_cli.py integration/test_limits.py
integration/test_store_faults.py integration/test_killset.py integration/test_chaos.py integration/test_demo.py
""".split()
WATCHED = {"integration", "contract", "acceptance", "frozen"}


def watched(node: pytest.Item) -> bool:
    return node.path.relative_to(TESTS).parts[0] in WATCHED


@pytest.fixture(scope="session", autouse=True)
def private_temp_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    tmp_path_factory.getbasetemp()  # stays where it is, so that what a failed test wrote can be read afterwards
    # Another test run on this machine makes folders of the same names; those are not ours to complain of.
    before = tempfile.tempdir
    names = {name: os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")}
    # Short, for sockets live in it, and their paths may have no more than 104 characters.
    with tempfile.TemporaryDirectory(prefix="tests-", ignore_cleanup_errors=True) as folder:
        os.environ.update(dict.fromkeys(names, folder))
        tempfile.tempdir = folder
        yield
        tempfile.tempdir = before
        for name, value in names.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def found_by_the_scripts() -> tuple[str | None, str | None]:
    spec = importlib.util.spec_from_file_location("scripts_browser", TESTS.parent / "scripts" / "_browser.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: tuple[str | None, str | None] = module.find()
    return found


def given_or_skipped(path: str | None, what: str) -> str:
    if path is None:
        why = f"there is no {what} here: `python3 scripts/test.py` installs it or says what to install"
        # Where the checks of a change run, a test that was left out must not pass for one that was run.
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    return path


@pytest.fixture(scope="session")
def browser_path() -> str:
    """The program of a Chromium, for tests that drive one; they ask for no other name or place."""
    path, _ = found_by_the_scripts()
    return given_or_skipped(path and shutil.which(path), "browser")


@pytest.fixture(scope="session")
def ffmpeg_path() -> str:
    """The program of ffmpeg, for tests of videos."""
    return given_or_skipped(found_by_the_scripts()[1], "ffmpeg")


@pytest.fixture(autouse=True)
def logging_of_nobody() -> Iterator[None]:
    # The command line configures structlog for its process, and what a supervisor logs through depends on that.
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    # Autouse fixtures come first, so this one begins before pytest-asyncio makes its loop and ends after it is closed.
    if watched(request.node):
        with nothing_left():
            yield
    else:
        yield


@pytest_asyncio.fixture
async def no_task_left() -> AsyncIterator[None]:
    # The loop's end would cancel what a test forgot, and the check above would see nothing of it.
    before = Resources.now()
    yield
    for _ in range(3):
        await asyncio.sleep(0)  # what was cancelled or finished in the test's last step may end
    left = [line for line in leftovers(before, Resources.now()) if line.startswith("task ")]
    assert not left, "\n".join(left)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        begun_first = {TESTS / name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: begun_first.get(item.path, len(begun_first)))
    for item in items:
        # Processes share the tests by their names, which must be the same in all.
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid}: a name with an address differs from run to run; give it ids=")
        if isinstance(item, pytest.Function) and watched(item) and item.get_closest_marker("asyncio"):
            # Before the fixtures that the test asks for, so that what they own is gone when it looks.
            item.fixturenames.insert(item.fixturenames.index("nothing_left_behind") + 1, "no_task_left")


def pytest_collection_finish() -> None:
    sys.dont_write_bytecode = _writes_nothing
