"""Profiles that are kept between jobs and held by one at a time, and browsers that are replaced in time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import page_of_everything
import pytest
from orchestrator_adapters.playwright import BrowserJob, BrowserOptions
from small_site import Site

from orchestrator import Supervisor

pytestmark = pytest.mark.usefixtures("browser_path")
DEADLINE = 120


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


async def there(path: Path) -> None:
    async with asyncio.timeout(DEADLINE):
        while not path.exists():  # noqa: ASYNC110  another process makes it
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("count_visits", "hold"),
    [
        (page_of_everything.count_visits, page_of_everything.hold),
        pytest.param(page_of_everything.count_visits_async, page_of_everything.hold_async, marks=pytest.mark.browser),
    ],
)
async def test_profile_is_kept_and_held_by_one(
    count_visits: Callable[..., Any], hold: Callable[..., Any], site: Site, tmp_path: Path
) -> None:
    profile = BrowserOptions(mode="persistent", user_data_dir=tmp_path / "profile")
    visit = BrowserJob(count_visits, args=(f"{site.url}/plain",), browser=profile)
    flag = tmp_path / "open"
    async with Supervisor(workers=2) as supervisor:
        assert [await supervisor.run(visit), await supervisor.run(visit)] == [1, 2]
        holding = await supervisor.submit(BrowserJob(hold, args=(str(flag),), browser=profile))
        await there(flag)
        outcome = await (await supervisor.submit(visit)).outcome()
        assert (outcome.status, outcome.failure_class) == ("failed", "launch_failed")
        text = str(outcome.error).partition("\n")[0]
        assert "is in use" in text and str(tmp_path / "profile") in text and "a profile of its own" in text
        os.unlink(flag)
        assert (await holding.outcome()).succeeded
        assert await supervisor.run(visit) == 3


@pytest.mark.parametrize(
    "options", [{"recycle_after": 2}, pytest.param({"recycle_age": 0.001}, marks=pytest.mark.browser)]
)
async def test_browser_is_replaced_between_jobs(options: dict[str, Any]) -> None:
    job = BrowserJob(page_of_everything.processes, browser=BrowserOptions(**options))
    async with Supervisor(workers=1) as supervisor:
        seen = [await supervisor.run(job) for _ in range(4)]
    assert len({tuple(each[:2]) for each in seen}) == 1, "the child and the driver stay"
    assert len({each[2] for each in seen}) == (2 if "recycle_after" in options else 4)
