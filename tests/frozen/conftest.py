"""Fixtures of the lane `frozen`: apps that are frozen once a session, for all tests that ask for the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from freezing import Builder

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Before `-m` chooses.
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.frozen)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Freeze an app: `build({"app.py": …, "jobs.py": …}, "--onefile")` returns the path of the program."""
    pytest.importorskip("PyInstaller", reason="needs the extra pyinstaller")
    return Builder(tmp_path_factory.mktemp("frozen"))
