"""Limits in virtual time: no window over the rate, first come first served, nothing lost and nothing left."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator._limits import Limits
from orchestrator._models import Limit
from orchestrator.exceptions import ConfigurationError
from tests.unit._limits_bench import Asked, Client, clean, fullest, now, virtual

SOAK = pytest.mark.soak
RATES = [(1, 1), (1, 60), (2, 1), (5, 60), (10, 1), (50, 1), (60, 60), (1000, 1)]
# Rate, seconds, burst, units in all: 10,000 a minute are the longest run even when it is short.
LONG_RUNS = [
    *((rate, per, burst, 2_000) for rate, per in RATES for burst in (None, "one", "all")),
    (10_000, 60, None, 2_000),
    *(
        pytest.param(rate, per, burst, 20_000, marks=SOAK)
        for rate, per in [*RATES, (10_000, 60)]
        for burst in (None, "one", "all")
    ),
]


@pytest.mark.parametrize(("rate", "per", "burst", "units"), LONG_RUNS)
def test_long_runs_use_the_rate_and_no_window_exceeds_it(
    rate: float, per: float, burst: str | None, units: int
) -> None:
    async def body() -> None:
        bound = {None: None, "one": 1.0, "all": float(rate)}[burst]
        limits = Limits([Limit("api", rate=rate, per=per, burst=bound)])
        client = Client(limits)
        windows = max(4, min(200, units // rate))
        for _ in range(int(rate * windows * 1.2) + 50):
            client.ask(api=1)
        await asyncio.sleep(windows * per)
        times = client.times("api")
        assert fullest(times, per) <= rate
        # One window is left out: at its start the run had not begun.
        assert len(times) >= 0.97 * rate * (windows - 1)
        assert [asked.number for asked in client.granted] == list(range(len(times)))
        await clean(limits)

    virtual(body())


def test_the_whole_rate_at_once_then_nothing_until_the_window_is_over() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=5, per=60, burst=5)])
        client = Client(limits)
        for _ in range(10):
            client.ask(api=1)
        await asyncio.sleep(0.01)
        assert len(client.granted) == 5
        await asyncio.sleep(60)
        assert len(client.granted) == 5
        await asyncio.sleep(2)
        assert len(client.granted) == 10
        await clean(limits)

    virtual(body())


def test_without_a_burst_units_are_spread() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=60, per=60)])
        client = Client(limits)
        for _ in range(50):
            client.ask(api=1)
        await asyncio.sleep(100)
        times = [when for when, _ in client.times("api")]
        assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.7
        await clean(limits)

    virtual(body())


@st.composite
def limit_sets(draw: st.DrawFn) -> list[Limit]:
    limits = []
    for name in draw(st.sets(st.sampled_from("abc"), min_size=1)):
        rate = draw(st.none() | st.sampled_from([1, 2.5, 5, 7.25, 60, 500]))
        concurrency = draw(st.integers(1, 8) if rate is None else st.none() | st.integers(1, 8))
        burst = None if rate is None else draw(st.none() | st.floats(0.5, 1).map(lambda part, rate=rate: part * rate))
        limits.append(
            Limit(name, rate=rate, per=draw(st.sampled_from([0.5, 1, 10])), burst=burst, concurrency=concurrency)
        )
    return limits


def most_asked(asked: Asked) -> float:
    return max(asked.units.values())


def most(limit: Limit) -> float:
    return min(bound for bound in (limit.rate, limit.burst, limit.concurrency) if bound is not None)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_requests_keep_all_promises(data: st.DataObject) -> None:
    bounds = data.draw(limit_sets())

    async def body() -> None:
        limits = Limits(bounds)
        client = Client(limits)
        held = {limit.name: 0.0 for limit in bounds}
        holding: list[Asked] = []
        cancelled: list[Asked] = []
        everyone: list[Asked] = []
        arrivals: dict[str, list[Asked]] = {limit.name: [] for limit in bounds}

        def got(asked: Asked) -> None:
            assert asked not in cancelled
            for name, units in asked.units.items():
                held[name] += units
            for limit in bounds:
                assert limit.concurrency is None or held[limit.name] <= limit.concurrency + 1e-6
            holding.append(asked)

        def release(asked: Asked) -> None:
            holding.remove(asked)
            for name, units in asked.units.items():
                held[name] -= units
            assert asked.grant is not None
            asked.grant.release()
            asked.grant.release()

        for _ in range(data.draw(st.integers(1, 40))):
            what = data.draw(st.sampled_from(["ask", "ask", "ask", "release", "cancel", "wait", "throttle"]))
            if what == "ask":
                names = data.draw(st.sets(st.sampled_from([limit.name for limit in bounds]), min_size=1))
                parts = {name: data.draw(st.sampled_from([0.1, 0.3, 0.5, 1.0])) for name in sorted(names)}
                units = {limit.name: most(limit) * parts[limit.name] for limit in bounds if limit.name in parts}
                limits.check(units, "job.limits")
                asked = client.ask(got, **units)
                everyone.append(asked)
                arrivals[min(units)].append(asked)
            elif what == "release" and holding:
                release(data.draw(st.sampled_from(holding)))
            elif what == "throttle" and holding:
                asked = data.draw(st.sampled_from(holding))
                assert asked.grant is not None
                asked.grant.throttled(2.0)
                release(asked)
                paused = now()
                await asyncio.sleep(1.9)
                for other in client.granted:
                    assert other.when is not None and (
                        other.when <= paused or not asked.units.keys() & other.units.keys()
                    )
            elif what == "cancel" and everyone:
                asked = data.draw(st.sampled_from(everyone))
                if asked.grant is None and asked not in cancelled:
                    cancelled.append(asked)
                assert asked.ticket is not None
                asked.ticket.cancel()
                asked.ticket.cancel()
            elif what == "wait":
                await asyncio.sleep(data.draw(st.floats(0, 5)))
        # Whoever waits is served in the end.
        while len(client.granted) + len(cancelled) < len(everyone):
            for asked in holding.copy():
                release(asked)
            await asyncio.sleep(1)
        for asked in holding.copy():
            release(asked)
        for limit in bounds:
            if limit.rate is not None:
                assert fullest(client.times(limit.name), float(limit.per)) <= limit.rate * (1 + 1e-6)
        if len(bounds) == 1:
            for like in {math.frexp(most_asked(asked))[1] for asked in client.granted}:
                order = [asked.number for asked in client.granted if math.frexp(most_asked(asked))[1] == like]
                assert order == sorted(order), "those of like weight keep their order"
        for one in limits.statistics():
            assert (one.held, one.waiting) == (0, 0)
            assert one.granted == pytest.approx(sum(units for _, units in client.times(one.name)))
        await clean(limits)

    virtual(body())


def test_concurrency_is_granted_at_once_and_in_order() -> None:
    async def body() -> None:
        limits = Limits([Limit("gpu", concurrency=2)])
        client = Client(limits)
        first, second, third, fourth = (client.ask(gpu=1) for _ in range(4))
        assert [asked.number for asked in client.granted] == [0, 1]
        assert second.grant is not None
        second.grant.release()
        second.grant.release()
        assert client.granted == [first, second, third]
        one = limits.statistics()[0]
        assert (one.held, one.waiting, one.granted) == (2, 1, 3)
        assert fourth.when is None
        await clean(limits)

    virtual(body())


def test_heavy_requests_are_not_starved() -> None:
    async def body() -> None:
        limits = Limits([Limit("tokens", rate=10, per=1, burst=10)])
        client = Client(limits)

        def again(asked: Asked) -> None:
            if now() < 20:
                client.ask(again, tokens=1)

        for _ in range(4):
            client.ask(again, tokens=1)
        await asyncio.sleep(5)
        heavy = client.ask(tokens=8)
        await asyncio.sleep(20)
        assert heavy.when is not None and heavy.when < 7
        await clean(limits)

    virtual(body())


def test_units_beyond_the_default_burst_are_saved_up() -> None:
    async def body() -> None:
        limits = Limits([Limit("tokens", rate=1000, per=60)])
        client = Client(limits)
        for _ in range(20):
            client.ask(tokens=250)
        await asyncio.sleep(61.5)
        assert len(client.granted) == 4
        await asyncio.sleep(240)
        assert 16 <= len(client.granted) <= 20
        assert fullest(client.times("tokens"), 60) <= 1000
        await clean(limits)

    virtual(body())


def test_a_crowd_behind_a_second_limit_keeps_the_rate_of_the_first() -> None:
    async def body() -> None:
        limits = Limits([Limit("a", rate=10, per=10), Limit("b", concurrency=10)])
        client = Client(limits)
        holder = client.ask(b=10)
        for _ in range(40):
            client.ask(a=1, b=1)
        await asyncio.sleep(100)
        assert client.granted == [holder] and holder.grant is not None
        holder.grant.release()
        for _ in range(60):
            await asyncio.sleep(1)
            for asked in client.granted:
                assert asked.grant is not None
                asked.grant.release()
        assert len(client.times("a")) == 40
        assert fullest(client.times("a"), 10) <= 10
        await clean(limits)

    virtual(body())


def test_a_head_that_waits_for_its_rate_does_not_block_other_limits() -> None:
    async def body() -> None:
        limits = Limits([Limit("slow", rate=1, per=100), Limit("fast", rate=10, per=1), Limit("slots", concurrency=3)])
        client = Client(limits)
        for _ in range(3):
            client.ask(slow=1)
        others = [client.ask(fast=1), client.ask(slots=1)]
        await asyncio.sleep(1)
        assert all(asked.when is not None for asked in others)
        await clean(limits)

    virtual(body())


def test_a_cancelled_request_gives_back_what_it_had() -> None:
    async def body() -> None:
        limits = Limits([Limit("a", rate=2, per=1000, concurrency=2), Limit("b", concurrency=1)])
        client = Client(limits)
        client.ask(b=1)
        stuck = [client.ask(a=1, b=1) for _ in range(2)]
        behind = [client.ask(a=1) for _ in range(2)]
        await asyncio.sleep(1100)
        assert [asked.when for asked in behind] == [None, None]
        assert stuck[0].ticket is not None and stuck[1].ticket is not None
        stuck[0].ticket.cancel()
        stuck[1].ticket.cancel()
        await asyncio.sleep(600)  # the bucket still spreads them
        assert all(asked.when is not None for asked in behind)
        await clean(limits)

    virtual(body())


def test_cancelling_the_head_lets_a_lighter_one_go() -> None:
    async def body() -> None:
        limits = Limits([Limit("tokens", rate=100, per=100)])
        client = Client(limits)
        client.ask(tokens=60)
        await asyncio.sleep(61)
        heavy, light = client.ask(tokens=100), client.ask(tokens=30)
        await asyncio.sleep(5)
        assert heavy.ticket is not None
        heavy.ticket.cancel()
        await asyncio.sleep(31)
        assert heavy.when is None and light.when is not None
        await clean(limits)

    virtual(body())


def test_ten_thousand_cancels_are_quick_and_leave_nothing() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=1, per=100)])
        client = Client(limits)
        asked = [client.ask(api=1) for _ in range(10_000)]
        await asyncio.sleep(1)
        for one in asked:
            assert one.ticket is not None
            one.ticket.cancel()
        assert len(asyncio.all_tasks()) <= 3
        assert limits.statistics()[0].waiting == 0
        await clean(limits)

    virtual(body())


def test_throttled_pauses_for_everybody() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=10, per=1, concurrency=2), Limit("slots", concurrency=1)])
        client = Client(limits)
        first = client.ask(api=1, slots=1)
        await asyncio.sleep(0)
        assert first.grant is not None
        first.grant.throttled(30)
        first.grant.throttled(500)  # no longer held: says nothing
        later = [client.ask(api=1), client.ask(slots=1), client.ask(api=1, slots=1)]
        await asyncio.sleep(29.9)
        assert all(asked.when is None for asked in later)
        assert later[1].when is None
        await asyncio.sleep(1)
        assert later[0].when is not None and later[1].when == pytest.approx(30)
        await clean(limits)

    virtual(body())


def test_callbacks_may_release_and_ask_without_end() -> None:
    async def body() -> None:
        limits = Limits([Limit("gpu", concurrency=1)])
        client = Client(limits)

        def release(asked: Asked) -> None:
            assert asked.grant is not None
            asked.grant.release()

        first = client.ask(gpu=1)
        for _ in range(5000):
            client.ask(release, gpu=1)
        release(first)
        assert [asked.number for asked in client.granted] == list(range(5001))
        await clean(limits)

    virtual(body())


def test_a_failing_callback_is_reported_and_costs_nobody_else() -> None:
    async def body() -> None:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        limits = Limits([Limit("api", rate=10, per=1, concurrency=1)])
        client = Client(limits)

        def fail(asked: Asked) -> None:
            raise ValueError("on purpose")

        client.ask(fail, api=1)
        second = client.ask(api=1)
        await asyncio.sleep(1)
        assert second.when is not None
        assert [str(report["exception"]) for report in reports] == ["on purpose"]
        await clean(limits)

    virtual(body())


def test_nothing_is_granted_after_aclose() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=1, per=10, burst=1), Limit("gpu", concurrency=1)])
        client = Client(limits)
        for _ in range(5):
            client.ask(api=1, gpu=1)
        await asyncio.sleep(0.1)
        await clean(limits)
        for asked in client.granted:
            assert asked.grant is not None
            asked.grant.release()
        await asyncio.sleep(100)
        assert len(client.granted) == 1

    virtual(body())


def test_no_units_are_granted_at_once() -> None:
    async def body() -> None:
        client = Client(Limits([]))
        assert client.ask().grant is not None

    virtual(body())


WRONG = [
    ({"nope": 1}, "job.limits.nope", "known are api, gpu"),
    ({"api": 61}, "job.limits.api", "rate=60"),
    ({"gpu": 3}, "job.limits.gpu", "concurrency=2"),
    ({"gpu": 0}, "job.limits.gpu", "greater than 0"),
    ({"gpu": float("nan")}, "job.limits.gpu", "greater than 0"),
    ({"gpu": True}, "job.limits.gpu", "greater than 0"),
]


@pytest.mark.parametrize(("units", "place", "problem"), WRONG)
def test_requests_that_cannot_be_granted_are_refused(units: dict[str, float], place: str, problem: str) -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=60, per=60, burst=5), Limit("gpu", concurrency=2)])
        limits.check({"api": 5, "gpu": 2}, "job.limits")
        with pytest.raises(ConfigurationError, match=problem) as caught:
            limits.check(units, "job.limits")
        assert caught.value.field == place

    virtual(body())


def test_two_limits_of_one_name_are_refused() -> None:
    async def body() -> None:
        with pytest.raises(ConfigurationError, match="two limits named 'api'"):
            Limits([Limit("api", rate=1), Limit("api", concurrency=1)])

    virtual(body())


class Ended(asyncio.Future[None]):
    """A task that was over when it was made."""

    def set_name(self, name: str) -> None:
        pass


def test_a_host_with_an_eager_task_factory() -> None:
    def at_once(loop: asyncio.AbstractEventLoop, body: Any, **options: Any) -> Any:
        """Run what need not wait before anybody has its task, as `asyncio.eager_task_factory` does."""
        ended = Ended(loop=loop)
        with pytest.raises(StopIteration):
            body.send(None)
        ended.set_result(None)
        return ended

    async def body() -> None:
        limits = Limits([Limit("api", rate=10, per=1, burst=10)])
        client = Client(limits)
        asyncio.get_running_loop().set_task_factory(at_once)
        asked = []
        for _ in range(2):
            asked.append(client.ask(api=1))
            await asyncio.sleep(0)
        asyncio.get_running_loop().set_task_factory(None)
        await asyncio.sleep(0)
        assert client.granted == asked
        await limits.aclose()

    virtual(body())
