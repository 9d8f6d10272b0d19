"""A program with a persistent cache: computes keys, a few at a time, and says which it has."""

from __future__ import annotations

import asyncio
import sys

import caching

from orchestrator import Supervisor


async def main(path: str, log: str, count: int, size: int) -> None:
    async with Supervisor(workers=2, cache=path) as supervisor:

        async def one(number: int) -> None:
            await supervisor.run(caching.look_up, log, number, "x" * size)
            print(number, flush=True)

        await asyncio.gather(*(one(number) for number in range(count)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
