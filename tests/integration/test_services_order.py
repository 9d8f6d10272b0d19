"""Services that depend on each other: started in order, stopped in the reverse one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import serving
from service_visits import LONG, ask, restarted, state, told

from orchestrator import RestartPolicy, Service, Supervisor
from orchestrator.exceptions import ServiceFailed

pytestmark = pytest.mark.asyncio


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor(workers=0) as opened:
        yield opened


def telling(name: str, folder: Path, *others: str) -> Service:
    return Service(name, target=serving.serve_and_tell, args=(str(folder), name), depends_on=others)


async def test_they_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    async with Supervisor(workers=0) as supervisor:
        db = await supervisor.service(telling("db", tmp_path)).__aenter__()
        api = await supervisor.service(telling("api", tmp_path, "db")).__aenter__()
        ui = await supervisor.service(telling("ui", tmp_path, "api", "db")).__aenter__()
        assert api.state == "waiting" and api.reason == "it depends on 'db', which is starting"
        await ui.wait_ready(LONG)
        assert (db.state, api.state) == ("ready", "ready")
    assert told(tmp_path) == ["db begins", "api begins", "ui begins", "ui ends", "api ends", "db ends"]


async def test_one_that_is_stopped_stops_those_that_need_it(supervisor: Supervisor, tmp_path: Path) -> None:
    async with (
        supervisor.service(telling("db", tmp_path)) as db,
        supervisor.service(telling("ui", tmp_path, "db")) as ui,
    ):
        await ui.wait_ready(LONG)
        await db.stop()
        assert (db.state, ui.state) == ("stopped", "stopped")
        assert told(tmp_path)[2:] == ["ui ends", "db ends"]
        await ui.restart()
        assert ui.state == "waiting" and "'db', which is stopped" in ui.reason
        with pytest.raises(ServiceFailed, match="service 'ui' is waiting: it depends on 'db', which is stopped"):
            await ui.wait_ready(LONG)
        await db.restart()
        await ui.wait_ready(LONG)


async def test_a_crash_of_one_leaves_the_others_alone(supervisor: Supervisor, tmp_path: Path) -> None:
    async with (
        supervisor.service(telling("db", tmp_path)) as db,
        supervisor.service(telling("ui", tmp_path, "db")) as ui,
    ):
        await ui.wait_ready(LONG)
        pid = ui.pid
        await db.restart()
        await restarted(db)
        assert ui.state == "ready" and await ask(ui) == str(pid)


async def test_who_waits_for_a_failed_one_is_told(supervisor: Supervisor, tmp_path: Path) -> None:
    broken = Service(
        "db", target=serving.die_at_once, args=(str(tmp_path),), port=None, ready="message",
        restart=RestartPolicy(max_restarts=0),
    )  # fmt: skip
    async with (
        supervisor.service(broken) as db,
        supervisor.service(telling("api", tmp_path, "db")) as api,
        supervisor.service(telling("ui", tmp_path, "api")) as ui,
    ):
        for service, needed in ((api, "db"), (ui, "api")):
            with pytest.raises(ServiceFailed, match=f"it depends on '{needed}'") as failed:
                await service.wait_ready(LONG)
            assert failed.value.state == "waiting"
            assert "there is no database" in str(failed.value)
        assert (await state(db, "failed")).state == db.state
        assert told(tmp_path) == ["start"]
