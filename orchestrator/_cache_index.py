"""Which keys the cache has, what they lead to, and what has to go: by age, and least recently used first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

# What an entry takes beside its value: here some 350 bytes, and its rows in a file. Counted, the bound of the cache
# bounds this index too, however small the values are.
ENTRY_BYTES = 512


class Content(NamedTuple):
    """A value, known by what it is.

    Attributes:
        hash: SHA-256 of its kind and its bytes.
        kind: `json` or `bytes`.
        size: In bytes.
        is_file: It is kept as a file of its own.
    """

    hash: bytes
    kind: str
    size: int
    is_file: bool


@dataclass(slots=True)
class Removed:
    """What is gone from the index, and has to go elsewhere.

    Attributes:
        keys: Their entries.
        contents: What no entry leads to any more.
    """

    keys: list[bytes] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.keys or self.contents)

    def add(self, other: Removed) -> None:
        """Take over what another one has."""
        self.keys += other.keys
        self.contents += other.contents


class _Held:
    """A content, and how many entries lead to it."""

    __slots__ = ("content", "entries")

    def __init__(self, content: Content) -> None:
        self.content = content
        self.entries = 0


class Index:
    """The entries.

    Args:
        most_bytes: Of all values, each counted once, with `ENTRY_BYTES` for each entry.
        most_age: Seconds after which an entry counts as missing.

    Attributes:
        bytes: What counts against the bound.
        evicted: Entries that had to go for want of space, or of age, so far.
    """

    def __init__(self, most_bytes: int, most_age: float | None = None) -> None:
        self.most_bytes = most_bytes
        self.most_age = most_age
        self.bytes = 0
        self.evicted = 0
        self._entries: OrderedDict[bytes, tuple[_Held, float]] = OrderedDict()  # the one used last comes last
        self._held: dict[bytes, _Held] = {}
        # In the order of their births; kept only if anything dies of age.
        self._births: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> Content | None:
        """Return what a key leads to, and count that as a use; None also for what is too old."""
        found = self._entries.get(key)
        if found is None or self._is_old(found[1], now):
            return None
        self._entries.move_to_end(key)
        return found[0].content

    def put(self, key: bytes, content: Content, now: float, *, born: float | None = None) -> Removed:
        """Have a key lead to a content; returns what has to go for that, which may be this very entry."""
        removed = Removed()
        self._drop(key, removed)
        held = self._held.get(content.hash)
        if held is None:
            held = self._held[content.hash] = _Held(content)
            self.bytes += content.size
        held.entries += 1
        self.bytes += ENTRY_BYTES
        born = now if born is None else born
        self._entries[key] = (held, born)
        if self.most_age is not None:
            self._births[key] = born
        self._evict(now, removed)
        if key in self._entries:
            # It led elsewhere before, or to the very same: its entry is replaced, not removed.
            removed.keys = [each for each in removed.keys if each != key]
            removed.contents = [each for each in removed.contents if each.hash != content.hash]
        return removed

    def sort_births(self) -> None:
        """Put entries that came in another order in that of their births."""
        self._births = OrderedDict(sorted(self._births.items(), key=lambda item: item[1]))

    def remove(self, key: bytes) -> Removed:
        """Forget a key."""
        removed = Removed()
        self._drop(key, removed)
        return removed

    def still(self, removed: Removed) -> Removed:
        """Return what of that is not there again, by a later `put`."""
        return Removed(
            [key for key in removed.keys if key not in self._entries],
            [each for each in removed.contents if each.hash not in self._held],
        )

    def contents(self) -> list[Content]:
        """Return what entries lead to."""
        return [held.content for held in self._held.values()]

    def fits(self, size: int) -> bool:
        """Return whether a value can be kept at all."""
        return size + ENTRY_BYTES <= self.most_bytes

    def _is_old(self, born: float, now: float) -> bool:
        return self.most_age is not None and now - born >= self.most_age

    def _evict(self, now: float, removed: Removed) -> None:
        before = len(removed.keys)
        while self._births and self._is_old(self._births[key := next(iter(self._births))], now):
            self._drop(key, removed)
        while self.bytes > self.most_bytes and self._entries:
            self._drop(next(iter(self._entries)), removed)
        self.evicted += len(removed.keys) - before

    def _drop(self, key: bytes, removed: Removed) -> None:
        found = self._entries.pop(key, None)
        if found is None:
            return
        held = found[0]
        self._births.pop(key, None)
        removed.keys.append(key)
        self.bytes -= ENTRY_BYTES
        held.entries -= 1
        if not held.entries:
            del self._held[held.content.hash]
            self.bytes -= held.content.size
            removed.contents.append(held.content)
