"""A small app that `scripts/freezers.py` freezes; FREEZERS_NAIVE makes it one that forgot `freeze_support()`."""

import os

from orchestrator import freeze_support

if "FREEZERS_NAIVE" not in os.environ:
    freeze_support()

import asyncio
import json
import sys

import freezers_jobs

from orchestrator import Supervisor


async def main() -> None:
    """Run one job in a child and print what it said; with the argument `stay` go on until somebody ends it."""
    async with Supervisor(workers=1) as supervisor:
        told = await supervisor.run(freezers_jobs.tell, 20, 22)
        known = [worker.pid for worker in supervisor.statistics().workers]
        print(json.dumps({"pid": os.getpid(), "known": known, "job": told}), flush=True)
        if "stay" in sys.argv:
            await supervisor.run(freezers_jobs.stay)


if __name__ == "__main__":
    asyncio.run(main())
