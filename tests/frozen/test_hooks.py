"""A plain `pyinstaller app.py` of an app that knows nothing of freezing: its children, and what they import late."""

from __future__ import annotations

import pytest
from freezing import Builder, run

JOBS = """\
from __future__ import annotations
import dataclasses, os, sys
from orchestrator import child

@dataclasses.dataclass
class Pin:
    title: str

def double(number):
    return 2 * number

def shout(pin: Pin, progress) -> Pin:
    progress(pin.title)
    child.progress(1, 2)
    with child.permit("api"):
        return Pin(child.cache("titles").get_or_compute(pin.title, pin.title.upper))

async def whisper(text):
    import asyncio
    await asyncio.sleep(0)
    return text.lower()

def where():
    # Only the app's own process has the loader's variables, and everything that it prints has a place.
    print("printed by a job")
    return [name for name in os.environ if name.startswith("_PYI_")], sys.executable, getattr(sys, "frozen", False)
"""
NAMED = """\
def wash(plates):
    return [plate + " is clean" for plate in plates]
"""
# Everything that is imported late, on both sides.
APP = """\
import sys
import tempfile
import jobs
from orchestrator import BlockingSupervisor, Job, Journal, Limit, callback

def main():
    heard = []
    with tempfile.TemporaryDirectory() as folder:
        with BlockingSupervisor(
            workers=2, limits=[Limit("api", rate=600, per=60)], journal=Journal(folder + "/journal.sqlite")
        ) as supervisor:
            say("answer", supervisor.run(jobs.double, 21))
            say("pin", supervisor.run(jobs.shout, jobs.Pin("tea"), progress=callback(heard.append)).title, heard)
            say("async", supervisor.run(jobs.whisper, "TEA"))
            say("string", supervisor.run("chores_of_app.dishes:wash", ["cup"]))
            say("map", sorted(outcome.value for outcome in supervisor.map(Job(jobs.double), [1, 2, 3])))
            left, executable, frozen = supervisor.run(jobs.where)
            say("child", left, executable == sys.executable, frozen)

def say(*words):
    if sys.stdout is not None:
        print(*words, flush=True)

if __name__ == "__main__":
    main()
"""
SAID = """\
answer 42
pin TEA ['tea']
async tea
string ['cup is clean']
map [2, 4, 6]
child [] True True
"""
FILES = {
    "app.py": APP,
    "jobs.py": JOBS,
    "chores_of_app/__init__.py": "",
    "chores_of_app/dishes.py": NAMED,
    "pyproject.toml": '[tool.orchestrator.pyinstaller]\nmodules = ["chores_of_app"]\n',
}


@pytest.mark.parametrize("options", [(), ("--onefile",), ("--onedir", "--windowed")], ids=" ".join)
def test_jobs_run_in_children_with_no_change_to_the_app(build: Builder, options: tuple[str, ...]) -> None:
    program = build(FILES, *options)
    done = run(program)
    assert (done.returncode, done.stdout) == (0, SAID), done.stderr
    # The command line, the tests' help and what they bring are no part of it.
    size = sum(path.stat().st_size for path in program.parent.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < (60e6 if not options or options[0] == "--onedir" else 25e6), build.logs[program]
