"""What tells a child's start from the app's, and what a freezer's loader leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest

from orchestrator import _frozen


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frozen, "_armed", False)
    monkeypatch.setattr(_frozen, "_child", False)
    monkeypatch.setattr(_frozen, "_token", "")
    monkeypatch.setattr(_frozen, "_loader", {})
    monkeypatch.setattr(sys, "argv", ["app"])
    monkeypatch.delenv(_frozen.VARIABLE, raising=False)


def test_the_app_itself_goes_on_and_is_armed() -> None:
    assert not _frozen.armed()
    _frozen.freeze_support()
    assert _frozen.armed()
    _frozen.freeze_support()


def test_the_apps_own_arguments_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app", "--port", "80"])
    _frozen.freeze_support()
    assert sys.argv == ["app", "--port", "80"]


@pytest.mark.parametrize(
    ("argv", "token", "code"),
    [
        (["app", "--orchestrator-child=a"], None, 64),
        (["app", "--orchestrator-child=a"], "b", 64),
        (["app", "--orchestrator-child"], "b", 64),
        (["app", "--orchestrator-child="], "", 64),
        (["app", "--orchestrator-child=:guardian"], "", 64),
        (["app", "--orchestrator-child=a:guardian"], "b", 64),
        (["app"], "b", 65),
        (["app", "serve"], "b", 65),
    ],
)
def test_half_a_child_ends(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], argv: list[str], token: str | None, code: int
) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(os, "_exit", end)
    if token is not None:
        monkeypatch.setenv(_frozen.VARIABLE, token)
    with pytest.raises(Ended) as ended:
        _frozen.freeze_support()
    assert ended.value.args == (code,)
    assert capfd.readouterr().err.startswith("orchestrator: ")
    assert not _frozen.armed()
    assert _frozen.VARIABLE not in os.environ


def test_a_guardian_is_told_by_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator import _guardian_main

    class Stood(BaseException):
        pass

    def stand() -> None:
        raise Stood

    monkeypatch.setattr(_guardian_main, "main", stand)
    monkeypatch.setattr(sys, "argv", ["app", "--orchestrator-child=a:guardian"])
    monkeypatch.setenv(_frozen.VARIABLE, "a")
    monkeypatch.setenv("_PYI_ARCHIVE_FILE", "b")
    with pytest.raises(Stood):
        _frozen.freeze_support()
    assert sys.argv == ["app"] and _frozen.VARIABLE not in os.environ and "_PYI_ARCHIVE_FILE" not in os.environ


def test_token_is_one_for_a_process() -> None:
    token = _frozen.token()
    assert len(token) == 32 and _frozen.token() == token


def test_loader_variables_go(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"_PYI_ARCHIVE_FILE": "a", "_MEIPASS2": "b", "PATH": "c", "LD_LIBRARY_PATH": "d"}
    _frozen.without_loader(environment)
    assert environment == {"PATH": "c", "LD_LIBRARY_PATH": "d"}
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "_MEIPASS", "/bundle", raising=False)
    environment = {"LD_LIBRARY_PATH": "/bundle", "LD_LIBRARY_PATH_ORIG": "/before"}
    _frozen.without_loader(environment)
    assert environment == {"LD_LIBRARY_PATH": "/before"}
    environment = {"LD_LIBRARY_PATH": "/bundle"}
    _frozen.without_loader(environment)
    assert environment == {}


def test_executable_of_a_compiled_app(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _frozen.is_frozen()
    main = types.ModuleType("__main__")
    main.__compiled__ = types.SimpleNamespace(process_exe="/opt/app/app.bin")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert _frozen.is_frozen()
    assert _frozen.executable() == os.path.abspath("/opt/app/app.bin")


def test_importing_it_is_cheap() -> None:
    code = "import sys; before = set(sys.modules); import orchestrator._frozen; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True, timeout=30)
    assert set(done.stdout.split()) <= {
        "orchestrator",
        "orchestrator._freezer",
        "orchestrator._frozen",
        "__future__",
    }
