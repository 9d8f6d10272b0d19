"""What tells a child's start from the app's, and what a freezer's loader leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import psutil
import pytest

from orchestrator import _freezer, _frozen, _wire


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
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
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


# multiprocessing


class Diverted(BaseException):
    pass


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", os.path.abspath("app"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", "0")
    monkeypatch.delenv(_frozen.STARTS, raising=False)
    monkeypatch.delenv(_frozen.APPS, raising=False)


def test_a_child_of_multiprocessing_is_one(monkeypatch: pytest.MonkeyPatch, frozen: None) -> None:
    import multiprocessing.process
    import multiprocessing.spawn

    def spawn_main(**options: object) -> None:
        raise Diverted(options)

    monkeypatch.setattr(multiprocessing.spawn, "spawn_main", spawn_main)
    monkeypatch.setattr(multiprocessing.process, "ORIGINAL_DIR", "/somewhere")
    monkeypatch.setattr(sys, "argv", ["app", "--multiprocessing-fork", "tracker_fd=5", "pipe_handle=7"])
    for _ in range(2):  # also if something was started before: the runtime hook, and then main
        with pytest.raises(Diverted) as diverted:
            _frozen.freeze_support()
        assert diverted.value.args == ({"tracker_fd": 5, "pipe_handle": 7},)
    assert multiprocessing.process.ORIGINAL_DIR is None  # type: ignore[attr-defined]
    # In PyInstaller's hook it is too early: functions of the main script are not there.
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/bundle/pyi_rth_orchestrator.py", raising=False)
    _frozen.freeze_support()
    # But not for what a job has started, for the main script never runs in a child.
    monkeypatch.setenv(_frozen.APPS, sys.executable)
    with pytest.raises(Diverted):
        _frozen.freeze_support()


@pytest.mark.parametrize(
    ("argv", "ran"),
    [
        (["-c", "from multiprocessing.resource_tracker import main;main(5)"], True),
        (["-B", "-Xutf8", "-c", "from multiprocessing.forkserver import main; main(1, 2)", "x"], True),
        (["-c", "import sys; from multiprocessing.forkserver import main; main()"], True),
        (["file", "-c", "from multiprocessing.resource_tracker import main;main(5)"], False),
        (["-c", "print(1)"], False),
        (["-c"], False),
    ],
)
def test_other_processes_of_multiprocessing(
    monkeypatch: pytest.MonkeyPatch, frozen: None, argv: list[str], ran: bool
) -> None:
    import multiprocessing.forkserver
    import multiprocessing.resource_tracker

    def main(*args: object) -> None:
        raise Diverted

    for module in (multiprocessing.forkserver, multiprocessing.resource_tracker):
        monkeypatch.setattr(module, "main", main)
    monkeypatch.setattr(sys, "argv", ["app", *argv])
    if ran:
        with pytest.raises(Diverted):
            _frozen.freeze_support()
    else:
        _frozen.freeze_support()


def test_what_is_not_frozen_leaves_multiprocessing_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app", "--multiprocessing-fork", "tracker_fd=5", "pipe_handle=7"])
    _frozen.freeze_support()


# The child of a frozen app


def test_a_child_may_have_children_and_gives_them_the_loaders_variables(
    monkeypatch: pytest.MonkeyPatch, frozen: None
) -> None:
    from orchestrator import _guardian_main, _launch

    class Stood(BaseException):
        pass

    def stand() -> None:
        raise Stood

    main = types.ModuleType("__main__")
    main.__file__ = "/bundle/pyi_rth_orchestrator.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(_guardian_main, "main", stand)
    monkeypatch.setattr(sys, "_MEIPASS", "/tmp/_MEIx", raising=False)
    monkeypatch.setattr(sys, "argv", ["app", "--orchestrator-child=a:guardian"])
    loader = {"_PYI_ARCHIVE_FILE": "b", "LD_LIBRARY_PATH": "/tmp/_MEIx:/opt", "LD_LIBRARY_PATH_ORIG": "/opt"}
    for name, value in {**loader, _frozen.VARIABLE: "a"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Stood):
        _frozen.freeze_support()
    assert _frozen.is_child() and _frozen.armed()
    assert os.environ["LD_LIBRARY_PATH"] == "/opt"
    assert not hasattr(main, "__file__")  # multiprocessing would have its children load it
    for found in (_launch.environment(None, None, "m"), _launch.environment(None, [], "m")):
        assert loader.items() <= found.items()
        assert found[_frozen.VARIABLE] == _frozen.token()
    assert loader.items() <= _launch.guardian_environment().items()
    foreign = _launch.environment(None, None, "m", command=["python"])
    assert foreign["LD_LIBRARY_PATH"] == "/opt" and not {"_PYI_ARCHIVE_FILE", _frozen.VARIABLE} & set(foreign)


def test_starts_within_starts_are_counted_while_they_live(
    monkeypatch: pytest.MonkeyPatch, frozen: None, capfd: pytest.CaptureFixture[str]
) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(_frozen, "_lives", lambda pid: pid > 100)
    own = str(os.getpid())
    monkeypatch.setenv(_frozen.STARTS, " ".join(map(str, range(90, 102))))
    _frozen.freeze_support()
    assert os.environ[_frozen.STARTS].split() == ["101", own]
    monkeypatch.setattr(_frozen, "_armed", False)
    monkeypatch.setenv(_frozen.STARTS, " ".join(map(str, range(101, 113))))
    with pytest.raises(Ended) as ended:
        _frozen.freeze_support()
    assert ended.value.args == (70,)
    assert "started itself 12 times" in capfd.readouterr().err


def test_whether_a_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _frozen._lives(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(30)
    assert not _frozen._lives(process.pid)
    monkeypatch.setattr(sys, "platform", "win32")

    # os.kill would end it there.
    monkeypatch.setattr(psutil, "pid_exists", lambda pid: pid == 5)
    assert _frozen._lives(5) and not _frozen._lives(os.getpid())


@pytest.mark.parametrize(
    ("platform", "cache"),
    [
        ("linux", (".cache", "ms-playwright")),
        ("darwin", ("Library", "Caches", "ms-playwright")),
    ],
)
def test_playwright_finds_its_browsers(
    monkeypatch: pytest.MonkeyPatch, frozen: None, tmp_path: Path, platform: str, cache: tuple[str, ...]
) -> None:
    name = "PLAYWRIGHT_BROWSERS_PATH"
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    _freezer.find_browsers()
    assert os.environ[name] == "0"  # whoever says something has his way
    monkeypatch.delenv(name)
    _freezer.find_browsers()
    assert os.environ[name] == str(tmp_path.joinpath(*cache))
    monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
    (tmp_path / "playwright" / "driver" / "package" / ".local-browsers").mkdir(parents=True)
    _freezer.find_browsers()
    assert name not in os.environ


def test_an_app_that_briefcase_packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    main = types.ModuleType("__main__")
    main.__package__ = "board"
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "executable", os.path.abspath("Board"))
    known: dict[str, dict[str, str]] = {}

    def find(name: str) -> dict[str, str]:
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(metadata, "metadata", find)
    assert not _frozen.is_frozen()
    known["board"] = {"Name": "board"}
    assert not _frozen.is_frozen()
    known["board"]["Briefcase-Version"] = "0.3"
    assert _frozen.is_frozen()
    monkeypatch.setattr(sys, "executable", os.path.abspath("python3"))
    assert not _frozen.is_frozen()


def test_a_compiled_app_that_does_not_say_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    main = types.ModuleType("__main__")
    main.__compiled__ = types.SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "app.bin")])
    assert _frozen.executable() == str(tmp_path / "app.bin")
    (tmp_path / "python").write_text("")
    assert _frozen.executable() == str(tmp_path / "python")
    main.__compiled__.original_argv0 = str(tmp_path / "zero")
    assert _frozen.executable() == str(tmp_path / "zero")


@pytest.mark.parametrize("begun", [b"", b"0000", b"000000ffabc"])
def test_a_child_whose_supervisor_is_gone_at_once_leaves_no_folder(tmp_path: Path, begun: bytes) -> None:
    folder = tmp_path / f"{_wire.FOLDER}x" / "w1-1"
    folder.mkdir(parents=True)
    code = "from orchestrator import freeze_support; freeze_support()"
    done = subprocess.run(
        [sys.executable, "-c", code, f"{_frozen.FLAG}=a"],
        input=begun,
        env={**os.environ, _frozen.VARIABLE: "a", "TMPDIR": str(folder)},
        cwd=Path(_wire.__file__).parents[1],
        timeout=30,
        check=False,
    )
    assert done.returncode == 113
    assert list(tmp_path.iterdir()) == []
