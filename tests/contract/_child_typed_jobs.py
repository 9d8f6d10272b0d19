"""Targets whose annotations say how their values travel."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID

import msgspec


class Colour(Enum):
    RED = "red"


@dataclass
class Pin:
    title: str
    when: datetime


class Board(msgspec.Struct):
    name: str
    pins: list[Pin]


@dataclass
class Everything:
    pin: Pin
    price: Decimal
    ident: UUID
    path: Path
    colour: Colour
    raw: bytes
    tags: set[str]
    board: Board
    numbers: dict[int, float]
    pair: tuple[int, str]


def send_back(value: Everything) -> Everything:
    assert type(value) is Everything and type(value.tags) is set
    return value


def path_back(value: Path) -> Path:
    return value / "child"


def not_a_number() -> float:
    return float("nan")


def pair() -> tuple[int, str]:
    return 1, "one"


def sequence() -> Sequence[int]:
    return 1, 2


def lie() -> Pin:
    return {"not": {"a", "pin"}}  # type: ignore[return-value]


def from_cells(number: int, when: datetime, flag: bool, text: str) -> list[str]:
    return [type(number).__name__, str(number), when.isoformat(), repr(flag), text]
