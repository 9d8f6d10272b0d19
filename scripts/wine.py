"""Run tests in a Python for Windows under Wine: `scripts/wine.py tests/unit/test_killset.py …`; sets it up first.

Wants Debian's packages `wine`, `wine64` and `gcc-mingw-w64-x86-64-win32`, and a Python 3.11 whose library it copies.
The interpreter itself is taken from Panda3D's wheel, which carries the files of python.org's.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEEL = "panda3d==1.10.15"  # Python 3.11.9
PACKAGES = (
    "anyio aiolimiter structlog msgspec psutil typer rich pytest pytest-asyncio hypothesis httpx starlette".split()
)
FOR_WINDOWS = "--platform win_amd64 --python-version 3.11 --only-binary=:all: --quiet".split()
LAUNCHER = """
#include <windows.h>
typedef int (*Main)(int, wchar_t **);
int wmain(int argc, wchar_t **argv) {
    return ((Main)GetProcAddress(LoadLibraryW(L"python311.dll"), "Py_Main"))(argc, argv);
}
"""
ENTRY = "int __stdcall DllMainCRTStartup(void *a, unsigned b, void *c) { return 1; }"
COMPILER = "x86_64-w64-mingw32-gcc"


def main() -> int:
    """Set up what is missing, run pytest and return its exit code."""
    parser = argparse.ArgumentParser(prog="wine.py", description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir(), "orchestrator-wine"), metavar="FOLDER")
    options, arguments = parser.parse_known_args()
    for program in ("wine", COMPILER):
        if shutil.which(program) is None:
            sys.exit(f"wine.py: there is no {program}; apt-get install wine wine64 gcc-mingw-w64-x86-64-win32")
    home = options.home.resolve()
    environment = {
        **os.environ,
        "WINEPREFIX": str(home / "prefix"),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree,mshtml=",
        "PYTHONPYCACHEPREFIX": _there(home / "cache"),  # files of the tree would name paths of Windows
    }
    if not (home / "done").exists():
        _set_up(home, environment)
    config = ["-p", "no:cacheprovider", "--rootdir", _there(ROOT), "-c", _there(ROOT / "pyproject.toml")]
    paths = [_there(ROOT / each) if each.startswith("tests") else each for each in arguments]
    command = ["wine", str(home / "python/python.exe"), "-m", "pytest", *config, *paths]
    # Its output must be a pipe: with a file the interpreter does not start.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line.decode("utf-8", "replace"))
            sys.stdout.flush()
    return process.returncode


def _there(path: Path) -> str:
    """Return a path as Windows has it."""
    return "Z:" + str(path).replace("/", "\\")


def _set_up(home: Path, environment: dict[str, str]) -> None:
    if sys.version_info[:2] != (3, 11):
        sys.exit("wine.py: its library is copied, so run this with a Python 3.11")
    python = home / "python"
    shutil.rmtree(home, ignore_errors=True)
    python.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip"]
    _run([*pip, "download", "--no-deps", *FOR_WINDOWS, "--dest", str(home), WHEEL])
    with zipfile.ZipFile(next(home.glob("*.whl"))) as wheel:
        for name in wheel.namelist():
            base = os.path.basename(name)
            # Wine has its own of the C runtime.
            if name.startswith("deploy_libs/") and base and not base.startswith("api-ms-win-crt-"):
                (python / base).write_bytes(wheel.read(name))
    away = shutil.ignore_patterns("lib-dynload", "test", "site-packages", "__pycache__")
    shutil.copytree(sysconfig.get_path("stdlib"), python / "Lib", ignore=away)
    packages = python / "Lib/site-packages"
    _run([*pip, "install", *FOR_WINDOWS, "--target", str(packages), *PACKAGES])
    (packages / "here.pth").write_text(f"{_there(ROOT)}\n{_there(ROOT / 'tests/targets')}\n")
    (home / "launcher.c").write_text(LAUNCHER)
    _run([COMPILER, "-O1", "-municode", "-o", str(python / "python.exe"), str(home / "launcher.c")])
    # python3.dll, which the wheel has not: it passes all calls on.
    dump = subprocess.run(
        ["x86_64-w64-mingw32-objdump", "-p", str(python / "python311.dll")], check=True, capture_output=True, text=True
    ).stdout
    table = dump.partition("[Ordinal/Name Pointer] Table")[2].splitlines()
    names = [line.split()[-1] for line in table if line.split() and line.split()[-1].lstrip("_").startswith("Py")]
    (home / "python3.def").write_text(
        "\n".join(["LIBRARY python3.dll", "EXPORTS", *(f"{name} = python311.{name}" for name in names)])
    )
    (home / "entry.c").write_text(ENTRY)
    sources = [str(home / "entry.c"), str(home / "python3.def")]
    _run([COMPILER, "-shared", "-nostdlib", "-o", str(python / "python3.dll"), *sources])
    for command in (["wineboot", "-i"], ["winecfg", "-v", "win10"]):
        _run(command, environment)
    (home / "done").touch()


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=environment)


if __name__ == "__main__":
    sys.exit(main())
