"""`orchestrator batch` as a stranger uses it: exit codes, streams, signals, a terminal, and what is said of runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DEADLINE = 60.0
HANDLERS = '''
"""What the tests run; children find this module in the current folder."""

import os
import time

from orchestrator import child


def enrich(record):
    if record.get("print"):
        print("a child says this")
    if record.get("fail"):
        raise ValueError("asked to fail")
    if record.get("die"):
        os._exit(3)
    if record.get("wait"):
        open(f"waiting-{record['id']}", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    child.usage(tokens=2)
    return {**record, "token": len(os.environ.get("TOKEN", ""))}


def kind(error):
    return "transient" if "asked" in str(error) else None
'''
START = (
    # Python starts with Ctrl-C ignored when its parent had it ignored, as background commands of a shell have.
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from orchestrator.cli import main; sys.exit(main())"
)
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


class Started:
    """A command whose stderr is read as it comes."""

    def __init__(self, folder: Path, arguments: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, "batch", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.errors = ""
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._arrived:
                self.errors += line
                self._arrived.notify_all()

    def wait_for(self, text: str) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: text in self.errors, DEADLINE), f"no {text!r} in:\n{self.errors}"

    def end(self) -> int:
        try:
            return self.process.wait(DEADLINE)
        finally:
            self.kill()

    def kill(self) -> None:
        """Leave nothing of it, whatever a test came to."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


class Project:
    """A folder with a handler and an input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Started] = []
        (folder / "handlers.py").write_text(HANDLERS)

    def rows(self, *rows: dict[str, object]) -> None:
        text = "".join(json.dumps({"id": number, **row}) + "\n" for number, row in enumerate(rows, 1))
        (self.folder / "in.jsonl").write_text(text)

    def do(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orchestrator", "batch", *arguments],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=DEADLINE,
            check=False,
        )

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.do(*self.command(*options), **environment)

    def start(self, *options: str) -> Started:
        self.started.append(Started(self.folder, self.command(*options)))
        return self.started[-1]

    def wait_until_one_waits(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while not any(self.folder.glob("waiting-*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)  # another process makes the file

    def command(self, *options: str) -> tuple[str, ...]:
        return ("run", "--target", "handlers:enrich", "--input", "in.jsonl", "--output", "out.jsonl", *options)

    def status(self) -> dict[str, object]:
        done = self.do("status", "--json")
        assert done.returncode == 0, done.stderr
        (state,) = json.loads(done.stdout)["runs"]
        return dict(state)

    @property
    def output(self) -> list[int]:
        return [json.loads(line)["id"] for line in (self.folder / "out.jsonl").read_text().splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    for started in project.started:
        started.kill()


def test_success_is_0_and_says_what_happened_on_stderr_only(project: Project) -> None:
    project.rows({}, {"print": True}, {})
    done = project.run("--secret", "TOKEN", TOKEN="hunter2")
    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("batch out-") and "4 workers" in lines[0]
    assert any("child.line_written a child says this" in line for line in lines)
    assert any(line.startswith("Progress: 3/3 (100.0%) - 3 successful, 0 failed (rate: ") for line in lines)
    assert "3 of 3 records: 3 successful, 0 failed" in done.stderr and "usage: tokens 6" in done.stderr
    assert project.output == [1, 2, 3]
    assert json.loads((project.folder / "out.jsonl").read_text().splitlines()[0])["token"] == 7
    for path in project.folder.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes(), path


def test_secrets_of_the_command_line_are_beside_those_of_the_params(project: Project) -> None:
    (project.folder / "params.yaml").write_text("multiprocessing: {secrets: [TOKEN]}\n")
    project.rows({})
    options = ("--params", "params.yaml", "--progress", "none")
    assert project.run(*options, "--secret", "OTHER", TOKEN="hunter2", OTHER="x").returncode == 0
    assert json.loads((project.folder / "out.jsonl").read_text())["token"] == 7
    done = project.run(*options, "--secret", "OTHER", "--fresh", TOKEN="x")
    assert done.returncode == 2 and "OTHER" in done.stderr.splitlines()[-1]
    done = project.run(*options, "--secret", "OTHER", "--fresh", OTHER="x")
    assert done.returncode == 2 and "TOKEN" in done.stderr.splitlines()[-1]


def test_standard_output_has_nothing_but_results(project: Project) -> None:
    project.rows({"print": True}, {}, {})
    for flag in ("--multiprocessing", "--no-multiprocessing"):
        done = project.run("--output", "-", "--progress", "none", "--fresh", flag)
        assert done.returncode == 0
        assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2, 3]
        assert "a child says this" in done.stderr
        assert "Progress" not in done.stderr


def test_failures_are_1_unless_so_many_may_be(project: Project) -> None:
    project.rows({}, {"fail": True}, {})
    done = project.run("--progress", "none")
    assert done.returncode == 1
    assert "failed records: " in done.stderr
    assert project.output == [1, 3]
    (line,) = (project.folder / "failed.jsonl").read_text().splitlines()
    assert (json.loads(line)["class"], json.loads(line)["message"]) == ("permanent", "asked to fail")
    assert project.run("--max-failures", "1").returncode == 0

    done = project.run("--fresh", "--classify", "handlers:kind", "--failed", "why.jsonl")
    assert done.returncode == 1
    failure = json.loads((project.folder / "why.jsonl").read_text())
    assert (failure["class"], failure["attempts"]) == ("transient", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--progress", "loud"], "--progress: 'loud' is not known; use auto, bar, log or none."),
        (["--params", "nowhere.yaml"], "nowhere.yaml cannot be read: No such file or directory."),
        (["--params", "params.yaml"], "params.yaml, line 2: multiprocessing.worker_cuont: there is no such key"),
        (["--input", "nowhere.jsonl"], "the source 'nowhere.jsonl' cannot be opened: No such file or directory"),
        (["--output", "in.jsonl"], "in.jsonl"),
        (["--output", "nowhere/out.jsonl"], "'nowhere' does not exist; make it first"),
        (["--target", "handlers"], "package.module:function"),
        (["--target", "nowhere:enrich"], "nowhere"),
        (["--target", "handlers:missing"], "missing"),
        (["--secret", "MISSING_TOKEN"], "MISSING_TOKEN"),
        (["--classify", "handlers:missing"], "handlers:missing"),
        (["--max-failures", "-1"], "max"),
        (["--multiprocesing"], "No such option: --multiprocesing"),
    ],
)  # fmt: skip
def test_mistakes_are_2_in_one_sentence_and_start_nothing(options: list[str], message: str, project: Project) -> None:
    project.rows({}, {})
    (project.folder / "params.yaml").write_text("multiprocessing:\n  worker_cuont: 2\n")
    done = project.run(*options)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ") and message in last, done.stderr
    assert "Traceback" not in done.stderr and "Progress" not in done.stderr
    assert not (project.folder / "out.jsonl").exists()


def test_params_without_the_extra_say_what_to_install(project: Project) -> None:
    project.rows({})
    (project.folder / "params.yaml").write_text("llm: {}\n")
    code = "import sys; sys.modules['ruamel.yaml'] = None; from orchestrator.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "batch", *project.command("--params", "params.yaml")],
        cwd=project.folder,
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'subprocess-orchestrator[batch]'" in done.stderr.splitlines()[-1]


@posix
def test_a_second_process_is_refused_and_the_first_untouched(project: Project) -> None:
    project.rows({}, {"wait": True})
    first = project.start("--progress", "none")
    first.wait_for("batch out-")
    second = project.run("--progress", "none")
    assert second.returncode == 75
    assert f"in use by process {first.process.pid}" in second.stderr or sys.platform != "linux"
    # How far it is, as of the last two seconds.
    deadline = time.monotonic() + DEADLINE
    while (state := project.status())["successful"] != 1:
        assert state["state"] == "running" and time.monotonic() < deadline
    assert state["total"] == 2
    for command in ("retry-failed", "export"):
        assert project.do(command).returncode == 75
    (project.folder / "go").touch()
    assert first.end() == 0
    assert project.output == [1, 2]


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupted_once_finishes_what_runs(name: str, project: Project) -> None:
    project.rows(*[{"wait": True}] * 30)
    first = project.start("--progress", "log")
    first.wait_for("batch out-")
    project.wait_until_one_waits()
    first.process.send_signal(signal.Signals[name])
    first.wait_for(name)
    (project.folder / "go").touch()
    assert first.end() == 130
    assert first.errors.endswith("The same command goes on from here.\n")
    assert not (project.folder / "out.jsonl").exists()
    state = project.status()
    assert state["state"] == "unfinished" and state["total"] == 30
    assert 0 < int(str(state["successful"])) < 30
    # The command goes on where it was.
    command = str(state["command"])
    assert command == "orchestrator batch " + " ".join(project.command("--progress", "log"))
    second = project.do(*command.split()[2:])
    assert second.returncode == 0
    assert f"resumed {state['successful']}" in second.stderr
    assert project.output == [*range(1, 31)]


@posix
def test_interrupted_twice_cancels(project: Project) -> None:
    project.rows(*[{"wait": True}] * 30)
    run = project.start("--progress", "none")
    run.wait_for("batch out-")
    project.wait_until_one_waits()
    run.process.send_signal(signal.SIGINT)
    run.wait_for("finishing what runs")
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 130
    assert project.status()["successful"] == 0


@posix
def test_interrupted_three_times_leaves_at_once(project: Project) -> None:
    # A child that does not listen would make a cancel wait for its grace.
    (project.folder / "handlers.py").write_text(
        "import time\n\ndef enrich(record):\n    open(f\"waiting-{record['id']}\", 'w').close()\n"
        "    while True:\n        try:\n            time.sleep(60)\n        except BaseException:\n            pass\n"
    )
    project.rows({})
    run = project.start("--progress", "none")
    project.wait_until_one_waits()
    for text in ("finishing what runs", "cancelling what runs"):
        run.process.send_signal(signal.SIGINT)
        run.wait_for(text)
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 130


def test_failed_records_are_tried_again_by_class(project: Project) -> None:
    project.rows({}, {"fail": True}, {"die": True}, {})
    assert project.run("--progress", "none").returncode == 1
    wrong = project.do("retry-failed", "--class", "posion")
    assert wrong.returncode == 2 and "'posion' is no failure class" in wrong.stderr
    state = project.status()
    assert state["by_class"] == {"permanent": 1, "poison": 1} and state["state"] == "finished"

    done = project.do("retry-failed", "--class", "poison")
    assert done.returncode == 0
    assert "1 failed record is pending again" in done.stdout
    assert "Run them: orchestrator batch run --target handlers:enrich" in done.stdout
    assert project.status()["state"] == "unfinished"
    (project.folder / "handlers.py").write_text("def enrich(record):\n    return {'id': record['id']}\n")
    assert project.run("--progress", "none").returncode == 1  # the other one has still failed
    assert project.output == [1, 3, 4]

    project.do("retry-failed")
    assert project.run("--progress", "none").returncode == 0
    assert project.output == [1, 2, 3, 4]
    assert project.do("retry-failed").stdout.endswith(": 0 failed records are pending again.\n")


def test_what_is_there_is_exported_before_the_end(project: Project) -> None:
    project.rows({}, {"fail": True}, {}, {"fail": True}, {})
    assert project.run("--max-failures", "1", "--progress", "none").returncode == 1
    assert not (project.folder / "out.jsonl").exists()
    done = project.do("export")
    numbers = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert numbers == sorted(numbers) and set(numbers) <= {1, 3, 5}
    done = project.do("export", "--failed", "--output", "why.csv")
    assert done.returncode == 0 and "written to why.csv" in done.stderr
    assert (project.folder / "why.csv").read_text().count("asked to fail") == 2


def test_runs_are_named_where_there_are_several(project: Project) -> None:
    project.rows({})
    assert project.do("status").stdout == "no runs in .orchestrator\n"
    assert project.do("export").returncode == 2
    assert project.run("--name", "one", "--progress", "none").returncode == 0
    assert project.run("--name", "two", "--output", "two.jsonl", "--progress", "none").returncode == 0
    lines = project.do("status").stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["one", "two"]
    done = project.do("export")
    assert done.returncode == 2 and "name one of one, two" in done.stderr
    done = project.do("status", "three")
    assert done.returncode == 2 and "there is no run 'three' in '.orchestrator'; there are one, two" in done.stderr
    assert project.do("export", "two").stdout.count("\n") == 1


def test_a_damaged_journal_is_told_and_touched_by_nobody(project: Project) -> None:
    project.rows({})
    assert project.run("--name", "one", "--progress", "none").returncode == 0
    journal = project.folder / ".orchestrator" / "batch" / "one" / "journal.db"
    journal.write_bytes(b"no database")
    state = project.status()
    assert (state["state"], state["successful"]) == ("unreadable", None) and "is damaged" in str(state["detail"])
    for done in (project.do("export"), project.do("retry-failed"), project.run("--name", "one")):
        assert done.returncode == 2 and "is damaged" in done.stderr.splitlines()[-1]
    assert journal.read_bytes() == b"no database"


@posix
def test_a_terminal_gets_bars(project: Project) -> None:
    import fcntl
    import pty
    import struct
    import termios

    project.rows(*[{}] * 20, {"print": True}, {"fail": True})
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "batch", *project.command()],
        cwd=project.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color"},
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while data := os.read(ours, 65536):
                written += data
        except OSError:
            pass  # how Linux says that the other end is closed
        finally:
            os.close(ours)
        assert process.wait(DEADLINE) == 1
    text = written.decode()
    assert "22/22 (100.0%)" in text and "━" in text
    assert "Progress:" not in text
    assert text.index("a child says this") < text.rindex("22/22")
    assert text.rindex("22 of 22 records") > text.rindex("\x1b[?25h")  # the cursor is back before the last words
