"""A program with services, for those who kill it: `python service_host.py FOLDER` tells of all its processes."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import bad_services

from orchestrator import Service, Supervisor


def said(folder: Path) -> list[int]:
    """Return the processes that have said that they are there."""
    return [int(line) for path in folder.iterdir() for line in path.read_text("ascii").split()]


async def main(folder: Path) -> None:
    """Begin services of the worst kinds, say which processes there are, and wait for the end."""
    strays = folder / "strays"
    deaf = Service("deaf", target=bad_services.ignores_the_request_to_stop, args=(str(folder / "deaf"),))
    away = Service("away", target=bad_services.forks_away, args=(str(folder / "away"), str(strays)))
    lost = Service("lost", target=bad_services.never_ready, args=(str(folder / "lost"),))
    async with (
        Supervisor(workers=0) as supervisor,
        supervisor.service(deaf) as first,
        supervisor.service(away) as second,
        supervisor.service(lost),
    ):
        await first.wait_ready(60)
        await second.wait_ready(60)
        while len(pids := said(folder)) < 4:  # noqa: ASYNC110  a file cannot tell
            await asyncio.sleep(0.01)
        print(json.dumps({"pids": pids, "port": first.port}), flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
