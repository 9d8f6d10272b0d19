"""The bracket around an outside effect: begun only when the supervisor has noted it."""

from __future__ import annotations

from orchestrator import _wire
from orchestrator.child._request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, Self

    from orchestrator.child._scope import Scope


class Effect:
    """What `child.effect_begin` returns.

    Attributes:
        done: The effect happened in an earlier attempt of this job: leave it out.
        ref: What was said then with `child.effect_done`.
    """

    def __init__(self) -> None:
        self.done = False
        self.ref: Any = None
        self._pending: Request | None = None

    def __repr__(self) -> str:
        return f"<Effect done={self.done} ref={self.ref!r}>"

    def _note(self, answer: dict[str, Any]) -> None:
        self._pending = None
        if answer["type"] != "effect_ack":
            raise RuntimeError(f"effect_begin: {answer.get('reason', 'denied')}")
        self.done = bool(answer.get("done"))
        self.ref = answer.get("ref")

    def __await__(self) -> Generator[Any, None, Self]:
        if self._pending is not None:
            answer = yield from self._pending.wait_async().__await__()
            self._note(answer)
        return self


def begin(scope: Scope | None, key: str) -> Effect:
    """Have the supervisor note that an effect begins; returns when it has (on a loop that must not block: await it)."""
    if not isinstance(key, str):
        raise TypeError(f"effect_begin({key!r}): the key must be a string, not {type(key).__name__}")
    effect = Effect()
    if scope is not None:
        request = Request(scope, {"type": "effect_begin", "key": key})
        if scope.host.must_not_block():
            effect._pending = request
        else:
            effect._note(request.wait())
    return effect


def done(scope: Scope | None, key: str, ref: Any) -> None:
    """Tell the supervisor that an effect happened."""
    problem = _wire.find_inexact(ref, "ref")
    if problem is not None:
        raise TypeError(": ".join(problem))
    if scope is not None:
        scope.host.write(_wire.encode({"type": "effect_done", "fence": scope.fence, "key": key, "ref": ref}))
