"""Each guard refuses alone what a frozen app must not do, and lets through what it may."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import _frozen, _guards, _launch
from orchestrator.exceptions import SelfSpawnError


@pytest.fixture(autouse=True)
def naive_app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A frozen app whose main never called `freeze_support`, with its home in a temp folder."""
    for name in (_launch.COMMAND, _launch.DEPTH, _guards.APPS, _frozen.VARIABLE, _frozen.STARTS):
        monkeypatch.delenv(name, raising=False)
    app = tmp_path / "thing"
    app.write_text("")
    app.chmod(0o755)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(app))
    monkeypatch.setattr(sys, "argv", [str(app)])
    monkeypatch.setattr(_frozen, "_armed", False)
    monkeypatch.setattr(_frozen, "_child", False)
    return app


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def keep(*guards: str) -> None:
        monkeypatch.setattr(_frozen, "GUARDS", set(guards))

    return keep


Only = Callable[..., None]


def test_there_are_four() -> None:
    assert {"armed", "marker", "nested", "handshake"} == _frozen.GUARDS


def test_armed_alone_refuses_the_first_start(only: Only, monkeypatch: pytest.MonkeyPatch) -> None:
    only("armed")
    for refuse in (_launch.check_host, _launch.describe, _launch.describe_guardian):
        with pytest.raises(SelfSpawnError, match="freeze_support"):
            refuse()
    monkeypatch.setattr(_frozen, "_armed", True)
    _launch.check_host()
    assert _launch.describe().is_app and _launch.describe_guardian().is_app


def test_marker_alone_refuses_a_child_that_nobody_recognised(only: Only, monkeypatch: pytest.MonkeyPatch) -> None:
    only("marker")
    _launch.check_host()
    started = _launch.environment(None, None, "mark")
    monkeypatch.setenv(_frozen.VARIABLE, started[_frozen.VARIABLE])
    for children in (True, False):  # also one that would do without
        with pytest.raises(SelfSpawnError, match="was to be a child, and became the app again"):
            _launch.check_host(children=children)
    with pytest.raises(SelfSpawnError):
        _launch.describe()


@pytest.mark.parametrize("between", [None, "other-app"])
def test_nested_alone_refuses_the_app_within_its_own_child(
    only: Only, monkeypatch: pytest.MonkeyPatch, naive_app: Path, tmp_path: Path, between: str | None
) -> None:
    only("nested")
    _launch.check_host()
    for app in filter(None, [str(naive_app), between]):
        monkeypatch.setattr(sys, "executable", str(tmp_path / app))
        for source in (_launch.environment(None, ["PATH"], "mark"), _launch.guardian_environment()):
            inherited = source[_guards.APPS]
        monkeypatch.setenv(_guards.APPS, inherited)
    monkeypatch.setattr(sys, "executable", str(naive_app))
    for children in (True, False):
        with pytest.raises(SelfSpawnError, match="started again within one of its own children"):
            _launch.check_host(children=children)
    # A child of the app may have children; another app may, too.
    monkeypatch.setattr(_frozen, "_child", True)
    _launch.check_host()
    monkeypatch.setattr(_frozen, "_child", False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "third"))
    _launch.check_host()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_the_app_is_known_by_whatever_name_it_is_started(
    only: Only, monkeypatch: pytest.MonkeyPatch, naive_app: Path, tmp_path: Path
) -> None:
    only("nested")
    link = tmp_path / "a:link"
    link.symlink_to(naive_app)
    monkeypatch.setattr(sys, "executable", str(link))
    monkeypatch.setenv(_guards.APPS, _launch.environment(None, None, "mark")[_guards.APPS])
    monkeypatch.setattr(sys, "executable", str(naive_app))
    with pytest.raises(SelfSpawnError):
        _launch.check_host()


def test_name_with_a_separator_in_it(only: Only, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only("nested")
    strange = str(tmp_path / f"a{os.pathsep}b")
    monkeypatch.setattr(sys, "executable", strange)
    monkeypatch.setenv(_guards.APPS, _launch.environment(None, None, "mark")[_guards.APPS])
    with pytest.raises(SelfSpawnError):
        _launch.check_host()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "c"))
    _launch.check_host()


def test_main_in_a_child_of_multiprocessing_is_refused(only: Only, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing.process

    only()
    monkeypatch.setattr(sys, "argv", ["thing", "--multiprocessing-fork", "pipe_handle=5"])
    with pytest.raises(SelfSpawnError, match="multiprocessing started"):
        _launch.check_host()
    # Within a function that it runs a supervisor is fine, and so it is within a job's.
    monkeypatch.setattr(multiprocessing.process, "_parent_process", object())
    _launch.check_host()
    only("nested")
    monkeypatch.setenv(_guards.APPS, _launch.environment(None, None, "mark")[_guards.APPS])
    _launch.check_host()


def test_what_is_refused_is_in_the_users_log_file(tmp_path: Path) -> None:
    with pytest.raises(SelfSpawnError) as refused:
        _launch.check_host()
    log = tmp_path / "state" / "thing" / "log" / "orchestrator.log"
    if sys.platform == "linux":
        assert str(refused.value) in log.read_text()


def test_names_of_guards_are_the_librarys_own() -> None:
    from orchestrator.exceptions import ConfigurationError

    with pytest.raises(ConfigurationError, match="set by the library"):
        _launch.environment({_guards.APPS: ""}, None, "mark")


def test_the_app_is_no_command_for_children(only: Only, naive_app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only()
    with pytest.raises(SelfSpawnError, match=r"command= names .* which is this very app and no Python"):
        _launch.describe([str(naive_app)])
    monkeypatch.setenv(_launch.COMMAND, str(naive_app))
    with pytest.raises(SelfSpawnError, match=f"{_launch.COMMAND} names"):
        _launch.describe()
