"""Functions of the main program: they run, from a script or a `-m` module, and nothing ever starts itself anew."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

GOOD = """
    import asyncio, os, sys
    from dataclasses import dataclass
    from orchestrator import Supervisor, child

    print("loaded as", __name__, flush=True)

    @dataclass
    class Point:
        x: int

    class Oops(Exception):
        pass

    def double(number):
        return 2 * number

    def move(point: Point) -> Point:
        return Point(point.x + 1)

    def fail():
        raise Oops("of main")

    async def add(a, b):
        return a + b

    async def main():
        async with Supervisor(workers=2) as supervisor:
            print(await supervisor.run(double, 21))
            print(await supervisor.run(add, 1, 2))
            print(await supervisor.run("__main__:double", 4))
            print(await supervisor.run(move, Point(1)))
            try:
                await supervisor.run(fail)
            except Exception as error:
                print(error.error.type, error.error.message)

    if __name__ == "__main__":
        asyncio.run(main())
"""

WITHOUT_GUARD = """
    import asyncio, os
    from orchestrator import Supervisor

    with open(os.environ["COUNT"], "ab") as file:
        file.write(b"x")

    def double(number):
        return 2 * number

    async def main():
        async with Supervisor(workers=2) as supervisor:
            print(await supervisor.run(double, 21))

    asyncio.run(main())
"""

BLOCKING_WITHOUT_GUARD = """
    import os
    from orchestrator import BlockingSupervisor

    with open(os.environ["COUNT"], "ab") as file:
        file.write(b"x")

    def double(number):
        return 2 * number

    with BlockingSupervisor(workers=1) as supervisor:
        print(supervisor.run(double, 21))
"""

IMPORTED_ONLY = """
    import asyncio, os
    from orchestrator import Supervisor

    with open(os.environ["COUNT"], "ab") as file:
        file.write(b"x")

    async def main():
        async with Supervisor(workers=2) as supervisor:
            print(await supervisor.run("math:gcd", 12, 18))

    asyncio.run(main())
"""


def run(tmp_path: Path, source: str, *command: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "program.py").write_text(textwrap.dedent(source))

    env = {**os.environ, "COUNT": str(tmp_path / "count")}
    return subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", [["program.py"], ["-m", "program"], ["-B", "./program.py"], ["-I", "program.py"]])
def test_functions_of_main_run(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, GOOD, *command)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "loaded as __main__"
    assert [line for line in lines[1:] if "loaded" not in line] == [
        "42",
        "3",
        "8",
        "Point(x=2)",
        "__main__.Oops of main",
    ]
    assert "loaded as __main__" not in lines[1:]


def test_a_package_run_with_m(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jobs.py").write_text("FACTOR = 3\n")
    (package / "__main__.py").write_text(
        textwrap.dedent("""
            import asyncio
            from orchestrator import Supervisor
            from .jobs import FACTOR

            def triple(number):
                return FACTOR * number

            async def main():
                async with Supervisor(workers=1) as supervisor:
                    print(await supervisor.run(triple, 5))

            if __name__ == "__main__":
                asyncio.run(main())
        """)
    )
    done = run(tmp_path, "", "-m", "package")
    assert (done.returncode, done.stdout) == (0, "15\n"), done.stderr


@pytest.mark.parametrize("source", [WITHOUT_GUARD, BLOCKING_WITHOUT_GUARD])
def test_a_main_script_without_a_guard_never_recurses(tmp_path: Path, source: str) -> None:
    start = time.monotonic()
    done = run(tmp_path, source, "program.py")
    assert done.returncode == 1
    assert "42" not in done.stdout
    line = 1 + next(
        number
        for number, text in enumerate(textwrap.dedent(source).splitlines())
        if "with Supervisor" in text or "with BlockingSupervisor" in text
    )
    assert f'program.py", line {line}' in done.stderr or f"program.py:{line}" in done.stderr, done.stderr
    assert 'if __name__ == "__main__"' in done.stderr
    assert (tmp_path / "count").read_bytes() in (b"xx", b"xxx")  # the program, and one load a child
    assert time.monotonic() - start < 30


def test_a_program_whose_targets_are_elsewhere_is_not_loaded_again(tmp_path: Path) -> None:
    done = run(tmp_path, IMPORTED_ONLY, "program.py")
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr
    assert (tmp_path / "count").read_bytes() == b"x"


@pytest.mark.parametrize("command", [["-c"], ["-"]])
def test_functions_that_were_typed_in_are_refused(tmp_path: Path, command: list[str]) -> None:
    source = textwrap.dedent(GOOD)
    done = subprocess.run(
        [sys.executable, *command, *([source] if command == ["-c"] else [])],
        input=source,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "move double to a module" in done.stderr
