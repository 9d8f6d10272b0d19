"""Who computes which key, and who waits for that: each key once at a time, and never two for each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Call:
    """One question for some keys, from then until all that it was told to compute is there.

    Args:
        owner: The attempt that asks: with its end everything of it ends.
        group: The child that the attempt is in.
        number: Of the question, among those of its owner.
        inside: Numbers of the questions whose computing asks this.
        unsure: There may be more of them, for a thread asks that the job started: anything its owner computes may wait
            for it.
        blocks: While it waits, nothing else in its child goes on: it blocks the event loop there.

    Attributes:
        keys: All that it asks for, in its order.
        patient: It waits if it has to.
        holds: Keys that it has the lease of.
        wants: Keys that it waits for.
    """

    __slots__ = ("blocks", "group", "holds", "inside", "keys", "number", "owner", "patient", "unsure", "wants")

    def __init__(
        self,
        owner: object,
        group: object,
        number: int,
        inside: frozenset[int] = frozenset(),
        *,
        unsure: bool = False,
        blocks: bool = False,
    ) -> None:
        self.keys: Sequence[bytes] = ()
        self.patient = False
        self.owner = owner
        self.group = group
        self.number = number
        self.inside = inside
        self.unsure = unsure
        self.blocks = blocks
        self.holds: dict[bytes, None] = {}
        self.wants: dict[bytes, None] = {}

    def surely_holds_up(self, other: Call) -> bool:
        """Return whether what the other one computes cannot go on while this one waits."""
        if self.blocks and other.group is self.group:
            return True
        return other.owner is self.owner and other.number in self.inside

    def may_hold_up(self, other: Call) -> bool:
        """Return whether that could be so, as far as anybody knows."""
        return self.surely_holds_up(other) or (self.unsure and other.owner is self.owner)


class Granted(NamedTuple):
    """A call that waits no longer: these keys are its to compute; the others it has to ask for again."""

    call: Call
    keys: list[bytes]


class Flights:
    """All leases and waits of one cache."""

    def __init__(self) -> None:
        self._holders: dict[bytes, Call] = {}
        self._queues: dict[bytes, dict[Call, None]] = {}  # who waits for a key, in the order of their questions
        self._calls: dict[object, dict[int, Call]] = {}  # by owner and number
        self._waiting: dict[object, dict[Call, None]] = {}  # by group

    def __len__(self) -> int:
        """Return how many keys are being computed."""
        return len(self._holders)

    def call(self, owner: object, number: int) -> Call | None:
        """Return a call that holds leases or waits."""
        return self._calls.get(owner, {}).get(number)

    def holds(self, owner: object) -> bool:
        """Return whether an owner computes anything."""
        return any(call.holds for call in self._calls.get(owner, {}).values())

    def ask(self, call: Call, keys: Iterable[bytes], *, wait: bool) -> list[bytes]:
        """Ask for keys that the cache does not have.

        Args:
            call: Who asks.
            keys: Each once.
            wait: Whether to wait when all of them are being computed.

        Returns:
            What the caller is to compute. If that is nothing, it waits now if it was to.
        """
        keys = list(keys)
        granted = [key for key in keys if key not in self._holders]
        for key in granted:
            self._lease(call, key)
        if granted or not wait:
            return granted
        # To wait for somebody who waits for this very call would be for ever: it computes without a lease.
        granted = [key for key in keys if self._would_never_end(call, self._holders[key])]
        if not granted:
            self._register(call)
            self._waiting.setdefault(call.group, {})[call] = None
            for key in keys:
                call.wants[key] = None
                self._queues.setdefault(key, {})[call] = None
        return granted

    def land(self, call: Call | None, key: bytes, store: Call) -> None:
        """Note that a value is there and is being stored: from now on the store has the lease, and cannot die."""
        holder = self._holders.get(key)
        if holder is not None:
            self._release(holder, key)
        if call is not None and key in call.holds:
            self._release(call, key)
        self._lease(store, key)

    def filled(self, keys: Iterable[bytes]) -> list[Call]:
        """End the leases of keys that the cache has now; returns who waited for them, and waits no longer."""
        woken: dict[Call, None] = {}
        for key in keys:
            holder = self._holders.get(key)
            if holder is not None:
                self._release(holder, key)
            woken.update(self._queues.get(key, {}))
        for call in woken:
            self._stop_waiting(call)
        return list(woken)

    def failed(self, call: Call, keys: Iterable[bytes] | None = None) -> list[Granted]:
        """End leases of a call that does not compute them (all, without `keys`), and its wait; the next ones do."""
        self._stop_waiting(call)
        keys = list(call.holds if keys is None else keys)
        for key in keys:
            if self._holders.get(key) is call:
                self._release(call, key)
        self._forget(call)
        return self._promote(keys)

    def leave(self, owner: object) -> list[Granted]:
        """End all leases and waits of an owner that is dead, done, or about to end."""
        calls = list(self._calls.get(owner, {}).values())
        keys: list[bytes] = []
        for call in calls:
            self._stop_waiting(call)
            keys += call.holds
            for key in list(call.holds):
                self._release(call, key)
        return self._promote(keys)

    def waits(self, owner: object) -> list[Call]:
        """Return an owner's calls that wait."""
        return [call for call in self._calls.get(owner, {}).values() if call.wants]

    # Leases

    def _register(self, call: Call) -> None:
        self._calls.setdefault(call.owner, {})[call.number] = call

    def _forget(self, call: Call) -> None:
        """Drop a call that neither holds nor waits."""
        calls = self._calls.get(call.owner)
        if calls is not None and not call.holds and not call.wants and calls.get(call.number) is call:
            del calls[call.number]
            if not calls:
                del self._calls[call.owner]

    def _lease(self, call: Call, key: bytes) -> None:
        self._register(call)
        self._holders[key] = call
        call.holds[key] = None

    def _release(self, call: Call, key: bytes) -> None:
        call.holds.pop(key, None)
        if self._holders.get(key) is call:
            del self._holders[key]
        self._forget(call)

    def _stop_waiting(self, call: Call) -> None:
        for key in call.wants:
            queue = self._queues[key]
            del queue[call]
            if not queue:
                del self._queues[key]
        if call.wants:
            call.wants.clear()
            group = self._waiting[call.group]
            del group[call]
            if not group:
                del self._waiting[call.group]
        self._forget(call)

    def _promote(self, keys: Iterable[bytes]) -> list[Granted]:
        """Give keys that nobody computes any more to the first of those who wait for them."""
        granted: dict[Call, list[bytes]] = {}
        for key in keys:
            queue = self._queues.get(key)
            if key in self._holders or queue is None:
                continue
            # Not to one in a child whose loop somebody else blocks: it could not begin, and if that waits for this key
            # in the end, never. If there are only such, all of them compute: then nobody waits.
            able = next(filter(self._can_begin, queue), None)
            for call in queue if able is None else [able]:
                granted.setdefault(call, []).append(key)
        for call in granted:
            self._stop_waiting(call)
        for call, mine in granted.items():
            for key in mine:
                if key not in self._holders:
                    self._lease(call, key)
        return [Granted(call, mine) for call, mine in granted.items()]

    def _can_begin(self, call: Call) -> bool:
        return not any(other.blocks and other is not call for other in self._waiting.get(call.group, ()))

    # Circles

    def _would_never_end(self, call: Call, holder: Call) -> bool:
        """Return whether a computation waits, for others who wait, for what the call holds up."""
        if not call.blocks and not call.unsure and not call.inside:
            return False  # nothing waits for it
        if call.surely_holds_up(holder):
            return True
        # That another thread of the job computes it is no circle by itself: that one goes on.
        return any(
            call.may_hold_up(found)
            for found in self._reached(holder)
            if found is not holder or found.owner is not call.owner
        )

    def _reached(self, holder: Call) -> Iterator[Call]:
        """Yield whose computations must end before this one can: itself, and what it waits for."""
        seen = {holder}
        pending = [holder]
        while pending:
            found = pending.pop()
            yield found
            for waiting in self._waiting.get(found.group, ()):
                if waiting.may_hold_up(found):
                    for key in waiting.wants:
                        following = self._holders.get(key)
                        if following is not None and following not in seen:
                            seen.add(following)
                            pending.append(following)
