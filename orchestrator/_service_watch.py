"""Ask one child of a service how it is: until it is ready, and then, if that was wanted, as long as it lives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from anyio import CancelScope

from orchestrator import _liveness, _probes

if TYPE_CHECKING:
    from orchestrator._service_address import Address
    from orchestrator._service_spec import Probe, Service

# Somebody waits for a service that starts: a question costs a millisecond, and a tenth of what has been waited for
# already is not felt.
_FIRST_PAUSE = 0.02
_SHARE = 0.1
_LONGEST_PAUSE = 0.25


class Patient(Protocol):
    """Who hears how the service is."""

    def is_ready(self) -> None: ...
    def not_yet(self, problem: str) -> None: ...
    def is_well(self) -> None: ...
    def is_sick(self, problem: str, times: int) -> None: ...


class Watch:
    """Follows one child.

    Args:
        service: What its author wrote.
        address: Where it listens.
        patient: Hears of it.
    """

    def __init__(self, service: Service, address: Address, patient: Patient) -> None:
        self._service = service
        self._address = address
        self._patient = patient
        self._scope = CancelScope()
        self._ready = asyncio.Event()

    def began_to_serve(self) -> None:
        """Hear that it is ready, whoever found out."""
        self._ready.set()

    def end(self) -> None:
        """Ask no more."""
        self._scope.cancel()

    async def run(self) -> None:
        """Ask until `end`."""
        with self._scope:
            if self._service.probe is not None:
                await self._until_ready(self._service.probe)
            if self._service.health is not None:
                await self._ready.wait()
                await self._look_after(self._service.health)

    async def _ask(self, probe: Probe) -> str | None:
        return await _probes.ask(probe, self._address.numeric, self._address.port or 0, host=self._address.host)

    async def _until_ready(self, probe: Probe) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (problem := await self._ask(probe)) is not None:
            self._patient.not_yet(problem)
            pause = max(_FIRST_PAUSE, _SHARE * (loop.time() - began))
            await asyncio.sleep(min(pause, _LONGEST_PAUSE, cast("float", probe.every)))
        self._patient.is_ready()

    async def _look_after(self, probe: Probe) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            await asyncio.sleep(cast("float", probe.every))
            began = loop.time()
            problem = await self._ask(probe)
            if problem is None:
                failures = 0
                self._patient.is_well()
            elif not _liveness.is_stall(loop.time() - began - cast("float", probe.timeout)):
                # Else it was we who did not listen, and its answer may have come in time.
                failures += 1
                self._patient.is_sick(problem, failures)
