"""`orchestrator run` as a stranger starts it: real children, real pipes, real signals, nothing left behind."""

from __future__ import annotations

import collections
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals, named pipes and terminals of POSIX")

DEADLINE = 30.0
MARKER = "ORCHESTRATOR_TEST_RUN"
JOBS = '''
"""Targets of the tests; children find this module in the current folder."""

import asyncio
import datetime
import os
import signal
import sys


def double(x: int) -> int:
    return 2 * x


def fail(x=None):
    raise ValueError(f"asked to fail with {x}")


def crash():
    os._exit(3)


def crash_by_signal():
    os.kill(os.getpid(), signal.SIGKILL)


def speak(text):
    print(text)
    print(text, file=sys.stderr)
    return text


def day(when: datetime.date, count: int, ratio: float, name: str = "none") -> dict:
    return {"year": when.year, "count": count, "ratio": ratio, "name": name}


def hold(fifo, started="holding"):
    print(started, flush=True)
    with open(fifo) as stream:
        return stream.read()


def stubborn(fifo, started="holding"):
    print(started, flush=True)
    while True:
        try:
            with open(fifo) as stream:
                return stream.read()
        except BaseException:
            print("ignored", flush=True)


def fail_first(path):
    try:
        open(path, "x").close()
    except FileExistsError:
        return "second attempt"
    raise ValueError("first attempt")


def where():
    return os.getcwd()


class Shop:
    def __init__(self, name):
        self.name = name

    def greet(self, who):
        return f"{self.name} greets {who}"


async def slowly(x, counter):
    with open(counter, "a") as stream:
        stream.write("+")
    await asyncio.sleep(0.01)
    with open(counter, "a") as stream:
        stream.write("-")
    return x
'''


class Run:
    """One `orchestrator run`, with its stderr read as it comes."""

    def __init__(self, folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
        # Python starts with Ctrl-C ignored when its parent had it ignored, as background commands of a shell have.
        start = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from orchestrator.cli import main; sys.exit(main())"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", start, "run", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.errors: list[str] = []
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read_errors)
        self._reader.start()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._arrived:
                self.errors.append(line.decode())
                self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until stderr had so many lines with the text."""
        with self._arrived:
            found = self._arrived.wait_for(lambda: sum(text in line for line in self.errors) >= count, DEADLINE)
        assert found, f"no {text!r} in {''.join(self.errors)}"

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read_outcome(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
        assert ready, f"no outcome; stderr: {''.join(self.errors)}"
        outcome = json.loads(self.process.stdout.readline())
        assert isinstance(outcome, dict)
        return outcome

    def finish(self) -> tuple[int, list[dict[str, Any]], str]:
        """Close stdin, wait for the end, and return exit code, outcomes and stderr."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        out = self.process.stdout.read()
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code, [json.loads(line) for line in out.splitlines()], "".join(self.errors)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass


def marked(mark: str) -> list[psutil.Process]:
    """Return every process that has inherited our mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until_gone(mark: str, seconds: float) -> list[psutil.Process]:
    """Wait until no marked process is left; return those that are."""
    return psutil.wait_procs(marked(mark), seconds)[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(JOBS)
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    mark = uuid.uuid4().hex
    yield {**os.environ, MARKER: mark, "PYTHONWARNINGS": "error"}
    # A supervisor that was killed leaves nothing for longer than three seconds; one that ended, nothing at all.
    left = wait_until_gone(mark, 3.0)
    commands = [process.cmdline() for process in left]
    for process in left:
        process.kill()
    assert commands == []


@pytest.fixture
def start(folder: Path, environment: dict[str, str]) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start_run(*arguments: str, lines: list[Any] | None = None) -> Run:
        if lines is not None:
            text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
            (folder / "in.jsonl").write_text(text)
            arguments = ("in.jsonl", *arguments)
        runs.append(Run(folder, ["--workers", "2", *arguments], environment))
        return runs[-1]

    yield start_run
    for run in runs:
        run.close()


Start = Callable[..., Run]


def by_line(outcomes: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    numbered = {outcome["line"]: outcome for outcome in outcomes}
    assert len(numbered) == len(outcomes), "a line has more than one outcome"
    return numbered


def test_every_line_has_one_outcome_whatever_happens_to_it(start: Start) -> None:
    code, outcomes, errors = start(
        lines=[
            {"target": "jobs:double", "args": [4], "key": "four"},
            "nonsense",
            "",
            {"target": "jobs:fail", "kwargs": {"x": 1}},
            {"target": "jobs:crash"},
            {"target": "jobs:crash_by_signal"},
            {"target": "no_such_module:function"},
            {"target": "jobs:no_such_function"},
            {"target": "jobs:double", "args": []},
            {"target": "jobs:Shop.greet", "init": {"name": "Ann"}, "args": ["Bo"]},
            {"target": "jobs:double", "arg": [1]},
        ]
    ).finish()
    lines = by_line(outcomes)
    assert sorted(lines) == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert lines[1] | {"seconds": 0} == {
        "line": 1, "key": "four", "status": "succeeded", "value": 8, "attempts": 1, "seconds": 0,
    }  # fmt: skip
    assert 0 < lines[1]["seconds"] < DEADLINE
    assert (lines[2]["status"], lines[2]["attempts"]) == ("failed", 0)
    assert "not JSON" in lines[2]["error"]["message"]
    assert (lines[4]["error"]["type"], lines[4]["error"]["message"]) == ("ValueError", "asked to fail with 1")
    assert "jobs.py" in lines[4]["error"]["traceback"]
    assert (lines[5]["status"], lines[5]["error"]["exit_code"]) == ("crashed", 3)
    assert (lines[6]["status"], lines[6]["error"]["signal"]) == ("crashed", "SIGKILL")
    assert isinstance(lines[6]["error"]["pid"], int)
    assert "no_such_module" in lines[7]["error"]["message"]
    assert "no_such_function" in lines[8]["error"]["message"]
    assert lines[9]["status"] == "failed"
    assert lines[10]["value"] == "Ann greets Bo"
    assert "did you mean 'args'" in lines[11]["error"]["message"]
    assert code == 1
    assert "Progress: 10/10 (100.0%) - 2 successful, 8 failed (rate: " in errors
    assert "(line 4)" in errors
    assert "Traceback" not in errors.split("Progress:")[-1]


def test_plain_rows_in_order(start: Start) -> None:
    rows = [{"x": 1}, [2], 3, *range(4, 300)]
    code, outcomes, errors = start("--target", "jobs:double", "--ordered", lines=rows).finish()
    assert [outcome["line"] for outcome in outcomes] == list(range(1, 300))
    assert [outcome["value"] for outcome in outcomes] == [2 * n for n in range(1, 300)]
    assert code == 0
    assert errors.splitlines()[-1].endswith("299 succeeded")


def test_cells_are_converted_by_the_annotations(start: Start, folder: Path) -> None:
    (folder / "rows.csv").write_bytes(
        b'\xef\xbb\xbfwhen,count,ratio,name\r\n2024-02-29,7,.5,"a, ""b""\nc"\r\n'
        b"2024-02-30,7,1,x\r\n2024-03-01,x,1,x\r\n1,2\r\n"
    )
    code, outcomes, _ = start("rows.csv", "--target", "jobs:day", "--ordered").finish()
    assert [outcome["line"] for outcome in outcomes] == [2, 4, 5, 6]
    assert outcomes[0]["value"] == {"year": 2024, "count": 7, "ratio": 0.5, "name": 'a, "b"\nc'}
    assert [outcome["status"] for outcome in outcomes[1:]] == ["failed"] * 3
    assert "when" in outcomes[1]["error"]["message"]
    assert "count" in outcomes[2]["error"]["message"]
    assert "2 cells" in outcomes[3]["error"]["message"]
    assert code == 1


def test_outcomes_flow_while_the_input_is_still_open(start: Start) -> None:
    run = start("-", "--target", "jobs:double")
    for number in range(3):
        run.write(b"%d\n" % number)
        assert run.read_outcome()["value"] == 2 * number
    code, outcomes, errors = run.finish()
    assert (code, outcomes) == (0, [])
    assert "Progress: 3/3 (100.0%) - 3 successful, 0 failed" in errors


def test_empty_input_succeeds(start: Start) -> None:
    code, outcomes, errors = start("-", "--target", "jobs:double").finish()
    assert (code, outcomes) == (0, [])
    assert "Progress: 0/0 (100.0%) - 0 successful, 0 failed" in errors


def test_what_children_print_goes_to_stderr(start: Start) -> None:
    said = '{"type": "result", "value": 1}'
    code, outcomes, errors = start("--target", "jobs:speak", "--progress", "none", lines=[[said], ["so much"]]).finish()
    assert code == 0
    assert sorted(outcome["value"] for outcome in outcomes) == sorted([said, "so much"])
    assert errors.count(said) == 2
    assert errors.count("so much") == 2
    assert "Progress:" not in errors


def test_output_file_keeps_what_was_done_before_a_kill(start: Start, folder: Path) -> None:
    lines = [*({"target": "jobs:double", "args": [n]} for n in range(20)), {"target": "jobs:hold", "args": ["fifo"]}]
    run = start("-o", "out.jsonl", "--ordered", lines=lines)
    output = folder / "out.jsonl"
    run.wait_for("holding")
    wait_until(lambda: output.read_text().count("\n") == 20)
    run.process.kill()
    run.process.wait(DEADLINE)
    assert [json.loads(line)["line"] for line in output.read_text().splitlines()] == list(range(1, 21))


def test_append_keeps_earlier_outcomes(start: Start, folder: Path) -> None:
    for option, expected in (("--append", 1), ("--append", 2), ("--overwrite", 1)):
        code, outcomes, _ = start("-o", "out.jsonl", option, "--target", "jobs:double", lines=[1]).finish()
        assert (code, outcomes) == (0, [])
        assert (folder / "out.jsonl").read_text().count("\n") == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_finishes_what_was_read(start: Start, folder: Path, number: signal.Signals) -> None:
    doubles = [{"target": "jobs:double", "args": [n]} for n in range(100_000)]
    lines = [{"target": "jobs:hold", "args": ["fifo"]}, *doubles]
    run = start("--workers", "1", lines=lines)
    run.wait_for("holding")
    run.process.send_signal(number)
    run.wait_for(f"{number.name}: reading no more")
    (folder / "fifo").write_text("released")
    code, outcomes, errors = run.finish()
    taken = len(outcomes)
    assert code == 130
    assert sorted(by_line(outcomes)) == list(range(1, taken + 1))
    assert {outcome["status"] for outcome in outcomes} == {"succeeded"}
    assert by_line(outcomes)[1]["value"] == "released"
    assert f"Interrupted by {number.name}." in errors
    assert f"{100_001 - taken:,} lines of the input were not run." in errors


def test_second_signal_cancels_what_was_read(start: Start) -> None:
    lines = [{"target": "jobs:hold", "args": ["fifo"]}] * 1_000
    run = start(lines=lines)
    run.wait_for("holding", count=2)
    run.process.send_signal(signal.SIGINT)
    run.wait_for("reading no more")
    run.process.send_signal(signal.SIGINT)
    code, outcomes, errors = run.finish()
    assert code == 130
    assert sorted(by_line(outcomes)) == list(range(1, len(outcomes) + 1))
    assert {outcome["status"] for outcome in outcomes} == {"cancelled"}
    assert "SIGINT: stopping" in errors
    assert "998 lines of the input were not run." in errors


def test_third_signal_kills_at_once(start: Start) -> None:
    run = start(lines=[{"target": "jobs:stubborn", "args": ["fifo"]}] * 4)
    run.wait_for("holding", count=2)
    run.process.send_signal(signal.SIGINT)
    run.wait_for("reading no more")
    run.process.send_signal(signal.SIGTERM)
    run.wait_for("SIGTERM: stopping")
    run.process.send_signal(signal.SIGINT)
    code, outcomes, _ = run.finish()
    assert code == 130
    # What never started was cancelled at the second signal; what ran has no outcome, for nobody waited for its end.
    assert {(outcome["line"], outcome["status"]) for outcome in outcomes} <= {(3, "cancelled"), (4, "cancelled")}


def test_interrupt_while_the_input_is_silent(start: Start) -> None:
    run = start("-", "--target", "jobs:double")
    run.write(b"1\n")
    run.read_outcome()
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(DEADLINE) == 130
    code, outcomes, errors = run.finish()
    assert (code, outcomes) == (130, [])
    assert "The rest of the input was not run." in errors


def test_max_failures_stops_and_counts_what_was_not_run(start: Start) -> None:
    lines = [*[{"target": "jobs:fail"}] * 3, *[{"target": "jobs:double", "args": [1]}] * 20_000]
    code, outcomes, errors = start("--max-failures", "2", "--workers", "1", lines=lines).finish()
    statuses = collections.Counter(outcome["status"] for outcome in outcomes)
    not_run = 20_003 - len(outcomes) + sum(not outcome["attempts"] for outcome in outcomes)
    assert code == 1
    assert sorted(by_line(outcomes)) == list(range(1, len(outcomes) + 1))
    assert statuses["failed"] in (2, 3)
    assert "Stopped early: 2 jobs did not succeed (--max-failures 2)." in errors
    assert f"{not_run:,} lines of the input were not run." in errors


def test_reader_that_goes_away_ends_the_run_quietly(start: Start) -> None:
    run = start("--target", "jobs:double", lines=list(range(200_000)))
    run.read_outcome()
    assert run.process.stdout is not None
    run.process.stdout.close()
    assert run.process.wait(DEADLINE) == 1
    run.wait_for("Stopped early: whoever read the outcomes is gone.")
    run.close()
    assert not any("Traceback" in line or "BrokenPipe" in line for line in run.errors)


def test_timeout_and_retries(start: Start, folder: Path) -> None:
    lines = [
        {"target": "jobs:hold", "args": ["fifo"], "timeout": 2, "retry": {"attempts": 1}},
        {"target": "jobs:fail_first", "args": ["tried"], "retry": {"attempts": 2, "backoff": 0}},
        {"target": "jobs:fail", "retry": {"attempts": 1}},
    ]
    code, outcomes, errors = start("--retries", "1", "--timeout", "30s", lines=lines).finish()
    one, two, three = (by_line(outcomes)[line] for line in (1, 2, 3))
    assert (one["status"], one["error"]["type"], one["error"]["timeout"]) == ("timed_out", "JobTimedOut", 2)
    assert "with open(fifo)" in one["error"]["traceback"] or "jobs.py" in one["error"]["traceback"]
    assert (two["value"], two["attempts"], three["attempts"]) == ("second attempt", 2, 1)
    assert code == 1
    assert "1 retry" in errors


def test_rows_keep_a_limit_together(start: Start, folder: Path) -> None:
    arguments = ("--target", "jobs:slowly", "--concurrency", "8", "--limit", "api=:3")
    code, outcomes, _ = start(*arguments, lines=[[n, "counter"] for n in range(40)]).finish()
    assert (code, len(outcomes)) == (0, 40)
    depth = most = 0
    for mark in (folder / "counter").read_text():
        depth += 1 if mark == "+" else -1
        most = max(most, depth)
    assert 1 < most <= 3


def test_cwd_is_where_children_run_and_import(start: Start, folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (inner / "only_here.py").write_text("import os\n\n\ndef where():\n    return os.getcwd()\n")
    code, outcomes, _ = start("--cwd", "inner", "--target", "only_here:where", lines=[[], []]).finish()
    assert code == 0
    assert {outcome["value"] for outcome in outcomes} == {os.path.realpath(inner)}


def test_given_python_runs_the_children(start: Start) -> None:
    code, outcomes, errors = start("--python", sys.executable, "--target", "jobs:double", lines=[1]).finish()
    assert (code, outcomes[0]["value"]) == (0, 2), errors


def test_a_child_that_cannot_start_is_said_with_its_stderr(start: Start, folder: Path) -> None:
    (folder / "broken.py").write_text("raise RuntimeError('broken on purpose')\n")
    code, outcomes, errors = start("--preload", "broken", "--target", "jobs:double", lines=[1, 2, 3]).finish()
    assert code == 1
    assert all(outcome["status"] != "succeeded" for outcome in outcomes)
    assert "broken on purpose" in errors


def on_terminal(
    folder: Path, environment: dict[str, str], *arguments: str, keys: list[tuple[str, bytes]] | None = None
) -> tuple[int, str]:
    """Run on a terminal of 100 columns, press keys when a text has come, and return exit code and what was shown."""
    import pty

    leader, follower = pty.openpty()
    shown = bytearray()
    waiting = list(keys or [])
    seen = 0
    try:
        process = subprocess.Popen(
            # Becomes the leader of a session with that terminal, so that its Ctrl-C is a signal.
            [
                sys.executable,
                "-c",
                (
                    "import fcntl, os, signal, sys, termios; os.setsid(); fcntl.ioctl(2, termios.TIOCSCTTY, 0); "
                    "signal.signal(signal.SIGINT, signal.default_int_handler); "
                    "from orchestrator.cli import main; sys.exit(main())"
                ),
                "run",
                *arguments,
            ],
            cwd=folder,
            env={**environment, "TERM": "xterm", "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            stderr=follower,
        )
        os.close(follower)
        while True:
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # Linux says so when the last process has closed the terminal.
                break
            if not chunk:
                break
            shown += chunk
            if waiting and waiting[0][0].encode() in shown[seen:]:
                seen = len(shown)
                os.write(leader, waiting.pop(0)[1])
        code = process.wait(DEADLINE)
    finally:
        os.close(leader)
    assert not waiting
    return code, shown.decode()


def test_bar_on_a_terminal(folder: Path, environment: dict[str, str]) -> None:
    (folder / "in.jsonl").write_text("".join(f"{n}\n" for n in range(500)))
    code, shown = on_terminal(folder, environment, "in.jsonl", "--target", "jobs:double", "-o", "out.jsonl")
    assert code == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "500/500 (100.0%)" in text
    assert "workers busy" in text
    assert "500 successful, 0 failed" in text
    assert "Progress:" not in text
    assert (folder / "out.jsonl").read_text().count("\n") == 500
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"


def test_three_interrupts_at_a_terminal_kill_and_leave_it_usable(folder: Path, environment: dict[str, str]) -> None:
    (folder / "in.jsonl").write_text('["fifo"]\n' * 4)
    keys = [("holding", b"\x03"), ("reading no more", b"\x03"), ("SIGINT: stopping", b"\x03")]
    code, shown = on_terminal(
        folder, environment, "in.jsonl", "--target", "jobs:stubborn", "-o", "out.jsonl", "-w", "2", keys=keys
    )
    assert code == 130
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"


def test_a_loop_that_cannot_start_processes_runs_all_the_same(
    start: Start, folder: Path, environment: dict[str, str]
) -> None:
    """The engine has a thread of its own then; outcomes and cancels cross over."""
    (folder / "sitecustomize.py").write_text(
        "import asyncio\n"
        "class Loop(asyncio.SelectorEventLoop):\n"
        "    _make_subprocess_transport = asyncio.BaseEventLoop._make_subprocess_transport\n"
        "class Policy(asyncio.DefaultEventLoopPolicy):\n"
        "    new_event_loop = Loop\n"
        "asyncio.set_event_loop_policy(Policy())\n"
    )
    environment.update(PYTHONPATH=str(folder), PYTHONWARNINGS="error,ignore::DeprecationWarning")
    lines = [*range(3_000), "nonsense", '{"y": 1}']
    code, outcomes, errors = start("--target", "jobs:double", "--ordered", lines=lines).finish()
    assert code == 1
    assert "supervisor.moved_to_thread" in errors
    assert [outcome["line"] for outcome in outcomes] == list(range(1, 3_003))
    assert [outcome["value"] for outcome in outcomes[:3_000]] == [2 * n for n in range(3_000)]
    code, outcomes, _ = start(
        "--max-failures", "1", lines=[{"target": "jobs:fail"}, *[{"target": "jobs:hold", "args": ["fifo"]}] * 2]
    ).finish()
    assert (code, by_line(outcomes)[1]["status"]) == (1, "failed")
    assert {outcome["status"] for outcome in outcomes[1:]} <= {"cancelled"}


def test_a_closed_standard_output_is_refused_and_a_full_one_stops_the_run(
    folder: Path, environment: dict[str, str]
) -> None:
    (folder / "in.jsonl").write_text("1\n" * 20)

    def run_in_shell(redirection: str) -> tuple[int, str]:
        command = f'"$0" -m orchestrator run in.jsonl --target jobs:double {redirection}'
        done = subprocess.run(
            ["/bin/sh", "-c", command, sys.executable], cwd=folder, env=environment, stderr=subprocess.PIPE, check=False
        )
        return done.returncode, done.stderr.decode()

    assert run_in_shell(">&-") == (2, "Error: --output: standard output is closed; name a file for outcomes.\n")
    assert run_in_shell("-o out.jsonl >&-")[0] == 0
    assert (folder / "out.jsonl").read_text().count("\n") == 20
    if os.path.exists("/dev/full"):
        code, errors = run_in_shell("> /dev/full")
        assert code == 1
        assert "Stopped early: outcomes cannot be written: No space left on device." in errors


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what only another process's file can tell."""
    tick = threading.Event()
    for _ in range(int(DEADLINE / 0.01)):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it did not happen in time")


@pytest.mark.soak
def test_a_million_rows_keep_memory_flat(start: Start, folder: Path) -> None:
    rows = 1_000_000
    with open(folder / "many.jsonl", "w") as stream:
        stream.writelines(f"{n}\n" for n in range(rows))
    run = start("many.jsonl", "--target", "jobs:double", "-o", "out.jsonl")
    parent = psutil.Process(run.process.pid)
    output = folder / "out.jsonl"
    sizes: list[int] = []

    tick = threading.Event()
    while run.process.poll() is None:
        tick.wait(0.1)
        # From the first tenth on: what is imported and allocated at the start is not growth.
        if output.exists() and output.stat().st_size > rows * 8:
            size = parent.memory_info().rss
            if size:  # A process that has just ended has none.
                sizes.append(size)
    code, _, errors = run.finish()
    assert code == 0, errors
    seen = bytearray(rows)
    with open(output) as stream:
        for line in stream:
            outcome = json.loads(line)
            assert outcome["value"] == 2 * (outcome["line"] - 1)
            assert not seen[outcome["line"] - 1]
            seen[outcome["line"] - 1] = 1
    assert all(seen)
    assert max(sizes) - min(sizes) < 20 * 2**20
