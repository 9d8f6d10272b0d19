"""An app with our hooks that takes sys.executable for a Python: it runs itself, in its main process or in a job."""

from __future__ import annotations

import asyncio
import os
import sys

import selfish_jobs

from orchestrator import Supervisor


async def main() -> int:
    """Return the exit code of what it ran, and show what that printed."""
    async with Supervisor(workers=1) as supervisor:
        if os.environ["TEST_HOW"] == "job":
            code, text = await supervisor.run(selfish_jobs.run_itself)
        else:
            await supervisor.run(selfish_jobs.who)
            code, text = await asyncio.to_thread(selfish_jobs.run_itself)
    print(text)
    return int(code)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
