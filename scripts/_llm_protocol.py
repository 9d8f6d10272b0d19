"""What the two REST APIs of the local model server have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple
from typing import Protocol as Shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _llm_faults import Fault


class Call(NamedTuple):
    """One request, whatever API it came by."""

    endpoint: str  # generate, stream, embed or count
    model: str
    prompt: str  # all its text
    texts: list[str]  # to embed, one vector each
    schema: dict[str, Any] | None  # that the answer has to satisfy
    dimensions: int | None  # of the vectors
    single: bool  # one text was asked for, not a list


class Reply(NamedTuple):
    """One HTTP reply, and how it goes wrong."""

    status: int
    body: bytes
    kind: str = "application/json; charset=utf-8"
    headers: Mapping[str, str] = {}
    closes: bool = False  # the connection, without any reply
    cuts: bool = False  # the connection, in the middle of the body

    @classmethod
    def of(cls, status: int, value: Any, headers: Mapping[str, str] = {}) -> Reply:
        """Return a reply of JSON."""
        return cls(status, json.dumps(value).encode(), headers=headers)

    @classmethod
    def events(cls, values: list[Any], end: str = "") -> Reply:
        """Return a reply of server-sent events."""
        text = "".join(f"data: {json.dumps(value)}\n\n" for value in values) + (end and f"data: {end}\n\n")
        return cls(200, text.encode(), "text/event-stream")


class Protocol(Shape):
    """How one API says things."""

    @property
    def name(self) -> str: ...
    def read(self, path: str, content: dict[str, Any]) -> Call | None: ...
    def key(self, headers: Any, query: dict[str, list[str]]) -> str | None: ...
    def bad_key(self) -> Reply: ...
    def refused(self, fault: Fault, model: str, limit: float) -> Reply: ...
    def failed(self, status: int, message: str = ...) -> Reply: ...
    def counted(self, tokens: int) -> Reply: ...
    def embedded(self, call: Call, vectors: list[list[float]]) -> Reply: ...
    def generated(self, call: Call, text: str, fault: str, tokens: int) -> Reply: ...
