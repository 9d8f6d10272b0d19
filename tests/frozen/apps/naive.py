"""An app whose author knows nothing of frozen apps: no freeze_support, and it is built without our hooks.

What it tries is named in its environment; so is which guards stay on, for tests that take the others away.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import chores_of_app

from orchestrator import BlockingSupervisor, Service, Supervisor

HOW = os.environ.get("TEST_HOW", "supervisor")
if "TEST_GUARDS" in os.environ:
    from orchestrator import _frozen

    _frozen.GUARDS = set(os.environ["TEST_GUARDS"].split())


async def jobs(command: list[str] | None = None) -> None:
    async with Supervisor(workers=4, command=command) as supervisor, asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(supervisor.run(chores_of_app.who))


async def service() -> None:
    spec = Service("naive", target=chores_of_app.who, port=None)
    async with Supervisor(workers=0) as supervisor, supervisor.service(spec) as running:
        await running.wait_ready()


def blocking() -> None:
    with BlockingSupervisor(workers=4) as supervisor:
        supervisor.run(chores_of_app.who)


def stubborn() -> None:
    for _ in range(5):
        try:
            asyncio.run(jobs())
        except Exception as error:
            print(error, file=sys.stderr)
        time.sleep(0.1)
    sys.exit(3)


if __name__ == "__main__":
    if HOW == "supervisor":
        asyncio.run(jobs())
    elif HOW == "service":
        asyncio.run(service())
    elif HOW == "blocking":
        blocking()
    elif HOW == "stubborn":
        stubborn()
    elif HOW == "command":
        asyncio.run(jobs(command=[sys.executable]))
    else:
        sys.exit(f"does not know how to {HOW}")
    print("the app ran to its end")
