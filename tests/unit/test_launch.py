"""Which command a host gets, what its children inherit, and who is refused."""

from __future__ import annotations

import json
import multiprocessing.spawn
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import _frozen, _guards, _launch, _python
from orchestrator.child import _target
from orchestrator.exceptions import ConfigurationError, LaunchError, SelfSpawnError

PYTHON = sys.executable
posix = pytest.mark.skipif(sys.platform == "win32", reason="executable bits and names of POSIX")


@pytest.fixture(autouse=True)
def plain_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (_launch.COMMAND, _launch.DEPTH, _guards.APPS, "ORCHESTRATOR_MARKER", "ORCHESTRATOR_OUTER_MARKERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_frozen, "_armed", False)
    monkeypatch.setattr(_frozen, "_child", False)
    # It remembers what sys.executable was when another test imported it.
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", None)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    def make(name: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Asked which Python it is, it says that it is this one.
        path.write_text(f'#!/bin/sh\nexec "{PYTHON}" "$@"\n')
        path.chmod(0o755)
        return str(path)

    return make


Program = Callable[[str], str]


def test_boot_is_short() -> None:
    assert len(_launch.BOOT) < 1024
    compile(_launch.BOOT, "<boot>", "exec")


# The command


def test_this_python_by_default() -> None:
    launch = _launch.describe()
    assert launch.command[0] == sys.executable
    assert launch.command[-3:] == ["-c", _launch.BOOT, _launch.LABEL]
    assert "this process runs in" in launch.reason


@pytest.mark.parametrize(
    "flags", [[], ["-I"], ["-E", "-s"], ["-O"], ["-W", "error::UserWarning"], ["-X", "utf8"], ["-X", "no_debug_ranges"]]
)
def test_options_of_the_interpreter_are_handed_on(flags: list[str]) -> None:
    root = str(Path(_launch.__file__).parent.parent)
    code = (
        f"import sys; sys.path.append({root!r}); from orchestrator import _python; print(*_python.flags(), sep='\\n')"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    found = done.stdout.split()
    expected = ["-Werror::UserWarning"] if "-W" in flags else flags
    assert found == expected


def test_options_without_the_private_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subprocess, "_args_from_interpreter_flags")
    monkeypatch.setattr(sys, "_xoptions", {"dev": True, "pycache_prefix": "/p"})
    assert _python.flags() == ["-X", "dev", "-X", "pycache_prefix=/p"]


@posix
def test_given_python(program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = program("bin/python3.99")
    assert _launch.describe([python, "-X", "dev"]).command[:3] == [python, "-X", "dev"]
    # By name, and by a path that means something else in the child's folder.
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert _launch.describe(["python3.99"]).command[0] == python
    monkeypatch.chdir(tmp_path)
    assert _launch.describe(["bin/python3.99"]).command[0] == python
    launch = _launch.describe(["python3.99"])
    assert launch.command[-3:] == ["-c", _launch.BOOT, _launch.LABEL] and launch.reason.startswith("command=")


@posix
def test_python_named_in_the_environment(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    python = program("python")
    monkeypatch.setenv(_launch.COMMAND, python)
    assert _launch.describe().command[0] == python
    assert b"\0+\0" in _launch.preamble("n", own=True)
    monkeypatch.setenv(_launch.COMMAND, json.dumps([python, "-u"]))
    launch = _launch.describe()
    assert launch.command[:2] == [python, "-u"] and _launch.COMMAND in launch.reason
    for wrong in ("[", "[]", "[1]"):
        monkeypatch.setenv(_launch.COMMAND, wrong)
        with pytest.raises(LaunchError, match="neither a path nor a JSON list"):
            _launch.describe()


@posix
def test_given_program_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"command=: there is no '/no/python'; give the path"):
        _launch.describe(["/no/python"])
    with pytest.raises(LaunchError, match="there is no 'no-such-python' on PATH"):
        _launch.describe(["no-such-python"])
    text = tmp_path / "python"
    text.write_text("")
    for path in (tmp_path, text):
        with pytest.raises(LaunchError, match="no program that may be run"):
            _launch.describe([str(path)])


@pytest.mark.parametrize("command", ["python", [], [""], [1], [b"python"]])
def test_given_command_that_is_no_list_of_words(command: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^command: "):
        _launch.describe(command)  # type: ignore[arg-type]


@posix
@pytest.mark.parametrize("executable", ["", None, "/usr/sbin/uwsgi", "/gone/python3"])
def test_embedded_host_uses_the_python_of_its_installation(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    monkeypatch.setattr(sys, "_base_executable", None, raising=False)
    with pytest.raises(LaunchError, match=r'Supervisor\(command=\["/path/to/python"\]\)') as refused:
        _launch.describe()
    assert (f"{executable}: " if executable else "sys.executable: is not set") in str(refused.value)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = program(f"bin/python{version}")
    launch = _launch.describe()
    assert launch.command[0] == python and "same installation" in launch.reason


@posix
def test_base_interpreter_is_the_last_resort(program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base = program("base/python3")
    monkeypatch.setattr(sys, "executable", program("blender"))
    monkeypatch.setattr(sys, "_base_executable", base, raising=False)
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path / "nowhere"))
    assert _launch.describe().command[0] == base


@posix
def test_redirector_of_a_windows_environment_is_passed_by(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    redirector, real = program("venv/python.exe"), program("real/python.exe")
    monkeypatch.setattr(sys, "executable", redirector)
    monkeypatch.setattr(sys, "_base_executable", real, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    launch = _launch.describe()
    assert launch.command[0] == real and "redirector" in launch.reason
    monkeypatch.setenv("__PYVENV_LAUNCHER__", "of our own parent")
    assert _launch.environment(None, None, "m")["__PYVENV_LAUNCHER__"] == redirector
    assert "__PYVENV_LAUNCHER__" not in _launch.environment(None, None, "m", command=[real])


@posix
def test_python_that_multiprocessing_was_told_to_use(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = program("bin/with-profiler")
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(wrapper))
    launch = _launch.describe()
    assert launch.command[0] == wrapper and "multiprocessing.set_executable()" in launch.reason
    # Another Python, or no program, is passed by, and what it lacks is told.
    Path(wrapper).write_text("#!/bin/sh\necho 3 99 cpython-399\n")
    monkeypatch.setattr(_python, "_probed", {})
    assert _launch.describe().command[0] == sys.executable
    assert "is cpython-399 3.99, and this process runs" in _python.examine()[0].lack
    os.chmod(wrapper, 0o644)
    assert _python.examine()[0].lack == "is no program that may be run"
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", None)
    assert _python.examine()[0].source == "sys.executable"


@posix
@pytest.mark.parametrize(
    ("script", "lack"),
    [
        ("#!/bin/sh\nexit 3\n", "does not say which Python it is: it ended with code 3"),
        ("#!/bin/sh\nexec sleep 600\n", "did not say within 0.2 s which Python it is"),
        ("#!/no/such/interpreter\n", "cannot be run: "),
    ],
)
def test_python_of_an_embedding_host_is_asked_once(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, lack: str
) -> None:
    monkeypatch.setattr(_python, "_probed", {})
    monkeypatch.setattr(_python, "_PROBE", 0.2 if "600" in script else 30.0)
    monkeypatch.setattr(sys, "executable", None)
    monkeypatch.setattr(sys, "_base_executable", None, raising=False)
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    python = program("bin/python3")
    Path(python).write_text(script)
    with pytest.raises(LaunchError) as refused:
        _launch.describe()
    assert lack in str(refused.value)
    Path(python).unlink()
    Path(python).write_text(f'#!/bin/sh\nexec "{PYTHON}" "$@"\n')
    os.chmod(python, 0o755)
    with pytest.raises(LaunchError):
        _launch.describe()  # what is known is known
    monkeypatch.setattr(_python, "_probed", {})
    monkeypatch.setattr(_python, "_PROBE", 30.0)
    assert _launch.describe().command[0] == python


def test_a_python_that_is_asked_may_start_no_children(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        seen.update(options["env"])
        return subprocess.CompletedProcess(command, 1, b"", b"")

    monkeypatch.setattr(subprocess, "run", run)
    _python._ask("python")
    assert seen[_guards.DEPTH] == str(_guards.DEEPEST)


def test_windows_service(program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "executable", program("pythonservice.exe"))
    monkeypatch.setattr(sys, "_base_executable", None, raising=False)
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    python = program("python.exe")
    monkeypatch.setattr(_python, "_probed", {python: ""})
    launch = _launch.describe()
    assert launch.command[0] == python and "which is not Python" in launch.reason


# The preamble


def unpack(data: bytes) -> list[str]:
    assert int(data[:8], 16) == len(data) - 8
    return os.fsdecode(data[8:]).split("\0")


def test_own_python_gets_the_whole_search_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    strange = os.path.join(os.sep, "caf\xe9", "\udcff" if sys.platform != "win32" else "x")
    monkeypatch.setattr(sys, "path", ["", "app.pyz", strange, Path("ignored"), b"ignored", "a\0b", strange])
    nonce, kind, library, *paths = unpack(_launch.preamble("nonce"))
    assert (nonce, kind, library) == ("nonce", "=", str(Path(_launch.__file__).parent.parent))
    expected = [str(tmp_path), str(tmp_path / "app.pyz"), strange]
    assert paths == expected if sys.platform != "win32" else paths[:2] == expected[:2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no folder that is in use")
def test_deleted_current_folder_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise FileNotFoundError("no current folder")

    monkeypatch.setattr(os, "getcwd", gone)
    monkeypatch.setattr(sys, "path", ["", os.path.abspath(os.sep)])
    assert unpack(_launch.preamble("n"))[3:] == [os.path.abspath(os.sep)]


def test_another_python_gets_what_is_near_the_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    main = types.ModuleType("__main__")
    main.__file__ = str(tmp_path / "app" / "main.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    app, packages = str(tmp_path / "app"), str(tmp_path / "site-packages")
    monkeypatch.setattr(sys, "path", [app, "", packages])
    assert unpack(_launch.preamble("n", own=False))[1] == "+"
    assert unpack(_launch.preamble("n", own=False))[3:] == [app, str(tmp_path)]
    # Isolated: neither is there.
    monkeypatch.setattr(sys, "path", [packages])
    assert unpack(_launch.preamble("n", own=False))[3:] == []


# The environment


def test_environment_is_inherited_and_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("GONE", "1")
    monkeypatch.setenv("ORCHESTRATOR_DEBUG", "1")
    monkeypatch.setenv("_PYI_ARCHIVE_FILE", "of a frozen app above")
    monkeypatch.setenv(_frozen.VARIABLE, "token")
    found = _launch.environment({"GONE": None, "NEW": "x", "NEVER": None}, None, "mark")
    assert found["KEPT"] == "1" and found["NEW"] == "x" and found["ORCHESTRATOR_DEBUG"] == "1"
    assert found["ORCHESTRATOR_MARKER"] == "mark" and found["ORCHESTRATOR_DEPTH"] == "1"
    assert not {"GONE", "NEVER", "_PYI_ARCHIVE_FILE", _frozen.VARIABLE, "ORCHESTRATOR_OUTER_MARKERS"} & set(found)
    assert os.environ["GONE"] == "1"


def test_nested_children_carry_the_outer_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    for mark in ("first", "second", "third"):
        found = _launch.environment(None, [] if mark == "second" else None, mark)
        for name, value in found.items():
            monkeypatch.setenv(name, value)
    assert found["ORCHESTRATOR_MARKER"] == "third"
    assert found["ORCHESTRATOR_OUTER_MARKERS"] == "first second"
    assert found["ORCHESTRATOR_DEPTH"] == "3"


@posix
def test_only_allowed_variables_and_what_python_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "WANTED", "LD_LIBRARY_PATH", "PYTHONPATH", "ORCHESTRATOR_DEBUG"):
        monkeypatch.setenv(name, "x")
    found = _launch.environment({"SET": "1"}, ["WANTED", "MISSING"], "mark")
    assert {"WANTED", "LD_LIBRARY_PATH", "PATH", "SET", "ORCHESTRATOR_DEBUG"} <= set(found)
    assert not {"API_KEY", "MISSING", "PYTHONPATH"} & set(found)
    assert "PATH" not in _launch.environment({"PATH": None}, [], "mark")


def test_names_are_upper_case_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("SYSTEMROOT", "w")
    monkeypatch.setenv("WANTED", "x")
    found = _launch.environment({"path": "p"}, ["wanted"], "mark")
    assert (found["SYSTEMROOT"], found["WANTED"], found["PATH"]) == ("w", "x", "p")
    assert "path" not in found


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"X": 1}, r"^env\['X'\]: must be a string, or None to take it out, not int$"),
        ({"X": b"1"}, r"^env\['X'\]: must be a string"),
        ({"X": "a\0b"}, r"^env\['X'\]: contains a null character$"),
        ({"A=B": "1"}, r"^env\['A=B'\]: is no name"),
        ({"": "1"}, r"^env\[''\]: is no name"),
        ({1: "1"}, r"^env\[1\]: is no name"),
        ({"ORCHESTRATOR_MARKER": "1"}, r"^env\['ORCHESTRATOR_MARKER'\]: is set by the library$"),
        ({"ORCHESTRATOR_DEPTH": None}, r"is set by the library$"),
    ],
)
def test_impossible_variables_are_named(overrides: dict[str, str | None], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _launch.environment(overrides, None, "mark")


@pytest.mark.parametrize("allow", ["PATH", [1]])
def test_impossible_allow_list(allow: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"^env_allow: must be a list of names"):
        _launch.environment(None, allow, "mark")


# Guards


def test_ordinary_host_is_fine() -> None:
    _launch.check_host()


def test_main_script_without_guard_is_refused_with_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = types.ModuleType(_target.MAIN)
    source = "import orchestrator._launch\n\ndef main():\n    orchestrator._launch.check_host()\n\nmain()\n"
    path = str(tmp_path / "script.py")
    monkeypatch.setattr(_target, "loading_main", True)
    with pytest.raises(SelfSpawnError) as refused:
        exec(compile(source, path, "exec"), module.__dict__)
    message = str(refused.value)
    assert message.startswith(f"{path}, line 4: ")
    assert 'if __name__ == "__main__":\n        asyncio.run(main())' in message
    # On another thread there is no such frame.
    module.__file__ = path
    monkeypatch.setitem(sys.modules, _target.MAIN, module)
    with pytest.raises(SelfSpawnError) as refused:
        _launch.check_host()
    assert str(refused.value).startswith(f"{path}: ")


def test_main_script_that_multiprocessing_imports_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing.process

    monkeypatch.setattr(multiprocessing.process.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SelfSpawnError, match="__main__"):
        _launch.check_host()


def test_children_nest_four_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    for depth in ("", "0", "3", "nonsense"):
        monkeypatch.setenv(_launch.DEPTH, depth)
        _launch.check_host()
        _launch.describe()
    monkeypatch.setenv(_launch.DEPTH, "4")
    with pytest.raises(LaunchError, match="unset ORCHESTRATOR_DEPTH"):
        _launch.check_host()
    with pytest.raises(LaunchError, match="does the program start itself"):
        _launch.describe()


def test_frozen_app_starts_itself_only_when_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(_frozen, "_armed", False)
    for refuse in (_launch.check_host, _launch.describe):
        with pytest.raises(SelfSpawnError, match="freeze_support"):
            refuse()
    # A Python is no danger.
    monkeypatch.setattr(sys, "executable", os.path.abspath("app"))
    assert _launch.describe([PYTHON]).command[0] == PYTHON
    monkeypatch.setattr(_frozen, "_armed", True)
    monkeypatch.setenv("_PYI_ARCHIVE_FILE", "app")
    monkeypatch.setattr(sys, "executable", PYTHON)
    _launch.check_host()
    program, flag = _launch.describe().command
    found = _launch.environment(None, None, "mark")
    assert program == sys.executable
    assert flag == f"{_frozen.FLAG}={found[_frozen.VARIABLE]}"
    # The loader needs its variables to share what is unpacked; another program must not see them.
    assert found["_PYI_ARCHIVE_FILE"] == "app" == _launch.environment(None, [], "mark")["_PYI_ARCHIVE_FILE"]
    other = _launch.environment(None, None, "mark", command=["python"])
    assert not {"_PYI_ARCHIVE_FILE", _frozen.VARIABLE} & set(other)
