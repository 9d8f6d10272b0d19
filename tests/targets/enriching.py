"""Handlers of batches that do what their record says, and note each call in a file."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from orchestrator import child


class Refused(Exception):
    """What a client of an API raises."""

    def __init__(self, message: str, **attributes: Any) -> None:
        super().__init__(message)
        for name, value in attributes.items():
            setattr(self, name, value)


@dataclass
class Question:
    text: str
    weight: float = 1.0


@dataclass
class Answer:
    text: str
    when: datetime


def note(record: dict[str, Any]) -> int:
    """Append the record's number to its log; return how many notes that number has now."""
    descriptor = os.open(record["log"], os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{record['id']}\n".encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return _read_all(descriptor).split().count(str(record["id"]).encode())
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def same(record: Any) -> Any:
    return record


def double(record: Any) -> Any:
    return {"id": record["id"], "twice": 2 * record["id"]}


def noted(record: dict[str, Any]) -> Any:
    note(record)
    return record["id"]


def noted_slowly(record: dict[str, Any]) -> Any:
    """Take a few milliseconds, and say what it costs."""
    note(record)
    child.usage(prompt=record["id"] % 7, output=1)
    time.sleep(0.005)
    return record["id"]


def noted_and_cached(record: dict[str, Any]) -> Any:
    """Ask the cache for one of fifty values, and note when it is computed."""
    key = record["id"] % 50
    value = child.cache("values").get_or_compute(key, lambda: note({"id": key, "log": f"{record['log']}.cache"}))
    return [noted_slowly(record), value]


def surrogates(record: Any) -> Any:
    if record == "fail":
        raise ValueError("no text: \udc80")
    return ["\ud800", record]


def noted_for_a_second(record: dict[str, Any]) -> Any:
    note(record)
    time.sleep(1)
    return record["id"]


def obey(record: dict[str, Any]) -> Any:
    """Do `first` on the first call of a record, as often as `times` says, then return its number."""
    calls = note(record)
    child.usage(tokens=10)
    if calls <= record.get("times", 0):
        act(record["first"])
    return record["id"]


def act(what: str) -> None:
    kind, _, detail = what.partition(" ")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "sleep":
        time.sleep(float(detail))
    elif kind == "value_error":
        raise ValueError("this record makes no sense")
    elif kind == "connection":
        raise ConnectionResetError("the other side hung up")
    elif kind == "code":
        raise Refused(f"status {detail}", code=int(detail))
    elif kind == "throttle":
        raise Refused("slow down", status_code=429, retry_after=float(detail))
    elif kind == "surrogate":
        raise ConnectionError("no text: \udc80")
    elif kind == "day":
        raise Refused("no more today", code=429, quota_scope="day")
    elif kind == "class":
        raise Refused(f"says {detail}", failure_class=detail)


def nothing(record: Any) -> None:
    return None


async def later(record: dict[str, Any]) -> Any:
    await asyncio.sleep(0.001)
    return record["id"]


def answer(question: Question) -> Answer:
    return Answer(f"{question.text}!", datetime(2026, 1, 2, tzinfo=UTC))


def infinite(record: Any) -> float:
    return float("inf")


def numbered(record: Any) -> dict[int, datetime | None]:
    return {2: datetime(2026, 1, 2, tzinfo=UTC), 1: None}


class Priced(BaseModel):
    text: str
    cost: Decimal | None


def priced(question: Priced) -> Priced:
    return question


def two(one: Any, other: Any) -> Any:
    return one, other


def parameters(record: Any) -> Any:
    return child.params()


def hold(record: dict[str, Any]) -> Any:
    """Wait until a file exists."""
    note(record)
    while not os.path.exists(record["until"]):
        time.sleep(0.01)
    return record["id"]


def odd_is_throttled(error: Any) -> str | None:
    return "invalid" if "makes no sense" in str(error) else None


def wrong_class(error: Any) -> str | None:
    return "strange"
