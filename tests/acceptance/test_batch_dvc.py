"""A batch as a stage of DVC, started by npm: as the guide shows it, with a crash in the middle, and with Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shells, signals and process groups of POSIX")

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "howto" / "batch-pipelines.md").read_text("utf-8")
DEADLINE = 60.0
RECORDS = 24
# DVC runs a stage in this shell. bash becomes the command; dash waits beside it and dies of the Ctrl-C itself.
SHELL = shutil.which("bash")
INTERRUPTED = "exited with 130" if SHELL else "exited with -2"
HELD = 12  # records after this one wait until they are let go

HANDLERS = f"""
import os
import time

from orchestrator import child


def enrich(record):
    while record["id"] > {HELD} and not os.path.exists("go"):
        time.sleep(0.01)
    with child.permit("api"):
        pass
    # One write: lines of several children do not mix.
    with open("calls.log", "a") as log:
        log.write(f"{{record['id']}}\\n")
    return {{**record, "model": child.params()["llm"]["model"]}}
"""


def file_of_guide(name: str) -> str:
    """Return a file as the guide shows it."""
    found = re.search(rf'^```\w+ title="{re.escape(name)}"\n(.*?)^```$', GUIDE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"the guide shows no {name}"
    return found[1]


@pytest.fixture(scope="module")
def tools() -> str:
    """Return a PATH with this project's commands and DVC."""
    script = [sys.executable, str(ROOT / "scripts" / "dvc.py"), "--version"]
    done = subprocess.run(script, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    # This project's environment first: DVC's has a Python too, which stages must not get.
    return os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / ".venv-dvc" / "bin"), os.environ["PATH"]])


class Started:
    """A command in a process group of its own, with what it writes read as it comes."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        # Python starts with Ctrl-C ignored when its parent had it ignored, as background commands of a shell have.
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
        self.text = ""
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._arrived:
                self.text += line.decode()
                self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until it has written this."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: text in self.text, DEADLINE), f"no {text!r} in:\n{self.text}"

    def find(self, *words: str) -> psutil.Process:
        """Return the one process below it whose command begins with a Python and has these words."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        (found,) = (
            each
            for each in below
            if "python" in each.cmdline()[0] and all(any(word in part for part in each.cmdline()) for word in words)
        )
        return found

    def end(self) -> int:
        """Return its exit code; it has ended then, and nobody writes any more."""
        assert self.process.stdout is not None
        try:
            code = self.process.wait(DEADLINE)
            self._reader.join(DEADLINE)
            assert not self._reader.is_alive(), f"somebody still has the pipe after:\n{self.text}"
            return code
        finally:
            self.kill()

    def kill(self) -> None:
        """Leave nothing of it, whatever a test came to."""
        assert self.process.stdout is not None
        if self.process.returncode is None or self._reader.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()


class Pipeline:
    """A folder with the guide's pipeline and a handler that counts its calls."""

    def __init__(self, folder: Path, path: str) -> None:
        self.folder = folder
        self.started: list[Started] = []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "npm_"))}
        self.environment = {
            **inherited,
            "PATH": path,
            "SHELL": SHELL or "/bin/sh",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(folder / "site-cache"),
            "DVC_GLOBAL_CONFIG_DIR": str(folder / "global-config"),
            "npm_config_update_notifier": "false",
            "npm_config_cache": str(folder / "npm-cache"),
            "NO_COLOR": "1",
        }
        # No test asks the network for newer versions.
        (folder / "global-config").mkdir()
        (folder / "global-config" / "config").write_text("[core]\n    check_update = false\n    analytics = false\n")
        for name in ("params.yaml", "dvc.yaml", "package.json", "enrich.py"):
            (folder / name).write_text(file_of_guide(name), "utf-8")
        (folder / "handlers.py").write_text(HANDLERS, "utf-8")
        rows = [json.dumps({"id": number}) for number in range(1, RECORDS + 1)]
        (folder / "reviews.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
        self.run("dvc", "init", "--no-scm", "--quiet")

    def start(self, *command: str) -> Started:
        self.started.append(Started([*command], self.folder, self.environment))
        return self.started[-1]

    def run(self, *command: str) -> str:
        """Run a command that succeeds, and return what it wrote."""
        code, text = self.ended(*command)
        assert code == 0, text
        return text

    def ended(self, *command: str) -> tuple[int, str]:
        """Run a command and return its exit code and what it wrote."""
        started = self.start(*command)
        return started.end(), started.text

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text("utf-8")
        assert old in text
        (self.folder / name).write_text(text.replace(old, new), "utf-8")

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def as_script(self) -> None:
        """Let the stage run the guide's script, not our command."""
        head, _, tail = (self.folder / "dvc.yaml").read_text("utf-8").partition("    cmd: >-\n")
        rest = tail[tail.index("    deps:") :]
        (self.folder / "dvc.yaml").write_text(f"{head}    cmd: python enrich.py $BATCH_FLAGS\n{rest}", "utf-8")

    @property
    def calls(self) -> Counter[int]:
        """How often the handler came to its end for each record."""
        log = self.folder / "calls.log"
        return Counter(map(int, log.read_text().split())) if log.exists() else Counter()

    @property
    def output(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.folder / "out.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture
def pipeline(tmp_path: Path, tools: str) -> Iterator[Pipeline]:
    pipeline = Pipeline(tmp_path, tools)
    yield pipeline
    for started in pipeline.started:
        started.kill()


ALL = range(1, RECORDS + 1)
ONCE = Counter(dict.fromkeys(ALL, 1))


def whole(model: str) -> list[dict[str, object]]:
    return [{"id": number, "model": model} for number in ALL]


def test_a_crash_between_two_runs_costs_nothing_that_was_done(pipeline: Pipeline) -> None:
    first = pipeline.start("dvc", "repro")
    # A record is counted when its result is safe; all others wait.
    first.wait_for(f"Progress: {HELD}/{RECORDS} ")
    first.find("batch", "run").kill()
    assert first.end() != 0
    assert not (pipeline.folder / "out.jsonl").exists()
    assert pipeline.calls == Counter(dict.fromkeys(range(1, HELD + 1), 1))

    pipeline.let_go()
    second = pipeline.run("dvc", "repro")
    assert f"resumed {HELD}" in second
    assert pipeline.output == whole("kind")
    assert pipeline.calls == ONCE
    numbers = json.loads((pipeline.folder / "metrics.json").read_text("utf-8"))
    assert numbers["total"] == numbers["successful"] == RECORDS
    assert "out.jsonl" in (pipeline.folder / "dvc.lock").read_text("utf-8")


def test_only_what_changes_results_repeats_the_stage(pipeline: Pipeline) -> None:
    pipeline.let_go()
    pipeline.run("dvc", "repro")
    assert "didn't change, skipping" in pipeline.run("dvc", "repro")
    pipeline.edit("params.yaml", "worker_count: 2", "worker_count: 3")
    pipeline.edit("params.yaml", "rate: 50", "rate: 40")
    assert "didn't change, skipping" in pipeline.run("dvc", "repro")
    assert pipeline.calls == ONCE

    pipeline.edit("params.yaml", "model: kind", "model: strict")
    text = pipeline.run("dvc", "repro")
    assert f"Progress: {RECORDS}/{RECORDS} (100.0%)" in text
    assert pipeline.output == whole("strict")
    assert pipeline.calls == Counter(dict.fromkeys(ALL, 2))


def test_what_dvc_removes_comes_back_without_a_call(pipeline: Pipeline) -> None:
    pipeline.let_go()
    pipeline.run("dvc", "repro")
    pipeline.run("dvc", "repro", "--force")  # removes the output first
    assert pipeline.output == whole("kind")
    assert pipeline.calls == ONCE


def test_a_failed_record_fails_the_stage_and_tells_the_code(pipeline: Pipeline) -> None:
    pipeline.let_go()
    pipeline.edit("handlers.py", "with child.permit", "assert record['id'] != 7\n    with child.permit")
    code, text = pipeline.ended("dvc", "repro")
    assert code == 255
    assert "exited with 1" in text
    assert f"{RECORDS - 1} successful, 1 failed" in text
    (line,) = (pipeline.folder / "failed.jsonl").read_text("utf-8").splitlines()
    assert (json.loads(line)["number"], json.loads(line)["class"]) == (7, "permanent")


# npm → DVC → a script

# Our servers have it: there a missing npm is an error.
without_npm = shutil.which("npm") is None and not os.environ.get("CI")
needs_npm = pytest.mark.skipif(without_npm, reason="npm is not installed; nothing else is skipped")


@pytest.fixture
def npm_pipeline(pipeline: Pipeline) -> Iterator[Pipeline]:
    pipeline.as_script()
    return pipeline


@needs_npm
@pytest.mark.parametrize("flag", ["--multiprocessing", "--no-multiprocessing"])
def test_npm_runs_the_stage_and_progress_comes_through_as_it_is_made(npm_pipeline: Pipeline, flag: str) -> None:
    started = npm_pipeline.start("npm", "run", "enrich", "--", flag)
    # The rest still waits: what has come by now was not held back by anybody.
    started.wait_for(f"Progress: {HELD}/{RECORDS} (50.0%) - {HELD} successful, 0 failed (rate: ")
    npm_pipeline.let_go()
    assert started.end() == 0, started.text
    assert f"Progress: {RECORDS}/{RECORDS} (100.0%) - {RECORDS} successful, 0 failed (rate: " in started.text
    assert npm_pipeline.output == whole("kind")
    assert npm_pipeline.calls == ONCE
    numbers = json.loads((npm_pipeline.folder / "metrics.json").read_text("utf-8"))
    places = (numbers["in_children"], numbers["in_process"])
    assert places == ((RECORDS, 0) if flag == "--multiprocessing" else (0, RECORDS))


@needs_npm
def test_npm_fails_when_a_record_fails(npm_pipeline: Pipeline) -> None:
    npm_pipeline.let_go()
    npm_pipeline.edit("handlers.py", "with child.permit", "assert record['id'] != 7\n    with child.permit")
    code, text = npm_pipeline.ended("npm", "run", "enrich", "--", "--multiprocessing")
    assert code == 255, text
    assert "exited with 1" in text


@needs_npm
def test_ctrl_c_ends_npm_dvc_script_and_children(npm_pipeline: Pipeline) -> None:
    started = npm_pipeline.start("npm", "run", "enrich", "--", "--multiprocessing")
    started.wait_for(f"Progress: {HELD}/{RECORDS} ")
    script = started.find("enrich.py")
    family = [script, *script.children(recursive=True)]
    os.killpg(started.process.pid, signal.SIGINT)  # as a terminal does
    assert started.end() != 0
    assert INTERRUPTED in started.text and "Traceback" not in started.text
    gone, left = psutil.wait_procs(family, timeout=DEADLINE)
    assert len(gone) >= 3 and not left
    assert not (npm_pipeline.folder / "out.jsonl").exists()

    npm_pipeline.let_go()
    assert f"resumed {HELD}" in npm_pipeline.run("npm", "run", "enrich", "--", "--multiprocessing")
    assert npm_pipeline.output == whole("kind")
    assert npm_pipeline.calls == ONCE


@needs_npm
def test_ctrl_c_ends_npm_dvc_and_the_command_when_what_runs_is_finished(pipeline: Pipeline) -> None:
    started = pipeline.start("npm", "run", "enrich")
    started.wait_for(f"Progress: {HELD}/{RECORDS} ")
    command = started.find("batch", "run")
    family = [command, *command.children(recursive=True)]
    os.killpg(started.process.pid, signal.SIGINT)
    started.wait_for("SIGINT")
    pipeline.let_go()
    assert started.end() != 0
    assert INTERRUPTED in started.text
    gone, left = psutil.wait_procs(family, timeout=DEADLINE)
    assert len(gone) >= 3 and not left
    assert HELD < pipeline.calls.total() <= RECORDS

    pipeline.run("npm", "run", "enrich")
    assert pipeline.output == whole("kind")
    assert pipeline.calls == ONCE
