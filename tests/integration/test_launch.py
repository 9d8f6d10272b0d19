"""Real children of hosts of several kinds: each says hello and runs a job that finds what its host would find."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipapp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import _launch

DEADLINE = 30.0
LIBRARY = Path(orchestrator.__file__).resolve().parent.parent

# A target next to the host's script.
PROBE = """
import importlib.util, json, os, subprocess, sys

def look():
    code = "import json, os, sys; print(json.dumps([sys.path, dict(os.environ)]))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    path, environment = json.loads(done.stdout)
    return {
        "path": [os.fsencode(entry).hex() for entry in sys.path],
        "cwd": os.getcwd(),
        "executable": sys.executable,
        "version": list(sys.version_info[:2]),
        "isolated": sys.flags.isolated,
        "environment": dict(os.environ),
        "grandchild_path": path,
        "grandchild_environment": environment,
        "extra": [name for name in ("surrogate_module",) if importlib.util.find_spec(name)],
    }
"""

# A host: starts one child as the library does, with plain pipes, and prints what it says.
HOST = """
import json, os, subprocess, sys
from orchestrator import _launch

def main():
    options = json.loads(os.environ.pop("TEST_OPTIONS"))
    sys.path += [os.fsdecode(bytes.fromhex(entry)) for entry in options["paths"]]
    command = options["command"]
    launch = _launch.describe(command)
    child = subprocess.Popen(
        launch.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=options["cwd"],
        env=_launch.environment(None, None, "generation-1", command=command),
    )
    job = {"type": "job", "fence": 1, "target": "probe:look"}
    frames = [{"type": "init", "version": 1}, job]
    child.stdin.write(_launch.preamble("nonce-1", own=command is None))
    child.stdin.write("".join(json.dumps(frame) + "\\n" for frame in frames).encode())
    child.stdin.flush()
    for line in child.stdout:
        print(line.decode(), end="")
        if json.loads(line)["type"] in ("result", "error", "bye"):
            break
    child.stdin.close()
    child.stdout.close()
    print(json.dumps({"exit": child.wait(), "path": [os.fsencode(entry).hex() for entry in sys.path]}))
"""


def run_host(
    command: Sequence[str | os.PathLike[str]],
    *,
    given: Sequence[str] | None = None,
    cwd: str | None = None,
    paths: Sequence[bytes] = (),
    environment: Mapping[str, str] | None = None,
    host_cwd: Path | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the child's frames, and what the host said of itself."""
    options = {"command": given, "cwd": cwd, "paths": [path.hex() for path in paths]}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=host_cwd,
        env={**os.environ, **(environment or {}), "TEST_OPTIONS": json.dumps(options)},
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr.decode()
    *frames, host = [json.loads(line) for line in done.stdout.splitlines()]
    return frames, host


def answer(frames: list[dict[str, Any]]) -> dict[str, Any]:
    hello = frames[0]
    assert hello["type"] == "hello" and hello["nonce"] == "nonce-1"
    assert frames[-1]["type"] == "result", frames[-1]
    value: dict[str, Any] = frames[-1]["value"]
    assert value["environment"]["ORCHESTRATOR_MARKER"] == "generation-1"
    # Nobody else's search path is changed.
    assert value["grandchild_environment"].get("PYTHONPATH") == os.environ.get("PYTHONPATH")
    return value


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with a host's script and the module of its target."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "probe.py").write_text(PROBE)
    (folder / "host.py").write_text(HOST)
    (folder / "run.py").write_text("import host\nhost.main()\n")
    return folder


def test_virtual_environment(app: Path) -> None:
    frames, host = run_host([sys.executable, app / "run.py"])
    value = answer(frames)
    assert value["path"] == host["path"]
    assert value["executable"] == sys.executable
    assert str(app) not in value["grandchild_path"]


def test_another_current_folder(app: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "probe.py").write_text("raise AssertionError('the wrong one')\n")
    frames, _ = run_host([sys.executable, "-c", "import host; host.main()"], cwd=str(elsewhere), host_cwd=app)
    value = answer(frames)
    assert value["cwd"] == str(elsewhere)


def test_module(app: Path) -> None:
    frames, _ = run_host([sys.executable, "-m", "run"], host_cwd=app, cwd="/")
    answer(frames)


def test_isolated(app: Path) -> None:
    # Isolated: neither the script's folder nor PYTHONPATH is on sys.path.
    code = f"import sys; sys.path += {[str(app), str(LIBRARY)]!r}; import host; host.main()"
    frames, _ = run_host([sys.executable, "-I", "-c", code], environment={"PYTHONPATH": "/nowhere"})
    assert frames[-1]["value"]["isolated"] == 1
    assert str(app).encode().hex() in frames[-1]["value"]["path"]
    assert b"/nowhere".hex() not in frames[-1]["value"]["path"]


@pytest.mark.parametrize("bundled", [False, True])
def test_zipapp(app: Path, tmp_path: Path, bundled: bool) -> None:
    (app / "run.py").rename(app / "__main__.py")
    if bundled:
        shutil.copytree(
            LIBRARY / "orchestrator", app / "orchestrator", ignore=shutil.ignore_patterns("__pycache__", "cli")
        )
    archive = tmp_path / "app.pyz"
    zipapp.create_archive(app, archive)
    # Started by a relative name, and the child somewhere else.
    frames, _ = run_host([sys.executable, "app.pyz"], host_cwd=tmp_path, cwd="/")
    value = answer(frames)
    assert bytes.fromhex(value["path"][0]).decode() == str(archive)


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are not UTF-8")
def test_paths_of_any_bytes(app: Path, tmp_path: Path) -> None:
    accented = os.fsencode(tmp_path) + "/ünï".encode()
    strange = os.fsencode(tmp_path) + b"/\xff\xfe"
    for folder in (accented, strange):
        os.mkdir(folder)
    with open(os.path.join(strange, b"surrogate_module.py"), "wb"):
        pass
    for locale in ("C", "C.UTF-8"):
        frames, host = run_host(
            [sys.executable, app / "run.py"], paths=[accented, strange], environment={"LC_ALL": locale}
        )
        value = answer(frames)
        assert value["path"] == host["path"]
        assert value["extra"] == ["surrogate_module"]


def another_python() -> str:
    """Return a Python of another version that can be a child."""
    siblings = Path(sys.base_prefix).parent
    found = [path for path in siblings.glob("*/bin/python3.*") if re.fullmatch(r"python3\.\d+", path.name)]
    found += [Path(path) for minor in range(11, 16) if (path := shutil.which(f"python3.{minor}"))]
    for path in sorted(found):
        minor = int(path.name.removeprefix("python3."))
        if minor >= 11 and minor != sys.version_info.minor and path.parent.parent != Path(sys.base_prefix):
            code = "import sys; print(sys.executable)"
            done = subprocess.run([path, "-I", "-c", code], stdout=subprocess.PIPE, timeout=DEADLINE)
            if done.returncode == 0:
                return done.stdout.decode().strip()
    pytest.skip("there is no second Python from 3.11 on here")


def test_another_python(app: Path) -> None:
    other = another_python()
    frames, host = run_host([sys.executable, app / "run.py"], given=[other], cwd="/", host_cwd=app)
    value = answer(frames)
    assert value["version"] != list(sys.version_info[:2])
    path = [bytes.fromhex(entry).decode() for entry in value["path"]]
    # Its own packages, and not one folder of ours but the script's.
    assert str(app) in path
    assert not any(os.path.basename(entry) == "site-packages" and entry.startswith(sys.prefix) for entry in path)
    inherited = set(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    assert set(path) & {bytes.fromhex(entry).decode() for entry in host["path"]} - inherited == {str(app)}


def test_python_named_in_the_environment(app: Path) -> None:
    other = another_python()
    words = json.dumps([other, "-X", "dev"])
    frames, _ = run_host([sys.executable, app / "run.py"], environment={"ORCHESTRATOR_CHILD_COMMAND": words})
    assert answer(frames)["version"] != list(sys.version_info[:2])


def test_child_without_preamble_ends() -> None:
    from orchestrator import _launch

    for first in (b"", b"0000", b"000000ff", b"000000ffabc"):
        done = subprocess.run(_launch.describe().command, input=first, timeout=DEADLINE, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (113, b"", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="a script that is a program")
@pytest.mark.parametrize("is_armed", [True, False])
def test_frozen_app(app: Path, is_armed: bool) -> None:
    # What a freezer makes, as far as the launch sees it: sys.executable is the program itself.
    program = app / "program"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "os.write(2, b'started\\n')\n"
        f"sys.frozen, sys.executable = True, {str(program)!r}\n"
        + ("from orchestrator import _frozen\n_frozen.freeze_support()\n" if is_armed else "")
        + "from orchestrator.exceptions import SelfSpawnError\n"
        "import host\n"
        "sys.modules.pop('__main__', None)\n"
        "try:\n"
        "    host.main()\n"
        "except SelfSpawnError as error:\n"
        "    print(error)\n"
    )
    program.chmod(0o755)
    # The probe starts sys.executable as if it were Python: in a frozen app that is the app.
    (app / "probe.py").write_text("import os, sys\ndef look(): return [sys.argv, dict(os.environ), sys.executable]\n")
    options = json.dumps({"command": None, "cwd": None, "paths": []})
    done = subprocess.run(
        [program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "TEST_OPTIONS": options, "_PYI_ARCHIVE_FILE": "x"},
        timeout=DEADLINE,
    )
    if not is_armed:
        assert done.stderr == b"started\n"
        assert b"freeze_support" in done.stdout
        return
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b"started\nstarted\n"
    hello, *_, result, host = [json.loads(line) for line in done.stdout.splitlines()]
    assert (hello["type"], hello["nonce"], host["exit"]) == ("hello", "nonce-1", 113)
    argv, environment, executable = result["value"]
    assert (argv, executable) == ([str(program)], str(program))
    assert not {"ORCHESTRATOR_CHILD", "_PYI_ARCHIVE_FILE"} & set(environment)


@pytest.mark.parametrize("with_flag", [True, False])
def test_half_a_child_ends_instead_of_running_the_app(with_flag: bool) -> None:
    code = "from orchestrator._frozen import freeze_support; freeze_support(); print('the app runs')"
    arguments, environment = (["--orchestrator-child=x"], {}) if with_flag else ([], {"ORCHESTRATOR_CHILD": "x"})
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=DEADLINE,
        cwd=LIBRARY,
    )
    assert done.returncode == (64 if with_flag else 65)
    assert (done.stdout, done.stderr.startswith(b"orchestrator: ")) == (b"", True)


@pytest.mark.parametrize("preamble", [False, True])
def test_a_child_whose_supervisor_is_gone_at_once_removes_their_empty_folders(tmp_path: Path, preamble: bool) -> None:
    folder = tmp_path / "orchestrator-x" / "w1-1"
    folder.mkdir(parents=True)
    launch = _launch.describe()
    given = _launch.preamble("nonce") if preamble else b""
    env = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(launch.command, input=given, env=env, capture_output=True, timeout=30, check=False)
    assert done.returncode == 113
    assert list(tmp_path.iterdir()) == []
