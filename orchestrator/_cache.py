"""The cache of one supervisor: answers what running jobs ask of it, each key computed once however many ask."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections import Counter, OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator._cache_file import Value, digest
from orchestrator._cache_flights import Call, Flights, Granted
from orchestrator._cache_index import Content, Index, Removed
from orchestrator._cache_store import CacheStore
from orchestrator._statistics import CacheStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from orchestrator import _frames
    from orchestrator._attempt import Attempt
    from orchestrator._options import Options

# Of the values in a persistent cache's database so much is kept here: they are given without asking the disk.
_HOT_BYTES = 64 * 2**20
# One answer: a child reads it in one go, and other frames wait meanwhile. What does not fit is asked for again.
_ANSWER_BYTES = 2**20
# Seconds between two lines that say how much had to go.
_EVICTIONS_EVERY = 10.0
# Uses that are not on the disk yet; a killed supervisor forgets that order, and nothing else.
_MOST_USES = 10_000


class Cache:
    """Owns what all children of a supervisor share; every method belongs to the engine's loop.

    Args:
        options: The supervisor's options.
        folder: Returns the supervisor's temp folder.
        log: Logs an event.
        guarded: Calls a function of the engine's, whose failure is a fault of ours.
    """

    def __init__(
        self,
        options: Options,
        folder: Callable[[], str],
        log: Callable[..., None],
        guarded: Callable[..., None],
    ) -> None:
        self._path = None if options.cache is None else os.fspath(options.cache)
        self._log = log
        self._guarded = guarded
        self._loop = asyncio.get_running_loop()
        self._index = Index(options.cache_bytes, options.cache_age)  # type: ignore[arg-type]  # it is seconds by now
        self._flights = Flights()
        self._store = CacheStore(
            self._path, lambda: os.path.join(folder(), "cache"), self._loop, partial(guarded, self._disk_refused)
        )
        # Bytes of small values; in memory all of them, else the hot ones, the one used last at the end.
        self._values: OrderedDict[bytes, bytes] = OrderedDict()
        self._values_size = 0
        self._landing: Counter[bytes] = Counter()  # contents that are being stored
        self._landed = Call(self, self, 0)  # has the lease of keys that are being stored
        self._uses: dict[bytes, None] = {}
        self._hits = self._misses = self._computed = 0
        self._told_evicted = 0
        self._told_evicted_at = float("-inf")
        self._has_refused = False
        self._told_too_large = False

    # Life

    async def open(self) -> None:
        """Open the file of a persistent cache.

        Raises:
            CacheError: If that cannot be.
        """
        if self._path is not None:
            self._index = await self._store.open(self._index.most_bytes, self._index.most_age)
            self._log("cache.opened", path=self._path, entries=len(self._index), bytes=self._index.bytes)

    async def aclose(self) -> None:
        """Write what is left to write, and remove what nobody needs any more."""
        self._note_uses()
        self._tell_evictions(at_last=True)
        await self._store.aclose()

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(
            entries=len(self._index),
            bytes=self._index.bytes,
            hits=self._hits,
            misses=self._misses,
            computed=self._computed,
        )

    # What jobs say

    def heard(self, attempt: Attempt, frame: _frames.Cache) -> None:
        """Act on what a running attempt says."""
        if attempt.at_end is None:
            attempt.at_end = self._leave
        try:
            if frame.op == "get":
                self._asked(attempt, frame)
            elif frame.op == "fill":
                self._fill(attempt, frame)
            elif frame.op == "drop":
                if frame.problem:
                    self._store.files.doubt()
                    self._disk_refused(frame.problem)
                call = self._flights.call(attempt, frame.lease)
                if call is not None:
                    self._fail(call)
            else:
                raise ValueError(f"there is no operation {frame.op!r}")
        except ValueError as error:
            self._deny(attempt, frame.request, str(error))

    def _asked(self, attempt: Attempt, frame: _frames.Cache) -> None:
        keys = [bytes.fromhex(key) for key in frame.keys]
        lost = [bytes.fromhex(key) for key in frame.lost]
        for key in lost:
            self._forget_lost(key)
        inside = frozenset(frame.inside)
        call = Call(attempt, attempt.worker, frame.request, inside, unsure=frame.unsure, blocks=frame.blocks)
        call.keys, call.patient = keys, frame.wait
        self._get(call)

    def _leave(self, attempt: Attempt) -> None:
        """End all leases and waits of an attempt that is over, or that is to end: the next ones compute."""
        for call in self._flights.waits(attempt):
            self._deny(attempt, call.number, "the job is to end")
        if self._flights.holds(attempt):
            self._store.discard([f"{attempt.fence}-"])
        self._grant(self._flights.leave(attempt))

    def _fail(self, call: Call) -> None:
        """End a call whose computing failed, or that waits no longer."""
        if call.holds:
            attempt: Any = call.owner
            self._store.discard([f"{attempt.fence}-{call.number}-"])
        self._grant(self._flights.failed(call))

    def _deny(self, attempt: Attempt, request: int, reason: str) -> None:
        attempt.worker.send({"type": "denied", "request": request, "reason": reason})

    # Questions

    def _get(self, call: Call) -> None:
        now = time.time()
        found: dict[int, Content] = {}
        unknown: dict[bytes, int] = {}
        for place, key in enumerate(call.keys):
            content = self._index.get(key, now)
            if content is None:
                unknown.setdefault(key, place)
            else:
                found[place] = content
        missing = self._flights.ask(call, unknown, wait=call.patient and not found) if unknown else []
        if not call.wants:
            self._misses += len(missing)
            self._answer(call, found, [unknown[key] for key in missing])

    def _answer(self, call: Call, found: Mapping[int, Content], missing: Sequence[int]) -> None:
        """Say what is there, as much as fits; first read what is only on the disk."""
        said: dict[int, Content] = {}
        room = _ANSWER_BYTES
        for place, content in found.items():
            room -= 0 if content.is_file else content.size
            if said and room < 0:
                break
            said[place] = content
        cold = {each.hash for each in said.values() if not each.is_file and each.hash not in self._values}
        if cold and self._store.is_persistent:
            self._store.read(list(cold), partial(self._guarded, self._answer_with, call, said, missing))
        else:
            self._answer_with(call, said, missing, {})

    def _answer_with(
        self, call: Call, said: Mapping[int, Content], missing: Sequence[int], read: Mapping[bytes, bytes]
    ) -> None:
        attempt: Any = call.owner
        if attempt.at_end is None:
            return  # it is over; what it was to compute was given to others
        values: list[dict[str, Any] | None] = [None] * len(call.keys)
        gone = []
        for place, content in said.items():
            key = call.keys[place]
            if content.is_file:
                path = self._store.files.path(content)
                values[place] = {"kind": content.kind, "size": content.size, "file": path}
            else:
                data = self._values.get(content.hash, read.get(content.hash))
                if data is None:
                    gone.append(key)
                    continue
                self._keep(content, data)
                values[place] = _inline(content.kind, data)
            self._hits += 1
            if self._store.is_persistent:
                self._uses.pop(key, None)
                self._uses[key] = None
        if len(self._uses) > _MOST_USES:
            self._note_uses()
        for key in gone:
            self._remove(self._index.remove(key))
        if gone and not missing and not any(values):
            # There is nothing to say: as if they had never been there.
            self._get(call)
            return
        frame: dict[str, Any] = {"type": "cached", "request": call.number, "values": values}
        if missing:
            frame["missing"] = list(missing)
            frame["folder"] = self._incoming()
        attempt.worker.send(frame)

    def _incoming(self) -> str | None:
        """Return where children write large values; None when there is no such place."""
        try:
            files = self._store.files
            files.make()
        except OSError as error:
            self._disk_refused(error)
            return None
        return files.incoming

    def _forget_lost(self, key: bytes) -> None:
        """Forget an entry whose file a child did not find; it may be that it only looked too late."""
        content = self._index.get(key, time.time())
        if content is not None and content.is_file and not self._store.files.has(content):
            self._remove(self._index.remove(key))

    def _grant(self, granted: Iterable[Granted]) -> None:
        """Tell those who waited what they are to compute now."""
        for call, keys in granted:
            self._misses += len(keys)
            places = {key: place for place, key in enumerate(call.keys)}
            self._answer(call, {}, [places[key] for key in keys])

    # Fills

    def _fill(self, attempt: Attempt, frame: _frames.Cache) -> None:
        call = self._flights.call(attempt, frame.lease)
        if len(frame.keys) != len(frame.values):
            raise ValueError(f"{len(frame.values)} values for {len(frame.keys)} keys")
        entries: list[tuple[bytes, Value]] = []
        now = time.time()
        for key, value in zip(map(bytes.fromhex, frame.keys), map(_value, frame.values), strict=True):
            is_there = self._index.get(key, now) is not None
            if is_there or not self._index.fits(value.content.size):
                if not is_there:
                    self._refuse_size(value.content)
                if value.name:
                    self._store.discard([value.name])
                if call is not None:
                    self._grant(self._flights.failed(call, [key]))
            else:
                entries.append((key, value))
        for key, value in entries:
            self._flights.land(call, key, self._landed)
            self._landing[value.content.hash] += 1
        acknowledge = partial(self._acknowledge, attempt, frame.request)
        if self._store.is_persistent or any(value.data is None for _, value in entries):
            self._store.put(entries, partial(self._guarded, self._stored, entries, acknowledge))
        else:
            self._stored(entries, acknowledge, {})

    def _acknowledge(self, attempt: Attempt, request: int) -> None:
        # If it is over, its worker may have another child by now, which asks under the same numbers.
        if attempt.at_end is not None:
            attempt.worker.send({"type": "cached", "request": request})

    def _stored(
        self, entries: Sequence[tuple[bytes, Value]], acknowledge: Callable[[], None], refused: Mapping[bytes, str]
    ) -> None:
        """Have entries that are on the disk now, as far as that took them."""
        now = time.time()
        removed = Removed()
        there = []
        for key, value in entries:
            content = value.content
            self._landing[content.hash] -= 1
            if not self._landing[content.hash]:
                del self._landing[content.hash]
            if key in refused:
                self._log("cache.value_refused", "warning", reason=refused[key], bytes=content.size)
                continue
            if value.data is not None:
                self._keep(content, value.data)
            removed.add(self._index.put(key, content, now))
            there.append(key)
        self._computed += len(there)
        acknowledge()
        for call in self._flights.filled(there):
            self._get(call)
        self._grant(self._flights.failed(self._landed, list(refused)))
        self._remove(removed)
        self._tell_evictions()

    # Values

    def _keep(self, content: Content, data: bytes) -> None:
        """Have a small value at hand; of a persistent cache only so many of them."""
        if content.hash in self._values:
            self._values.move_to_end(content.hash)
            return
        self._values[content.hash] = data
        self._values_size += len(data)
        while self._store.is_persistent and self._values_size > _HOT_BYTES:
            _, dropped = self._values.popitem(last=False)
            self._values_size -= len(dropped)

    def _remove(self, removed: Removed) -> None:
        """Forget what the index has forgotten; a value that is coming again just now stays."""
        removed = self._index.still(removed)
        removed.contents = [each for each in removed.contents if each.hash not in self._landing]
        for content in removed.contents:
            data = self._values.pop(content.hash, None)
            self._values_size -= 0 if data is None else len(data)
        for key in removed.keys:
            self._uses.pop(key, None)
        if removed:
            self._store.remove(removed)

    def _note_uses(self) -> None:
        if self._uses:
            now = time.time()
            self._store.note_uses([(now + place * 1e-6, key) for place, key in enumerate(self._uses)])
            self._uses.clear()

    # What people should know

    def _refuse_size(self, content: Content) -> None:
        if not self._told_too_large:
            self._told_too_large = True
            remedy = "it is computed each time; raise cache_bytes"
            self._log(
                "cache.value_refused",
                "warning",
                reason=f"it is larger than the whole cache; {remedy}",
                bytes=content.size,
                cache_bytes=self._index.most_bytes,
            )

    def _disk_refused(self, error: Exception | str) -> None:
        if not self._has_refused:
            self._has_refused = True
            remedy = "values are used, and may have to be computed again; make room or mend the disk"
            self._log("cache.write_failed", "warning", path=self._path, error=str(error), remedy=remedy)

    def _tell_evictions(self, *, at_last: bool = False) -> None:
        count = self._index.evicted - self._told_evicted
        now = self._loop.time()
        if count and (at_last or now - self._told_evicted_at >= _EVICTIONS_EVERY):
            self._told_evicted, self._told_evicted_at = self._index.evicted, now
            self._log("cache.evicted", entries=count, left=len(self._index), bytes=self._index.bytes)


def _inline(kind: str, data: bytes) -> dict[str, Any]:
    if kind == "json":
        return {"json": data.decode("utf-8", "surrogatepass")}
    return {"bytes": base64.b64encode(data).decode("ascii")}


def _value(said: _frames.CacheValue) -> Value:
    """Return a value that a child sent, or the file that it names.

    Raises:
        ValueError: If it is neither.
    """
    if said.json is not None:
        kind, data = "json", said.json.encode("utf-8", "surrogatepass")
    elif said.bytes is not None:
        kind, data = "bytes", base64.b64decode(said.bytes, validate=True)
    elif said.file is not None and said.kind in ("json", "bytes"):
        return Value(Content(bytes.fromhex(said.sha256), said.kind, said.size, True), None, said.file)
    else:
        raise ValueError("a value is neither json, nor bytes, nor a file")
    return Value(Content(digest(kind, data), kind, len(data), False), data)
