"""What an earlier run of the same name left, and what of it still counts."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator_adapters.batch import _store_rows as rows
from orchestrator_adapters.batch._errors import BatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator_adapters.batch._store import Store

# Rows of the journal that are looked at together: a few hundred kilobytes.
_BLOCK = 4096
_MOST_DIFFERENCES = 5


class Decision(NamedTuple):
    """What a run does with the journal it finds.

    Attributes:
        anew: Whether everything in it is forgotten.
        notes: What to say of it, a line each.
    """

    anew: bool
    notes: tuple[str, ...] = ()


def decide(found: dict[str, Any], facts: dict[str, Any], *, fresh: bool) -> Decision:
    """Return whether a run goes on with what the journal has.

    Args:
        found: What the journal says; empty if it is new.
        facts: The same of this run: `target`, `params` and `handler`, a hash of the handler's file.
        fresh: The user wants to begin anew.

    Raises:
        BatchError: If an unfinished run was of something else.
    """
    if not found or fresh:
        return Decision(anew=True)
    differences = [
        *_differences("target", found.get("target"), facts["target"]),
        *_differences("", found.get("params"), facts["params"]),
    ]
    handler_changed = found.get("handler") != facts["handler"]
    if not found.get("finished"):
        if differences:
            shown = "; ".join(differences[:_MOST_DIFFERENCES])
            more = len(differences) - _MOST_DIFFERENCES
            raise BatchError(
                f"the unfinished run {found.get('name')!r} was of something else: {shown}"
                f"{f'; and {more} more' if more > 0 else ''}. Undo that to go on with it, or begin anew with --fresh"
            )
        note = "the handler's file has changed since this run began; what is done stays as it is"
        return Decision(anew=False, notes=(note,) if handler_changed else ())
    if differences:
        return Decision(anew=True, notes=(f"a new run: {'; '.join(differences[:_MOST_DIFFERENCES])}",))
    if handler_changed and not found.get("exit_code"):
        return Decision(anew=True, notes=("a new run: the handler's file has changed",))
    note = "the handler's file has changed; failed records stay so until `orchestrator batch retry-failed`"
    return Decision(anew=False, notes=(note,) if handler_changed else ())


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{path}.{key}" if path else str(key)
            if key not in new:
                yield f"{place} is gone (was {_shown(old[key])})"
            elif key not in old:
                yield f"{place} is new ({_shown(new[key])})"
            else:
                yield from _differences(place, old[key], new[key])
    elif old != new or type(old) is not type(new):
        yield f"{path} is {_shown(new)} (was {_shown(old)})"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


class _Kept:
    """The hashes of records that were set aside, eight bytes each, some of which are found again."""

    def __init__(self, hashes: list[int]) -> None:
        self._hashes = array("Q", hashes)
        self._used = bytearray(len(hashes))

    def take(self, hash: bytes) -> bool:
        """Return whether a record of this hash is there that nobody has taken yet, and take it."""
        wanted = int.from_bytes(hash[:8], "big")
        at = bisect_left(self._hashes, wanted)
        while at < len(self._hashes) and self._hashes[at] == wanted:
            if not self._used[at]:
                self._used[at] = 1
                return True
            at += 1
        return False


class Earlier:
    """What earlier runs have of each record, asked for in the order of the source.

    Args:
        store: The run's journal, open.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._block: dict[int, rows.Known] = {}
        self._beyond = 1  # the first number that no block covers yet
        self._ended = False
        self._kept: _Kept | None = None
        self._begun: dict[int, rows.Begun] = {}
        self.has_changed = False

    async def open(self) -> None:
        """Look what is there."""
        self._begun = {each.number: each for each in await self._store.call(rows.read_begun)}
        await self._read_kept()

    async def _read_kept(self) -> None:
        hashes = await self._store.call(rows.read_kept)
        self._kept = _Kept(hashes) if hashes else None

    def covers(self, number: int) -> bool:
        """Return whether `done` can tell of a record; else `load` makes it so."""
        return self._ended or number < self._beyond

    async def load(self, number: int) -> None:
        """Read what is known of the next records."""
        found = await self._store.read(lambda connection: rows.read_known(connection, number, _BLOCK))
        self._block = {each.number: each for each in found}
        self._ended = len(found) < _BLOCK
        self._beyond = found[-1].number + 1 if found else number

    def done(self, number: int) -> rows.Known | None:
        """Return what is known of a record that is done."""
        return self._block.get(number)

    async def changed(self, number: int) -> None:
        """Set aside everything from a record on, which is another one now."""
        self.has_changed = True
        await self._store.call(lambda connection: rows.displace(connection, number))
        self._block, self._ended = {}, True
        self._begun = {each: begun for each, begun in self._begun.items() if each < number}
        await self._read_kept()

    async def end(self, last: int) -> None:
        """Set aside what is known of records behind the last one: the input has become shorter."""
        if not self.covers(last + 1):
            await self.load(last + 1)
        if any(number > last for number in self._block):
            await self.changed(last + 1)

    def keeps(self, hash: bytes) -> bool:
        """Return whether a record of this hash was done at another place, and take it."""
        return self._kept is not None and self._kept.take(hash)

    def begun(self, number: int, hash: bytes) -> rows.Begun | None:
        """Return what is known of a record that was tried and is not done."""
        found = self._begun.pop(number, None)
        return found if found is not None and found.hash == hash.hex().upper() else None
