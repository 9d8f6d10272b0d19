"""A program with services, for tests that kill it: prints what it started, and waits."""

from __future__ import annotations

import asyncio
import json
import sys

import serving

from orchestrator import BlockingSupervisor, Service, Supervisor


async def main(folder: str) -> None:
    """Run one service of each kind."""
    foreign = [sys.executable, "-c", "import time; time.sleep(600)"]
    async with (
        Supervisor(workers=0) as supervisor,
        supervisor.service(Service("ui", target=serving.beget, args=(folder,))) as ui,
        supervisor.service(Service("alien", argv=foreign, port=None)) as alien,
    ):
        await ui.wait_ready(60)
        await alien.wait_ready(60)
        with open(f"{folder}/grandchild", encoding="utf-8") as file:
            grandchild = int(file.read())
        print(json.dumps({"pids": [ui.pid, alien.pid, grandchild], "port": ui.port}), flush=True)
        await asyncio.sleep(600)


def leave_open(folder: str) -> None:
    """Begin a service and end without closing anything."""
    supervisor = BlockingSupervisor(workers=0).open()
    service = supervisor.service(Service("ui", target=serving.serve_and_tell, args=(folder, "ui"))).open()
    service.wait_ready(60)
    print(json.dumps({"pids": [service.pid], "port": service.port}), flush=True)


if __name__ == "__main__":
    if sys.argv[2:] == ["leave"]:
        leave_open(sys.argv[1])
    else:
        asyncio.run(main(sys.argv[1]))
