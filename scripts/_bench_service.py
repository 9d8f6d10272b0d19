"""The measurements of services: how soon one is ready, and again after a kill, beside Streamlit started by hand."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_adapters.streamlit import streamlit_service

from orchestrator import HttpProbe, Service, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

Figures = dict[str, float | None]
Turn = dict[str, float]

HEALTH = "/_stcore/health"
PAGE = "import streamlit\n\nstreamlit.write('here')\n"
BOUND = 120.0
# What the measured app does when it is frozen: the same as `ours`, told to whom measures through a file.
APP = """
import asyncio
import json
import os
import sys
import time
from pathlib import Path

from orchestrator import Supervisor
from orchestrator_adapters.streamlit import streamlit_service


async def main() -> None:
    async with Supervisor(workers=0) as supervisor:
        began = time.perf_counter()
        async with supervisor.service(streamlit_service("page.py")) as service:
            await service.wait_ready(120)
            ready = time.perf_counter()
            pid = service.pid
            killed = time.perf_counter()
            os.kill(pid, 9)
            while service.pid in (None, pid) or service.state != "ready":
                await asyncio.sleep(0.001)
            found = {"frozen": ready - began, "frozen_restart": time.perf_counter() - killed, "at": ready}
    Path(sys.argv[1]).write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    asyncio.run(main())
"""
CONFIGURATION = '[tool.orchestrator.pyinstaller]\npages = ["page.py"]\n'


def answer(port: int) -> None:
    """Serve HTTP as a service of the standard library does; the Python service that is measured."""
    from http.server import HTTPServer, SimpleHTTPRequestHandler

    with HTTPServer(("127.0.0.1", port), SimpleHTTPRequestHandler) as server:
        server.serve_forever()


def service(rounds: int) -> Figures:
    """Measure services from source, by turns with Streamlit started by hand."""
    with tempfile.TemporaryDirectory(prefix="bench-service-") as folder:
        page = Path(folder, "page.py")
        page.write_text(PAGE, "utf-8")
        ways: dict[str, Callable[[], Turn]] = {
            "by hand": lambda: {"by_hand": by_hand(page)},
            "streamlit": lambda: named("streamlit", asyncio.run(ours(streamlit_service(page)))),
            "plain": lambda: named("plain", asyncio.run(ours(plain(folder)))),
        }
        turns = in_turns(ways, rounds)
    return figures(turns, {"against_hand": ("streamlit", "by_hand")})


def frozen(rounds: int) -> Figures:
    """Build an app as people do, and measure its service, by turns with Streamlit started by hand."""
    with tempfile.TemporaryDirectory(prefix="bench-frozen-") as folder:
        for name, text in (("app.py", APP), ("page.py", PAGE), ("pyproject.toml", CONFIGURATION)):
            Path(folder, name).write_text(text, "utf-8")
        env = {**os.environ, "PYINSTALLER_CONFIG_DIR": str(Path(folder, "cache"))}
        command = [sys.executable, "-m", "PyInstaller", "--onedir", "--windowed", "app.py"]
        subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        app = Path(folder, "dist", "app")
        ways: dict[str, Callable[[], Turn]] = {
            "by hand": lambda: {"by_hand": by_hand(Path(folder, "page.py"))},
            "frozen": lambda: of_app(app / "app", Path(folder, "figures.json")),
        }
        turns = in_turns(ways, rounds)
        size = sum(path.lstat().st_size for path in app.rglob("*") if not path.is_dir() or path.is_symlink())
    return figures(turns, {"against_hand": ("frozen", "by_hand")}) | {"size": size / 1e6}


def plain(folder: str) -> Service:
    """Return a service of the standard library."""
    return Service("plain", target="_bench_service:answer", ready=HttpProbe("/"), cwd=folder)


async def ours(spec: Service) -> tuple[float, float]:
    """Return the seconds until a service is ready, and from its death until it is ready again."""
    async with Supervisor(workers=0) as supervisor:
        began = time.perf_counter()
        async with supervisor.service(spec) as running:
            await running.wait_ready(BOUND)
            ready = time.perf_counter() - began
            pid = running.pid
            assert pid is not None
            killed = time.perf_counter()
            os.kill(pid, 9)  # the number is the same everywhere, the name is not
            async with asyncio.timeout(BOUND):
                while running.pid in (None, pid) or running.state != "ready":  # noqa: ASYNC110  as exact as this is
                    await asyncio.sleep(0.001)
            return ready, time.perf_counter() - killed


def by_hand(page: Path) -> float:
    """Return the seconds until `streamlit run` answers that it is well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(page), "--server.address", "127.0.0.1"]
    command += ["--server.port", str(port), "--server.headless", "true", "--browser.gatherUsageStats", "false"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not is_well(port):
                if process.poll() is not None or time.perf_counter() > began + BOUND:
                    raise AssertionError("Streamlit by hand did not come up")
                time.sleep(0.002)
            return time.perf_counter() - began
        finally:
            process.kill()


def of_app(program: Path, told: Path) -> Turn:
    """Run the frozen app once."""
    began = time.perf_counter()
    subprocess.run([program, told], check=True, timeout=BOUND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found: Turn = json.loads(told.read_text("utf-8"))
    # The clock is the machine's, not the process's.
    return {**found, "app": found.pop("at") - began}


def is_well(port: int) -> bool:
    """Ask Streamlit whether it is well."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", HEALTH)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def named(name: str, found: tuple[float, float]) -> Turn:
    """Give figures their names."""
    return {name: found[0], f"{name}_restart": found[1]}


def in_turns(ways: dict[str, Callable[[], Turn]], rounds: int) -> list[Turn]:
    """Run every way once in each round, after one time that warms it, and return the figures by round."""
    names = list(ways)
    for name in names:
        ways[name]()
    turns: list[Turn] = []
    for number in range(rounds):
        turn = number % len(names)
        found: Turn = {}
        for name in names[turn:] + names[:turn]:
            found |= ways[name]()
        turns.append(found)
    return turns


def figures(turns: list[Turn], ratios: dict[str, tuple[str, str]]) -> Figures:
    """Return the medians, and those of ratios within the rounds, so that a busy moment hits both sides."""
    found: Figures = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    for name, (above, below) in ratios.items():
        found[name] = statistics.median(turn[above] / turn[below] for turn in turns)
    return found
