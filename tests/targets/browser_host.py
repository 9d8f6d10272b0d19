"""A host that is killed while a browser job runs: `python browser_host.py URL` prints the job's pids and waits."""

from __future__ import annotations

import asyncio
import json
import sys

import browsing
from orchestrator_adapters.playwright import BrowserJob

from orchestrator import Supervisor


async def main(url: str) -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(BrowserJob(browsing.announce_and_spin, args=(url,)))
        async for event in handle.events():
            if event.kind == "item":
                print(json.dumps(event.value), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
