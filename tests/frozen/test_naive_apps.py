"""An app whose author knows nothing of frozen apps never starts itself: it ends, and says what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from freezing import Builder, run
from frozen_desks import at_home
from naive_apps import APPS, NAIVE, NAIVE_OPTIONS

REMEDY = "freeze_support()"
GUARDS = ["armed", "marker", "nested", "handshake"]
# Of the test's own, should every guard of the library fail.
STORM = 10
MOST_STARTS = 40


@pytest.fixture(scope="session")
def naive(build: Builder) -> Path:
    return build(NAIVE, *NAIVE_OPTIONS, hooks=False)


@pytest.fixture(scope="session")
def naive_onefile(build: Builder) -> Path:
    return build(NAIVE, "--onefile", *NAIVE_OPTIONS, hooks=False)


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    folder = tmp_path / "starts"
    folder.mkdir()
    return folder


def tried(program: Path, starts: Path, how: str, guards: str | None = None, most: int = 8) -> tuple[int, str, int]:
    """Return the app's exit code, what it printed, and how often it was started in all."""
    env = {"TEST_HOW": how, "TEST_STARTS": str(starts), "TEST_GUARDS": guards, "TEST_MOST_STARTS": str(most)}
    done = run(program, allowed=max(STORM, most), env=env | at_home(starts.parent))
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout + done.stderr, len([*starts.iterdir()])


@pytest.mark.parametrize("how", ["supervisor", "blocking", "service", "stubborn"])
def test_a_naive_app_starts_no_process_and_says_what_to_do(naive: Path, starts: Path, how: str) -> None:
    code, text, count = tried(naive, starts, how)
    assert code != 0
    assert REMEDY in text
    assert count == 1
    assert "the app ran to its end" not in text


@pytest.mark.parametrize("how", ["supervisor", "service"])
def test_a_naive_app_in_one_file_starts_no_process_either(naive_onefile: Path, starts: Path, how: str) -> None:
    code, text, count = tried(naive_onefile, starts, how)
    assert code != 0
    assert REMEDY in text
    assert count == 1


def test_naming_the_app_itself_as_the_command_of_children_is_no_way_around(naive: Path, starts: Path) -> None:
    code, text, count = tried(naive, starts, "command")
    assert code != 0
    assert "the app ran to its end" not in text
    assert count <= 2


@pytest.mark.parametrize("how", ["supervisor", "blocking", "service"])
@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_alone_allows_one_process_at_most(naive: Path, starts: Path, guard: str, how: str) -> None:
    code, text, count = tried(naive, starts, how, guard)
    assert code not in (0, 99)
    assert count <= 2
    assert "the app ran to its end" not in text


def test_without_any_guard_there_would_be_a_storm(naive: Path, starts: Path) -> None:
    # So it is the guards that the tests above are about. The hook that counts starts ends this one.
    _, _, count = tried(naive, starts, "supervisor", "")
    assert count > 2


# The mistake that frozen apps are known for, in one that has our hooks


@pytest.fixture(scope="session")
def selfish(build: Builder) -> Path:
    names = {"app.py": "selfish", "selfish_jobs.py": "selfish_jobs", "count_starts.py": "count_starts"}
    files = {name: (APPS / f"{stem}.py").read_text("utf-8") for name, stem in names.items()}
    return build(files, "--runtime-hook=count_starts.py")


@pytest.mark.parametrize("how", ["job", "main"])
def test_an_app_that_runs_itself_as_if_it_were_python_is_no_storm(selfish: Path, starts: Path, how: str) -> None:
    code, text, count = tried(selfish, starts, how, most=MOST_STARTS)
    assert code not in (0, 99)
    # In a job the first start within is refused; main processes may start each other a dozen times, each with a child
    # and a guardian.
    assert count <= (4 if how == "job" else MOST_STARTS)
    assert "sys.executable" in text
