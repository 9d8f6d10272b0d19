"""A program that asks models with a key, in all the ways that might let the key out, and tells what it saw."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import asking
import psutil

from orchestrator import Job, Journal, RetryPolicy, Supervisor, child


def crash(api: str, prompt: str, options: dict[str, Any]) -> None:
    asking.ask(api, prompt, options)
    sys.stderr.write("now it dies\n")
    os.abort()


def log(api: str, prompt: str, options: dict[str, Any]) -> str:
    import logging

    logging.basicConfig(level=logging.DEBUG)  # the clients and what is below them say what they do
    answer = asking.ask(api, prompt, options)
    child.log("asked", answer=answer)
    child.progress(1, 1, "asked")
    return str(answer)


def tell(api: str, prompt: str, options: dict[str, Any]) -> None:
    asking.ask(api, prompt, options)
    key = os.environ[asking.KEY]
    print(f"printed {key}")
    os.write(2, f"written {key}\n".encode())
    child.log(f"logged {key}", key=key)
    child.progress(1, 1, f"said {key}")
    raise ValueError(f"raised {key}")


async def main(url: str, folder: Path) -> None:
    options = {"base_url": url}
    seen: list[str] = []
    # From the environment, or from wherever a function gets it.
    given = sys.stdin.readline().strip()
    secrets: Any = {asking.KEY: lambda: given} if given else [asking.KEY]
    async with Supervisor(workers=2, secrets=secrets, journal=Journal(folder / "journal")) as supervisor:
        for api in asking.APIS:
            jobs = [
                Job(asking.ask, args=(api, "a fox", options), key=f"{api} good"),
                Job(asking.ask, args=(api, "a fox [[echo]]", options), key=f"{api} echo"),
                Job(asking.ask, args=(api, "a fox [[403]]", options), key=f"{api} 403"),
                Job(asking.ask, args=(api, "a fox [[close]]", options), key=f"{api} close"),
                Job(asking.ask_async, args=(api, "a fox [[echo]]", options), key=f"{api} async"),
                Job(crash, args=(api, "a fox", options), key=f"{api} crash", retry=RetryPolicy(attempts=1)),
                Job(log, args=(api, "a fox", options), key=f"{api} log"),
                Job(tell, args=(api, "a fox", options), key=f"{api} tell"),
            ]
            for job in jobs:
                handle = await supervisor.submit(job)
                for process in psutil.Process().children(recursive=True):
                    try:
                        seen += [*process.cmdline(), json.dumps(process.environ())]
                    except psutil.Error:
                        continue  # it is gone
                async for event in handle.events():
                    print(event)
                found = await handle.outcome()
                print(found, repr(found.error), str(found.error), found.to_dict() if hasattr(found, "to_dict") else "")
        print(supervisor.statistics())
    print("\n".join(seen))
    print(f"looked at {len(seen)} texts of processes")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
