"""The app of docs/howto/embed.md does what it says under a real uvicorn: progress, disconnects, reload, SIGTERM."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "embed.md"
FILE = re.compile(r'^```python title="([^"]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)
SAMPLE = re.compile(r"^```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# For a machine that does several other things; each wait normally ends within a second.
PATIENCE = 20.0
GRACEFUL = 1
# The graceful shutdown, then grace and two seconds for the jobs, then the planned stop of idle children.
SECONDS_TO_END = GRACEFUL + 4 + 5

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uvicorn has no SIGTERM on Windows")


class Server:
    """A uvicorn process, with what it said."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "0"]
        command += ["--timeout-graceful-shutdown", str(GRACEFUL), *options]
        self.folder = folder
        self.lines: list[str] = []
        self._news = threading.Condition()
        # Of its own, to see what becomes of the folders of its supervisors.
        env = {**os.environ, "TMPDIR": str(folder)}
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def wait_for(self, text: str, count: int = 1) -> str:
        """Wait until so many lines contain a text; returns the last of them."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._news:
            assert self._news.wait_for(lambda: len(found()) >= count, PATIENCE), "".join(self.lines)
            return found()[-1]

    def client(self, servers: int = 1) -> httpx.Client:
        self.wait_for("Application startup complete", servers)
        address = self.wait_for("running on").split("running on ")[1].split()[0]
        return httpx.Client(base_url=address, timeout=PATIENCE, trust_env=False)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code; nothing of the server is left then."""
        family = self.family()
        assert family
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(SECONDS_TO_END)
        assert not list(self.folder.glob("orchestrator-*"))
        left = SECONDS_TO_END - (time.monotonic() - began)
        assert psutil.wait_procs(family, timeout=left)[1] == [], "".join(self.lines)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            # Only after a test that failed. uvicorn's own server processes outlive a killed parent.
            for process in (*self.family(), psutil.Process(self.process.pid)):
                process.kill()
            self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    server = Server(folder, *options)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = FILE.findall(PAGE.read_text("utf-8"))
    assert [name for name, _ in files] == ["reports.py", "app.py"]
    for name, text in files:
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def statistics_when(client: httpx.Client, reached: Callable[[Any], bool]) -> Any:
    """Ask until what another process counts has got somewhere; only asking tells."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = client.get("/statistics").json()
        if reached(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def first_progress(lines: Iterator[str]) -> str:
    return next(line for line in lines if line.startswith("data:"))


def test_a_job_for_each_request(folder: Path) -> None:
    with serving(folder) as server, server.client() as client:
        assert client.get("/report?pages=2").json() == {"pages": 2}
        assert client.post("/report?pages=1", content=b"x" * 100_000).json() == {"pages": 1}
        assert client.get("/report?pages=0").json() == {"pages": 0}

        sample = SAMPLE.search(PAGE.read_text("utf-8"))
        assert sample is not None
        assert client.get("/report/events?pages=2").text == sample[1]

        arrivals: list[float] = []
        with client.stream("GET", "/report/events?pages=4") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            arrivals += [time.monotonic() for line in response.iter_lines() if line.startswith("data:")]
        assert len(arrivals) == 5
        # Each page takes a tenth of a second: had all come at the end, they would have come together.
        assert arrivals[-1] - arrivals[0] > 0.3

        found = client.get("/statistics").json()
        assert found["running"] == 0 and found["settled"] == {"succeeded": 5}
        assert server.terminate() in (0, -signal.SIGTERM)


def test_a_client_that_leaves_takes_its_job_with_it(folder: Path) -> None:
    with serving(folder) as server, server.client() as client:
        with client.stream("GET", "/report/events?pages=10000") as response:
            lines = response.iter_lines()
            assert '"text": "page 1"' in first_progress(lines)
            assert statistics_when(client, lambda found: found["running"] == 1)["settled"] == {}
            response.close()
        statistics_when(client, lambda found: found["running"] == 0 and found["settled"] == {"cancelled": 1})

        with pytest.raises(httpx.ReadTimeout):
            client.get("/report?pages=10000", timeout=httpx.Timeout(PATIENCE, read=0.3))
        found = statistics_when(client, lambda found: found["running"] == 0 and found["settled"] == {"cancelled": 2})

        # The jobs were ended, their children live on, and the programs they had started are gone.
        family = {process.pid for process in server.family()}
        assert family >= set(found["children"])
        assert not any("time.sleep(0.1)" in " ".join(command_of(process)) for process in server.family())
        assert client.get("/report?pages=1").json() == {"pages": 1}
        assert server.terminate() in (0, -signal.SIGTERM)
        assert not [line for line in server.lines if "Traceback" in line], "".join(server.lines)


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def test_sigterm_ends_a_stream_and_all_that_runs(folder: Path) -> None:
    with serving(folder) as server, server.client() as client:
        with client.stream("GET", "/report/events?pages=10000") as response:
            lines = response.iter_lines()
            first_progress(lines)
            children = client.get("/statistics").json()["children"]
            assert server.terminate() in (0, -signal.SIGTERM)
            # The connection was cut while the job ran.
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        assert children and not any(map(psutil.pid_exists, children))
        assert "Application shutdown complete" in "".join(server.lines)


def test_a_killed_server_leaves_nothing(folder: Path) -> None:
    endless = "/report/events?pages=10000"
    with serving(folder) as server, server.client() as client, client.stream("GET", endless) as response:
        lines = response.iter_lines()
        first_progress(lines)
        family = server.family()
        assert [*folder.glob("orchestrator-*")]
        server.process.kill()
        # Its guardian is one of the family.
        assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
        assert [*folder.glob("orchestrator-*")] == []


def test_two_workers_have_children_of_their_own(folder: Path) -> None:
    with serving(folder, "--workers", "2") as server, server.client(servers=2) as client:
        # Which of the two answers is the system's choice, so ask on new connections until both have.
        children: set[int] = set()
        deadline = time.monotonic() + PATIENCE
        while len(children) < 2 and time.monotonic() < deadline:
            answer = httpx.get(f"{client.base_url}/statistics", trust_env=False, timeout=PATIENCE)
            children |= set(answer.json()["children"])
        assert len(children) == 2
        assert children <= {process.pid for process in server.family()}
        with client.stream("GET", "/report/events?pages=10000") as response:
            lines = response.iter_lines()
            first_progress(lines)
            assert server.terminate() == 0


def test_reload_replaces_the_children(folder: Path) -> None:
    with serving(folder, "--reload") as server, server.client() as client:
        assert client.get("/report?pages=1").json() == {"pages": 1}
        before = client.get("/statistics").json()["children"]
        old = [psutil.Process(pid) for pid in before]
        path = folder / "reports.py"
        path.write_text(path.read_text("utf-8").replace('{"pages": pages}', '{"sheets": pages}'), "utf-8")
        later = time.time() + 5
        os.utime(path, (later, later))  # whatever the grain of the file system's clock

        server.wait_for("Application startup complete", 2)
        assert psutil.wait_procs(old, timeout=PATIENCE)[1] == []
        assert client.get("/report?pages=1").json() == {"sheets": 1}
        assert not set(before) & set(client.get("/statistics").json()["children"])
        assert server.terminate() == 0
