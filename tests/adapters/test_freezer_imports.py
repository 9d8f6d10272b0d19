"""What a page imports is found by reading it, and nothing of it runs while an app is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestrator_adapters.pyinstaller import _app
from orchestrator_adapters.pyinstaller._configuration import Configuration
from orchestrator_adapters.pyinstaller._imports import imports, resolve

from orchestrator.exceptions import ConfigurationError

PAGE = """\
from __future__ import annotations
import streamlit as st
import xml.dom, chores_of_page
from chores_of_page import wash, WATER
def later():
    from playwright.sync_api import sync_playwright
    from . import nothing_here
class Late:
    import json
try:
    import ujson_that_is_not_there
except ImportError:
    pass
if st.checkbox("more"):
    import more_that_is_not_there
"""


def test_imports_are_found_wherever_they_stand() -> None:
    found = imports(PAGE, "page.py")
    assert [each.module for each in found] == [
        "streamlit",
        "xml.dom",
        "chores_of_page",
        "chores_of_page",
        "playwright.sync_api",
        "json",
        "ujson_that_is_not_there",
        "more_that_is_not_there",
    ]
    assert [each.module for each in found if each.optional] == ["ujson_that_is_not_there", "more_that_is_not_there"]


def test_names_taken_from_a_package_may_be_modules(tmp_path: Path) -> None:
    package = tmp_path / "chores_of_page"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('was imported')")
    (package / "wash.py").write_text("")
    names, missing = resolve(imports(PAGE, "page.py"), [str(tmp_path)])
    assert {"chores_of_page", "chores_of_page.wash"} <= set(names)
    assert "chores_of_page.WATER" not in names
    # Not in this folder; and only what must be there is missing.
    assert [(each.module, each.line) for each in missing] == [("streamlit", 2), ("playwright.sync_api", 6)]


def test_a_syntax_error_is_named_with_its_line() -> None:
    with pytest.raises(ConfigurationError, match=r"page.py, line 2"):
        imports("x = 1\nx = = 2\n", "page.py")


def test_what_a_page_lacks_is_a_warning_of_the_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "page.py").write_text("import json\nimport a_package_nobody_has\n")
    files, modules = _app.collect(Configuration(tmp_path, pages=("page.py",)), [])
    assert files == [(str(tmp_path / "page.py"), ".")]
    assert modules == ["json"]
    assert f"{tmp_path / 'page.py'}, line 2: there is no module 'a_package_nobody_has'" in caplog.text
