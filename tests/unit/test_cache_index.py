"""What the cache has: bounded in bytes and age, least recently used first, each value counted once."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orchestrator._cache_index import ENTRY_BYTES, Content, Index, Removed

MOST = 10_000
AGE = 100.0


def content(text: str, size: int = 0) -> Content:
    return Content(hashlib.sha256(f"{text} {size}".encode()).digest(), "json", size or len(text), False)


def test_the_one_that_was_used_longest_ago_goes_first() -> None:
    index = Index(3 * (ENTRY_BYTES + 100))
    for name in "abc":
        assert not index.put(name.encode(), content(name, 100), 0)
    assert index.get(b"a", 0) == content("a", 100)
    removed = index.put(b"d", content("d", 100), 0)
    assert removed == Removed([b"b"], [content("b", 100)])
    assert [index.get(key, 0) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert index.evicted == 1


def test_a_value_of_two_keys_counts_once_and_stays_for_the_other() -> None:
    index = Index(MOST)
    index.put(b"a", content("same", 1000), 0)
    index.put(b"b", content("same", 1000), 0)
    assert index.bytes == 1000 + 2 * ENTRY_BYTES
    assert index.remove(b"a") == Removed([b"a"], [])
    assert index.remove(b"b") == Removed([b"b"], [content("same", 1000)])
    assert (index.bytes, len(index)) == (0, 0)


def test_what_is_too_old_counts_as_missing_and_goes_with_the_next() -> None:
    index = Index(MOST, AGE)
    index.put(b"a", content("a"), 0)
    assert index.get(b"a", AGE - 0.1) is not None
    assert index.get(b"a", AGE) is None
    assert index.put(b"b", content("b"), AGE) == Removed([b"a"], [content("a")])


def test_a_key_may_lead_to_another_value_and_to_the_same_again() -> None:
    index = Index(MOST)
    index.put(b"a", content("a"), 0)
    assert index.put(b"a", content("b"), 0) == Removed([], [content("a")])
    assert index.put(b"a", content("b"), 0) == Removed([], [])
    assert (len(index), index.bytes) == (1, ENTRY_BYTES + 1)


def test_one_that_is_larger_than_all_of_it_does_not_fit() -> None:
    index = Index(MOST)
    assert index.fits(MOST - ENTRY_BYTES)
    assert not index.fits(MOST - ENTRY_BYTES + 1)


def test_what_comes_again_is_not_gone() -> None:
    index = Index(MOST)
    removed = Removed()
    for key, name, size in [(b"a", "a", 6000), (b"b", "b", 6000), (b"c", "a", 6000)]:
        removed.add(index.put(key, content(name, size), 0))
    assert removed == Removed([b"a", b"b"], [content("a", 6000), content("b", 6000)])
    assert index.still(removed) == Removed([b"a", b"b"], [content("b", 6000)])


class Model(RuleBasedStateMachine):
    """Beside an index, the plainest thing that could be one."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index(MOST, AGE)
        self.entries: dict[bytes, tuple[Content, float]] = {}  # the one used last is the last
        self.outside: set[bytes] = set()  # contents as somebody keeps them who only hears what goes
        self.now = 0.0

    @rule(key=st.binary(min_size=1, max_size=1), name=st.sampled_from("abcdef"), size=st.integers(1, 4000))
    def put(self, key: bytes, name: str, size: int) -> None:
        new = content(name, size)
        removed = self.index.put(key, new, self.now)
        self.outside.add(new.hash)
        self.outside -= {each.hash for each in removed.contents}
        before = set(self.entries)
        self.entries.pop(key, None)
        self.entries[key] = (new, self.now)
        self.entries = {each: found for each, found in self.entries.items() if self.now - found[1] < AGE}
        while self.size() > MOST:
            del self.entries[next(iter(self.entries))]
        assert set(removed.keys) == before - set(self.entries)

    @rule(key=st.binary(min_size=1, max_size=1))
    def get(self, key: bytes) -> None:
        found = self.entries.get(key)
        expected = None if found is None or self.now - found[1] >= AGE else found[0]
        assert self.index.get(key, self.now) == expected
        if expected is not None:
            self.entries[key] = self.entries.pop(key)

    @rule(key=st.binary(min_size=1, max_size=1))
    def remove(self, key: bytes) -> None:
        self.outside -= {each.hash for each in self.index.remove(key).contents}
        self.entries.pop(key, None)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def size(self) -> int:
        contents: dict[Any, int] = {each.hash: each.size for each, _ in self.entries.values()}
        return sum(contents.values()) + len(self.entries) * ENTRY_BYTES

    @invariant()
    def they_are_the_same(self) -> None:
        assert len(self.index) == len(self.entries)
        assert self.index.bytes == self.size() <= MOST
        assert self.outside == {each.hash for each, _ in self.entries.values()}


Model.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_it_is_as_the_model = Model.TestCase
