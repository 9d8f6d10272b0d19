"""Pin the requirement sets, with hashes, for all supported Pythons and systems; `--upgrade` takes newer versions."""

import _venv

_venv.enter("runtime")

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

UV = "uv==0.13.*"
# What `pip install --no-build-isolation --editable` needs beside the build backend that pyproject.toml names.
EDITABLE = ["editables"]
# The other process pools that scripts/bench.py measures.
PEERS = ["aiomultiprocess", "loky", "pebble", "trio-parallel", "uvloop; sys_platform != 'win32'"]
# What the worked example of a batch adds: a small model of embeddings within its package, and the records.
EXAMPLE = ["wordllama>=0.4", "emoji>=2.15"]
# What the demo's second part adds: the pin board, beside the browser's driver, which is an extra.
BOARD = ["starlette>=0.48", "uvicorn>=0.37", "python-multipart>=0.0.18"]
# What tests run as people do, in an environment of its own: it would bind the versions of everything else.
DVC = ["dvc>=3.60"]
# An index, a file or a folder of this machine has no place in what everybody installs from.
FOREIGN = re.compile(r"://|\bfile:|--\w*-?index|--find-links|^\s*[/~]|[A-Za-z]:\\", re.MULTILINE)


def main() -> int:
    """Write the files; the sets after the first take its versions where they share a package."""
    parser = argparse.ArgumentParser(prog="lock.py", description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions, not the ones pinned so far")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    project = tomllib.loads((_venv.ROOT / "pyproject.toml").read_text("utf-8"))
    build = [*project["build-system"]["requires"], *EDITABLE]
    with tempfile.TemporaryDirectory() as scratch:
        uv = _install_uv(Path(scratch))
        _pin(uv, "dev", build, ["--extra", "dev", *upgrade])
        _pin(uv, "runtime", build, ["--constraints", "requirements/dev.txt"])
        _pin(uv, "demo", [*build, *BOARD], ["--extra", "publisher", "--constraints", "requirements/dev.txt"])
        extras = ["--extra", "playwright", "--extra", "streamlit", "--extra", "pyinstaller"]
        _pin(uv, "bench", [*build, *PEERS], [*extras, "--constraints", "requirements/dev.txt", *upgrade])
        extras = ["--extra", "batch", "--extra", "gemini"]
        _pin(uv, "llm", [*build, *EXAMPLE], [*extras, "--constraints", "requirements/dev.txt", *upgrade])
        _pin(uv, "dvc", DVC, upgrade, project=False)
    return 0


def _install_uv(scratch: Path) -> Path:
    venv.create(scratch, with_pip=True)
    subprocess.run([_venv.python_of(scratch), "-I", "-m", "pip", "install", "--quiet", UV], check=True)
    return _venv.python_of(scratch).with_name("uv.exe" if sys.platform == "win32" else "uv")


def _pin(uv: Path, name: str, extra: list[str], options: list[str], *, project: bool = True) -> None:
    target = f"requirements/{name}.txt"
    fixed = ["--no-config", "--universal", "--python-version", "3.11", "--generate-hashes", "--quiet"]
    wanted = ["pyproject.toml"] if project else []
    silent = ["--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    subprocess.run(
        [uv, "pip", "compile", *fixed, *silent, *options, *wanted, "-", "--output-file", target],
        cwd=_venv.ROOT,
        input="\n".join(extra).encode(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    text = (_venv.ROOT / target).read_text("utf-8")
    found = FOREIGN.search(text)
    if found:
        sys.exit(f"Error: {target} names an index or a place on this machine: {found.group()!r}")
    packages = re.findall(r"^[\w.-]+==", text, re.MULTILINE)
    print(f"{target}: {len(packages)} packages")


if __name__ == "__main__":
    sys.exit(main())
