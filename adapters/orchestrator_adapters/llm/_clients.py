"""The clients that a child keeps: one for sync jobs, and one for the event loop of async ones."""

from __future__ import annotations

import os

from orchestrator import child
from orchestrator_adapters.llm._errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Awaitable, Callable, Hashable
    from typing import Any, TypeVar

    from orchestrator_adapters.llm._throttle import Refusals

    T = TypeVar("T")


def secret(name: str) -> str:
    """Return the value of the environment variable that holds the key.

    Raises:
        Refused: If there is none.
    """
    # A line end from a file would make an illegal header, and an error that shows it.
    value = os.environ.get(name, "").strip()
    if not value:
        raise Refused(
            f"the environment variable {name} is not set here: name it in `secrets` of the supervisor or of the batch, "
            "and set it where that starts"
        )
    return value


def missing(package: str, extra: str, error: ImportError) -> ImportError:
    """Return what to raise when a client's package cannot be imported."""
    return ImportError(
        f"{package} cannot be imported here ({error}): install it, or this package with its extra {extra!r}, "
        f"as in pip install 'subprocess-orchestrator[{extra}]'"
    )


def without(secret: str, text: str, name: str) -> str:
    """Return a text without the key, should a provider have repeated it."""
    return text.replace(secret, f"[secret {name}]") if secret else text


class LoopClients:
    """A client for each event loop, for a session that was opened in one is of no use in another."""

    def __init__(self, make: Callable[[], Any], close: Callable[[Any], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._clients: dict[AbstractEventLoop, Any] = {}

    def get(self) -> Any:
        import asyncio

        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            # In a child there is one loop for all its life; elsewhere those that are over must not pile up.
            for other in [known for known in self._clients if known.is_closed()]:
                del self._clients[other]
            self._clients[loop] = self._make()
        return self._clients[loop]

    async def aclose(self) -> None:
        import asyncio

        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await self._close(client)


def loop_client(name: Hashable, make: Callable[[], Any], close: Callable[[Any], Awaitable[None]]) -> Any:
    """Return this child's client for the running loop; it is closed when the child stops."""
    kept: LoopClients = child.resource(f"orchestrator_adapters:{name} aio", lambda: LoopClients(make, close))
    return kept.get()


def client(name: Hashable, make: Callable[[], T]) -> T:
    """Return this child's client for sync jobs; it is closed when the child stops."""
    return child.resource(f"orchestrator_adapters:{name}", make)


def refusals(name: Hashable) -> Refusals:
    """Return what this child knows of the refusals of a model."""
    from orchestrator_adapters.llm._throttle import Refusals

    return child.resource(f"orchestrator_adapters:{name} refusals", Refusals)
