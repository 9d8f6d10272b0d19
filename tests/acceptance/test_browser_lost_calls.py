"""A browser that dies under a call which Playwright's driver forgets then: the job ends with the reason, and soon."""

from __future__ import annotations

import sys

import pytest
from losing_browsers import open_pages, open_pages_async
from orchestrator_adapters.playwright import BrowserJob, BrowserOptions

from orchestrator import Supervisor

DEADLINE = 120
# About every second one finds a page that is just being opened.
DELAYS = (0.05, 0.12, 0.2)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


@pytest.mark.parametrize("target", [open_pages, open_pages_async])
async def test_a_page_that_is_opened_while_the_browser_dies_does_not_wait_for_ever(
    target: object, browser_path: str
) -> None:
    options = BrowserOptions(executable=browser_path)
    async with Supervisor(1) as supervisor:
        jobs = (BrowserJob(target, args=(delay,), timeout=DEADLINE, browser=options) for delay in DELAYS)
        async with supervisor.map(jobs, ordered=True) as outcomes:
            failures = [outcome.failure_class async for outcome in outcomes]
        assert failures == ["browser_died"] * len(DELAYS)
        # What died is replaced within the child.
        assert [worker.generation for worker in supervisor.statistics().workers] == [1]
