"""Jobs that start processes which want to stay, on any system; run as a program, a host that is to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time

from orchestrator import Supervisor, child

# Says who it is in a file, for it has no pipe of ours, and stays.
_SLEEPER = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(1000)"
# Starts one of those and ends.
_MIDDLE = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])"


def start_sleepers() -> list[int]:
    """Start two processes that carry no marker: one of ours, and one whose parent is gone; return their pids."""
    folder = os.environ["TEMP"]
    paths = [os.path.join(folder, name) for name in ("ours", "orphan")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR")}
    subprocess.Popen([sys.executable, "-c", _SLEEPER, paths[0]], env=environment)
    subprocess.run([sys.executable, "-c", _MIDDLE, _SLEEPER, paths[1]], env=environment, check=True)
    return [_read_pid(path) for path in paths]


def _read_pid(path: str) -> int:
    while True:
        try:
            with open(path, encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            time.sleep(0.01)


def hold() -> None:
    """Busy, with processes beside it."""
    child.emit([os.getpid(), *start_sleepers()])
    while True:
        time.sleep(1)


def hold_and_crash() -> None:
    """End without a word, with processes beside it."""
    child.emit([os.getpid(), *start_sleepers()])
    time.sleep(0.2)  # what was emitted leaves through another thread
    os._exit(7)


def pid() -> int:
    """Return the child's own."""
    return os.getpid()


def leave_note() -> None:
    """Run while the child starts: user code, as early as it gets."""
    with open(os.environ["DEPARTING_NOTE"], "w", encoding="ascii"):
        pass


async def _host() -> None:
    async with Supervisor(workers=2) as supervisor:
        found: list[int] = []
        for handle in [await supervisor.submit("departing:hold") for _ in range(2)]:
            async for event in handle.events():
                if event.kind == "item":
                    found += event.value
                    break
        print(json.dumps(found), flush=True)
        await asyncio.sleep(1000)


if __name__ == "__main__":
    asyncio.run(_host())
