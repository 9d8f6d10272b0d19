"""A frozen app as it is meant: a main process that answers by itself, keeps a service and runs jobs.

Tests watch it from outside: it writes where it answers into a file, and is asked by GET for its state, for a job or to
quit.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import desk_jobs
import desk_pages
import psutil

from orchestrator import HttpProbe, RestartPolicy, Service, Supervisor, freeze_support


class Desk:
    def __init__(self, supervisor: Supervisor, service: Any) -> None:
        self.supervisor = supervisor
        self.service = service
        self.quit = asyncio.Event()
        self.running: set[asyncio.Task[object]] = set()

    def state(self) -> dict[str, object]:
        service = self.service
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "bundle": getattr(sys, "_MEIPASS", None),
            "rss": psutil.Process().memory_info().rss,
            "url": service.url,
            "service": service.pid,
            "state": service.state,
            "reason": service.reason,
            "restarts": service.restarts,
            "workers": [worker.pid for worker in self.supervisor.statistics().workers],
        }

    async def do(self, path: str, query: dict[str, str]) -> object:
        if path == "/job":
            return await self.supervisor.run(getattr(desk_jobs, query.pop("name")), **query)
        if path == "/begin":
            task = asyncio.create_task(self.supervisor.run(getattr(desk_jobs, query.pop("name")), **query))
            self.running.add(task)
        elif path == "/main":
            # Elsewhere than on the loop, which is to answer meanwhile.
            return await asyncio.to_thread(getattr(desk_jobs, query.pop("name")), **query)
        elif path == "/quit":
            self.quit.set()
        return self.state()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
            asked = urlsplit(line)
            try:
                status, value = "200 OK", await self.do(asked.path, dict(parse_qsl(asked.query)))
            except Exception as error:
                status, value = "500 Failed", f"{type(error).__name__}: {error}"
            body = json.dumps(value).encode()
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
            writer.write(body)
            await writer.drain()
        finally:
            writer.close()


async def main() -> None:
    workers = int(os.environ.get("TEST_WORKERS", "0"))
    most = os.environ.get("TEST_MAX_RSS")
    spec = Service(
        "pages",
        target=desk_pages.serve,
        ready=HttpProbe("/"),
        max_rss=int(most) if most else None,
        restart=RestartPolicy(max_restarts=50),
    )
    async with Supervisor(workers=workers) as supervisor, supervisor.service(spec) as service:
        await service.wait_ready()
        desk = Desk(supervisor, service)
        server = await asyncio.start_server(desk.answer, "127.0.0.1", 0)
        here = Path(os.environ["TEST_ANNOUNCE"])
        unfinished = here.with_suffix(".new")
        unfinished.write_text(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "utf-8")
        unfinished.replace(here)
        await desk.quit.wait()
        for task in desk.running:
            task.cancel()
        await asyncio.gather(*desk.running, return_exceptions=True)
        server.close()


if __name__ == "__main__":
    if os.environ.get("TEST_FREEZE_SUPPORT") == "multiprocessing":
        multiprocessing.freeze_support()
    elif os.environ.get("TEST_FREEZE_SUPPORT") == "orchestrator":
        freeze_support()
    asyncio.run(main())
