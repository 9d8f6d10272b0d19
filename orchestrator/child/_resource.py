"""Things a child keeps between jobs: made at first use, closed when it stops."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def obtain(resources: dict[str, Any], name: str, factory: Callable[[], Any]) -> Any:
    """Return the resource `name`, made by `factory` if it does not exist yet; a failed factory leaves nothing."""
    if name in resources:
        return resources[name]
    value = factory()
    if hasattr(value, "__await__"):
        import asyncio

        # One future for all who ask meanwhile; its failure is theirs, and the next to ask tries again.
        value = asyncio.ensure_future(value)
        value.add_done_callback(
            lambda done: (
                resources.pop(name, None) if done.cancelled() or done.exception() is not None else None
            )
        )
    resources[name] = value
    return value


def close_all(resources: dict[str, Any], report: Callable[[str], None]) -> list[Any]:
    """Close the sync resources, last made first; return the ones that must be closed on their loop."""
    later: list[Any] = []
    for name in reversed(list(resources)):
        value = resources.pop(name)
        if hasattr(value, "add_done_callback") or hasattr(value, "aclose"):
            later.append(value)
            continue
        close = getattr(value, "close", None)
        if close is None:
            continue
        try:
            answer = close()
            if hasattr(answer, "__await__"):
                later.append(answer)
        except Exception as error:
            report(f"resource {name!r} did not close: {error!r}")
    return later


async def aclose_all(values: list[Any], report: Callable[[str], None]) -> None:
    """Close what needs a running loop."""
    for value in values:
        try:
            if hasattr(value, "add_done_callback"):
                value = await value
            closer = getattr(value, "aclose", None) or getattr(value, "close", None)
            answer = value if closer is None else closer()
            if hasattr(answer, "__await__"):
                await answer
        except Exception as error:
            report(f"a resource did not close: {error!r}")
