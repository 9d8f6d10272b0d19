"""Which format a table has, by its name or by what the user says: pure."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator_adapters.batch._errors import BatchError

ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
KINDS = ("jsonl", "csv", "parquet")


class Format(NamedTuple):
    """How a table is written down.

    Attributes:
        kind: `jsonl`, `csv` or `parquet`.
        gzip: Whether it is compressed as a whole.
    """

    kind: str
    gzip: bool = False

    def __str__(self) -> str:
        return f"{self.kind}.gz" if self.gzip else self.kind


def parse_format(text: str) -> Format:
    """Return the format that a user named.

    Raises:
        BatchError: If there is none of this name.
    """
    kind, gzip = text.lower().removesuffix(".gz"), text.lower().endswith(".gz")
    if kind not in KINDS:
        raise BatchError(f"format {text!r} is none of jsonl, csv and parquet, each perhaps with .gz")
    return Format(kind, gzip)


def format_of(name: str, given: str | None, *, default: str | None = None) -> Format:
    """Return the format of a file.

    Args:
        name: Its name; the endings tell.
        given: What the user said; goes before the name.
        default: What it is when neither tells.

    Raises:
        BatchError: If nothing tells.
    """
    if given is not None:
        return parse_format(given)
    lower = name.lower()
    gzip = lower.endswith(".gz")
    for ending, kind in ENDINGS.items():
        if lower.removesuffix(".gz").endswith(ending):
            return Format(kind, gzip)
    if default is not None:
        return parse_format(default)
    endings = ".jsonl, .csv or .parquet, perhaps with .gz"
    raise BatchError(f"{name!r} does not tell its format: let it end in {endings}, or give the format")
