"""Quotas as a model server counts them for itself: held by all children together, with the pauses that it names."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import asking
import pytest
from local_llm import KEY, served, stats

from orchestrator import Job, Limit, RetryPolicy, Supervisor

# A window of a second is exact where permits are granted; requests take differently long from there to the server.
MARGIN = 0.88
# On a machine that other tests keep busy as well, by more.
BUSY = 0.7

ASK = {"sync": asking.ask, "async": asking.ask_async}
each_way = pytest.mark.parametrize("way", list(ASK))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(asking.KEY, KEY)


def jobs(way: str, url: str, prompts: list[str], api: str = "gemini", **options: Any) -> list[Job]:
    retry = RetryPolicy(attempts=8, on="orchestrator_adapters.llm.Throttled", backoff=0.01)
    return [
        Job(ASK[way], args=(api, prompt, {"base_url": url, "limit": "gemini", **options}), retry=retry, timeout=60)
        for prompt in prompts
    ]


async def run(supervisor: Supervisor, jobs: list[Job]) -> float:
    """Run jobs that all have to succeed; return how long they took, from the first outcome on."""
    async with supervisor.map(jobs) as outcomes:
        began = 0.0
        async for found in outcomes:
            assert found.status == "succeeded", found.error
            began = began or time.monotonic()
    return time.monotonic() - began


@pytest.mark.parametrize("way", ["async", pytest.param("sync", marks=pytest.mark.soak)])
async def test_four_children_never_exceed_the_rate_and_six_requests_at_once(way: str) -> None:
    with served(quotas=[["requests", 40, 1]], latency=0.05) as url:
        limits = [Limit("gemini", rate=40 * BUSY, per=1)]
        concurrency = 3 if way == "async" else 1
        async with Supervisor(
            workers=4, concurrency=concurrency, limits=limits, max_permits=6, secrets=[asking.KEY]
        ) as supervisor:
            seconds = await run(supervisor, jobs(way, url, [f"fox {number}" for number in range(120)]))
        found = stats(url)
    (quota,) = found["quotas"]
    assert found["answered"] == found["requests"] == found["distinct"] == 120 and found["refused"] == 0
    assert quota["peak"] <= 40 and found["most_open"] <= 6
    assert seconds < 120 / (40 * 0.4)  # on a busy machine; how much is used when it is idle is for the long lane


@pytest.mark.parametrize("way", ["sync", pytest.param("async", marks=pytest.mark.soak)])
async def test_tokens_are_a_quota_too_and_estimates_are_put_right(way: str) -> None:
    prompts = [f"{number:3} " + "word " * 39 for number in range(40)]  # 50 tokens each
    with served(quotas=[["tokens", 1000, 1]]) as url:
        limits = [Limit("gemini", rate=1000, per=1, dimensions={"tokens": {"rate": 1000 * BUSY, "per": 1}})]
        async with Supervisor(workers=4, limits=limits, secrets=[asking.KEY]) as supervisor:
            # Estimated at twice what they are: without reports every other token would go unused.
            await run(supervisor, jobs(way, url, prompts, tokens=100.0))
        found = stats(url)
    (quota,) = found["quotas"]
    assert found["answered"] == 40 and found["refused"] == 0 and quota["peak"] <= 1000
    assert found["prompt_tokens"] == 2000


@pytest.mark.parametrize(("way", "api"), [("sync", "openai"), pytest.param("async", "gemini", marks=pytest.mark.soak)])
async def test_a_pause_that_one_child_is_told_is_kept_by_all(way: str, api: str) -> None:
    prompts = [f"fox {number}" for number in range(60)]
    prompts[10] += " [[minute=1*1]]"
    prompts[40] += " [[minute=1*1]]"
    with served() as url:
        limits = [Limit("gemini", rate=200, per=1)]
        async with Supervisor(workers=4, limits=limits, max_permits=4, secrets=[asking.KEY]) as supervisor:
            await run(supervisor, jobs(way, url, prompts, api))
        found = stats(url)
    assert found["refused"] == 2 and found["answered"] == found["distinct"] == 60
    # Those that were under way when it came could not know: with four at once, three for each.
    assert found["early"] <= 6


async def test_a_server_that_refuses_by_itself_is_obeyed_until_all_is_done() -> None:
    # The limit promises twice what the server allows: what it says is what counts.
    with served(quotas=[["requests", 20, 1]]) as url:
        async with Supervisor(
            workers=4, limits=[Limit("gemini", rate=40, per=1)], max_permits=6, secrets=[asking.KEY]
        ) as supervisor:
            await run(supervisor, jobs("sync", url, [f"fox {number}" for number in range(60)]))
        found = stats(url)
    assert found["answered"] == found["distinct"] == 60
    assert found["requests"] == 60 + found["refused"] and 0 < found["refused"] < 60


@pytest.mark.parametrize(("way", "api"), [("sync", "gemini"), ("async", "openai")])
async def test_a_batch_of_texts_weighs_what_the_provider_counts(way: str, api: str) -> None:
    embed = {"sync": asking.embed, "async": asking.embed_async}[way]
    with served(quotas=[["requests", 50, 1]]) as url:
        options = {"base_url": url, "limit": "gemini", "batch_size": 10}
        limits = [Limit("gemini", rate=50 * BUSY, per=1)]
        async with Supervisor(workers=2, limits=limits, secrets=[asking.KEY]) as supervisor:
            texts = [[f"{job} {number}" for number in range(40)] for job in range(3)]
            await run(supervisor, [Job(embed, args=(api, batch, options), timeout=60) for batch in texts])
        found = stats(url)
    (quota,) = found["quotas"]
    assert found["refused"] == 0 and quota["peak"] <= 50 and found["requests"] == 12
    assert quota["arrived"] == (120 if api == "gemini" else 12)


async def test_a_limit_that_counts_no_tokens_needs_none_and_one_that_is_missing_is_named() -> None:
    with served() as url:
        async with Supervisor(
            workers=1,
            limits=[Limit("gemini", concurrency=2), Limit("tight", dimensions={"tokens": {"rate": 5, "per": 1}})],
            secrets=[asking.KEY],
        ) as supervisor:
            await run(supervisor, jobs("sync", url, ["a fox", "a bear"]))
            await run(supervisor, jobs("async", url, ["a fox", "a bear"]))
            for limit, said in (("nobody", "there is no limit 'nobody'"), ("tight", "can never be granted")):
                (job,) = jobs("sync", url, ["a fox " * 20], limit=limit)
                found = await (await supervisor.submit(job)).outcome()
                assert found.status == "failed" and said in str(found.error)
        assert stats(url)["requests"] == 4


@pytest.mark.soak
async def test_the_rate_is_never_exceeded_in_a_storm_of_refusals() -> None:
    storm = {"minute=0.3": 0.01, "shared": 0.002, "503": 0.01}
    with served(quotas=[["requests", 50, 1]], latency=0.05, storm=storm) as url:
        async with Supervisor(
            workers=4,
            concurrency=3,
            limits=[Limit("gemini", rate=50 * MARGIN, per=1)],
            max_permits=6,
            secrets=[asking.KEY],
        ) as supervisor:
            work = jobs("async", url, [f"fox {number}" for number in range(600)])
            work = [replace(job, retry=RetryPolicy(attempts=10, on="error", backoff=0.01)) for job in work]
            seconds = await run(supervisor, work)
        found = stats(url)
    (quota,) = found["quotas"]
    share = found["requests"] / seconds / 50
    print(f"{found['refused']} refusals; {share:.0%} of the quota used, at most {quota['peak']:g} in any second")
    assert quota["refused"] == 0 and quota["peak"] <= 50 and found["refused"] > 3
    assert found["answered"] == found["distinct"] == 600


@pytest.mark.soak
@each_way
async def test_the_rate_is_used_well_and_never_exceeded_for_twenty_seconds(way: str) -> None:
    with served(quotas=[["requests", 50, 1]], latency=0.05) as url:
        concurrency = 3 if way == "async" else 1
        async with Supervisor(
            workers=4,
            concurrency=concurrency,
            limits=[Limit("gemini", rate=50 * MARGIN, per=1)],
            max_permits=6,
            secrets=[asking.KEY],
        ) as supervisor:
            seconds = await run(supervisor, jobs(way, url, [f"fox {number}" for number in range(1000)]))
        found = stats(url)
    (quota,) = found["quotas"]
    print(f"{1000 / seconds:.1f} requests/s, at most {quota['peak']:g} in any second, {found['most_open']} at once")
    assert quota["peak"] <= 50 and found["most_open"] <= 6 and found["refused"] == 0
    assert 1000 / seconds >= 0.85 * 50
