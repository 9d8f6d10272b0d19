"""Embeddings through the shared cache: each text is sent once, in batches, however many jobs and children ask."""

from __future__ import annotations

import sys
from array import array

from orchestrator import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    Vector = list[float]


def pack(vector: Sequence[float]) -> bytes:
    """Return a vector as little-endian 32-bit floats, a fifth of what JSON would take."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def unpack(data: bytes) -> Vector:
    """Return the vector of these bytes."""
    numbers = array("f")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


class Wanted:
    """The texts of one call, without those that come twice, in batches.

    Batches are asked for one after the other, each through the cache: what was paid for stays when a later one fails.
    """

    def __init__(self, texts: Sequence[str], about: dict[str, Any], batch_size: int) -> None:
        if isinstance(texts, str):
            raise TypeError("texts must be a list of texts, not one text")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self._texts = list(texts)
        self._about = about
        self._distinct = list(dict.fromkeys(self._texts))
        self._size = batch_size
        self._vectors: dict[str, Vector] = {}

    def fetch(self, cache: str | None, embed: Callable[[list[str]], list[Vector]]) -> list[Vector]:
        """Return a vector for each text; `embed` asks for those of at most `batch_size` texts."""
        for batch in self._batches():
            if cache is None:
                self._note(batch, [pack(vector) for vector in embed(batch)])
            else:
                keys = [self._key(text) for text in batch]
                found = child.cache(cache).get_many(keys, lambda missing: _packed(embed, missing))
                self._note(batch, found)
        return self._all()

    async def fetch_async(
        self, cache: str | None, embed: Callable[[list[str]], Awaitable[list[Vector]]]
    ) -> list[Vector]:
        """Do the same on an event loop."""

        async def packed(missing: list[Any]) -> list[bytes]:
            return [pack(vector) for vector in await embed([key["text"] for key in missing])]

        for batch in self._batches():
            if cache is None:
                self._note(batch, [pack(vector) for vector in await embed(batch)])
            else:
                keys = [self._key(text) for text in batch]
                self._note(batch, await child.cache(cache).get_many(keys, packed))
        return self._all()

    def _batches(self) -> list[list[str]]:
        return [self._distinct[start : start + self._size] for start in range(0, len(self._distinct), self._size)]

    def _key(self, text: str) -> dict[str, Any]:
        return {**self._about, "text": text}

    def _note(self, batch: list[str], found: Sequence[bytes]) -> None:
        for text, data in zip(batch, found, strict=True):
            self._vectors[text] = unpack(data)

    def _all(self) -> list[Vector]:
        return [self._vectors[text] for text in self._texts]


def _packed(embed: Callable[[list[str]], list[Vector]], missing: list[Any]) -> list[bytes]:
    return [pack(vector) for vector in embed([key["text"] for key in missing])]


def checked(vectors: list[Vector], texts: list[str]) -> str:
    """Return what is wrong with a provider's vectors, "" if nothing is."""
    if len(vectors) != len(texts):
        return f"{len(vectors)} vectors came for {len(texts)} texts"
    if not all(vectors):
        return "an empty vector came"
    return ""
