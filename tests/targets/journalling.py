"""Rows for journals, a store for a test, and what a journal's file holds."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from orchestrator import _store_thread
from orchestrator._journal import Journal
from orchestrator._store import Store
from orchestrator._store_rows import Known, Opened, StoredAttempt, StoredJob, StoredOutcome


def job(number: int, **changes: Any) -> StoredJob:
    return StoredJob(
        id=number,
        identity=None,
        key=None,
        target="chores:double",
        head=b'"target":"chores:double",',
        body=b'"args":[%d]' % number,
        options="{}",
        effects="pure",
        priority=0,
        hash=number.to_bytes(16, "big"),
        attempts=0,
        deaths=0,
        suspect=False,
        created=time.time(),
    )._replace(**changes)


def attempt(of: int, fence: int = 0, **changes: Any) -> StoredAttempt:
    return StoredAttempt(
        job=of,
        fence=fence or of,
        number=1,
        worker="w/1",
        generation=1,
        state="leased",
        outcome=None,
        certificate=None,
        refunded=False,
    )._replace(**changes)


def outcome(value: str | None = "1", **changes: Any) -> StoredOutcome:
    return StoredOutcome(
        status="succeeded",
        value=value,
        typed=False,
        error=None,
        attempts=1,
        deaths=0,
        seconds=0.5,
        worker="w/1",
    )._replace(**changes)


def birth(marker: str, **changes: Any) -> Any:
    row = {"name": "w/1#1", "worker": "w/1", "generation": 1, "pid": 4711, "started": 12.5, "temp": "/nowhere"}
    return SimpleNamespace(marker=marker, **{**row, **changes})


class Recorder:
    """A store for a test: each call can be awaited until it is recorded."""

    def __init__(self, path: Path | str, **options: Any) -> None:
        self.stalls: list[Exception] = []
        self.recoveries = 0
        self.changed = asyncio.Condition()
        self.store = Store(
            Journal(path, **options), asyncio.get_running_loop(), on_stall=self._stall, on_recover=self._recover
        )
        self.opened: Opened

    def _stall(self, error: Exception) -> None:
        self.stalls.append(error)

    def _recover(self) -> None:
        self.recoveries += 1

    async def submit(self, row: StoredJob) -> Known | None:
        known: asyncio.Future[Known | None] = asyncio.get_running_loop().create_future()
        self.store.submit(row, known.set_result)
        return await known

    async def settle(self, number: int, row: StoredOutcome) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.store.settle(number, row, lambda: done.set_result(None))
        await done

    async def open_jobs(self) -> list[Any]:
        return [found async for found in self.opened.open_jobs]


@asynccontextmanager
async def recording(path: Path | str, **options: Any) -> AsyncIterator[Recorder]:
    recorder = Recorder(path, **options)
    recorder.opened = await recorder.store.open()
    try:
        yield recorder
    finally:
        await recorder.store.aclose()


def rows(path: Path | str, statement: str) -> list[tuple[Any, ...]]:
    """Ask a journal that nobody uses."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def tables(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in a journal but runs and the times at which something was recorded."""
    found = {}
    for table in ("jobs", "attempts", "effects", "births", "meta"):
        names = [
            row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] not in ("settled", "ended")
        ]
        found[table] = connection.execute(f"SELECT {','.join(names)} FROM {table} ORDER BY 1, 2").fetchall()
    return found


async def write_until_killed(path: str, durability: str = "process", length: int = 8000, checkpoint: int = 0) -> None:
    """Submit and settle jobs for ever, and say of each on standard output when it was acknowledged.

    Values are so long that a checkpoint comes every thousand jobs, or with `checkpoint` at so many bytes: what kills
    the writer is to meet those too. With `checkpoint` every fiftieth value is in a file.
    """
    if checkpoint:
        _store_thread.CHECKPOINT = checkpoint
    async with recording(path, durability=durability) as recorder:
        store = recorder.store
        number = recorder.opened.last_job

        def say(text: str) -> None:
            os.write(1, f"{text}\n".encode())

        while True:
            for _ in range(20):
                number += 1
                this = number
                store.submit(job(this), lambda _, this=this: say(f"s{this}"))
                store.attempt(attempt(this))
                value = f'"{"v" * (70_000 + this if checkpoint and this % 50 == 0 else length)}"'
                store.settle(this, outcome(value), lambda this=this: say(f"o{this}"))
            await asyncio.sleep(0)
            if number % 200 == 0:
                await store.flush()


async def do_one_thing(path: str, act: str) -> None:
    """Do one thing with a journal, and say on standard output when it was acknowledged."""
    async with recording(path) as recorder:
        store = recorder.store
        if act not in ("submit", "large", "birth"):
            await recorder.submit(job(1))
        done = asyncio.Event()
        if act == "submit":
            store.submit(job(1, identity="a"), lambda _: done.set())
        elif act == "large":
            store.submit(job(1, body=b'"args":["' + b"x" * 2**16 + b'"]'), lambda _: done.set())
        elif act == "lease":
            store.attempt(attempt(1), done.set)
        elif act == "effect":
            store.effect(1, "pin", "begun", 1, None, done.set)
        elif act == "settle":
            store.settle(1, outcome(), done.set)
        else:
            store.born(birth("m"), done.set)
        await done.wait()
        os.write(1, f"{act} recorded\n".encode())
