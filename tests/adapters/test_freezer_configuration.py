"""`[tool.orchestrator.pyinstaller]`: what it may say, and what it is told when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestrator_adapters.pyinstaller import _app
from orchestrator_adapters.pyinstaller._configuration import Configuration, read

from orchestrator.exceptions import ConfigurationError


def write(folder: Path, table: str, *names: str) -> Path:
    for name in ("app.py", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "pyproject.toml").write_text(f"[tool.orchestrator.pyinstaller]\n{table}\n")
    return folder / "app.py"


def test_an_app_needs_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    assert read(tmp_path / "app.py") == Configuration(tmp_path)


def test_a_project_without_the_table_is_not_the_apps(tmp_path: Path) -> None:
    script = write(tmp_path, 'modules = ["jobs"]')
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert read(inner / "app.py").folder == tmp_path
    assert read(script).modules == ("jobs",)


def test_everything_it_may_say(tmp_path: Path) -> None:
    lists = ['modules = ["jobs"]', 'pages = ["page.py"]', 'data = ["profiles/*.toml"]', 'keep = ["a/*"]']
    found = read(write(tmp_path, "\n".join([*lists, "trim = false", "pack = false"])))
    assert found == Configuration(tmp_path, ("jobs",), ("page.py",), ("profiles/*.toml",), ("a/*",), False, False)


@pytest.mark.parametrize(
    ("table", "key", "says"),
    [
        ('module = ["jobs"]', ".module", "there are modules, pages, data, keep, trim, pack"),
        ('modules = "jobs"', ".modules", "must be a list of strings, not 'jobs'"),
        ("pages = [1]", ".pages[0]", "must be a string, not 1"),
        ('pages = ["ok.py", ""]', ".pages[1]", "must be a string, not ''"),
        ('modules = ["jobs.py:run"]', ".modules[0]", "is no name of a module"),
        ('trim = "yes"', ".trim", "must be true or false, not 'yes'"),
        ('data = ["../secret"]', ".data[0]", "is not within the folder of this file"),
        ('pages = ["/etc/page.py"]', ".pages[0]", "is not within the folder of this file"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, table: str, key: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(write(tmp_path, table))
    assert str(caught.value).startswith(f"{tmp_path / 'pyproject.toml'}: tool.orchestrator.pyinstaller{key}: ")
    assert says in str(caught.value)


def test_what_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool\n")
    with pytest.raises(ConfigurationError, match="pyproject.toml: cannot be read"):
        read(tmp_path / "app.py")


def test_a_build_ends_with_the_message_and_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^Error: .*pyproject.toml: tool.orchestrator.pyinstaller.nonsense"):
        _app.configured(str(write(tmp_path, "nonsense = 1")))


def test_pages_and_data_have_the_place_in_the_bundle_that_they_have_beside_the_app(tmp_path: Path) -> None:
    table = 'pages = ["page.py", "pages/*.py"]\ndata = ["profiles/*.toml"]'
    script = write(tmp_path, table, "page.py", "pages/one.py", "profiles/a.toml", "profiles/b.txt")
    files, _ = _app.collect(read(script), [])
    assert files == [
        (str(tmp_path / "page.py"), "."),
        (str(tmp_path / "pages/one.py"), "pages"),
        (str(tmp_path / "profiles/a.toml"), "profiles"),
    ]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('pages = ["pge.py"]', r"pyproject.toml: tool.orchestrator.pyinstaller.pages\[0\]: no file matches 'pge.py'"),
        ('data = ["profiles/*"]', r"tool.orchestrator.pyinstaller.data\[0\]: no file matches"),
        ('modules = ["jbs"]', r"tool.orchestrator.pyinstaller.modules\[0\]: there is no module 'jbs'"),
    ],
)
def test_what_is_not_there_ends_the_build(tmp_path: Path, table: str, says: str) -> None:
    with pytest.raises(SystemExit, match=says):
        _app.collect(read(write(tmp_path, table)), [])


def test_of_a_package_of_jobs_all_modules_come_along(tmp_path: Path) -> None:
    script = write(
        tmp_path, 'modules = ["chores_of_app"]', "chores_of_app/__init__.py", "chores_of_app/deep/__init__.py"
    )
    (tmp_path / "chores_of_app/deep/wash.py").write_text("raise RuntimeError('building an app runs nothing of it')")
    _, modules = _app.collect(read(script), [])
    assert modules == ["chores_of_app", "chores_of_app.deep", "chores_of_app.deep.wash"]
