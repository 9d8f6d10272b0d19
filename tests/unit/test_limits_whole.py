"""Dimensions, reports, deadlines, refusals, places and changes of limits, in virtual time."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator._grant import Grant
from orchestrator._limits import Limits
from orchestrator._models import Limit
from orchestrator._ticket import TooLate
from orchestrator.exceptions import ConfigurationError
from tests.unit._limits_bench import Asked, Client, clean, fullest, now, virtual

TOKENS = {"tokens": {"rate": 1000.0, "per": 10.0}}


def statistics(limits: Limits, name: str) -> Any:
    return next(one for one in limits.statistics() if one.name == name)


# Dimensions


def test_all_dimensions_are_taken_together() -> None:
    async def body() -> None:
        limits = Limits([Limit("llm", rate=100, per=10, dimensions=TOKENS)])
        client = Client(limits)
        for _ in range(40):
            client.ask(**{"llm": 1, "llm.tokens": 100})
        await asyncio.sleep(100)
        # 10 of 100 tokens in ten seconds: it is the tokens that bound them.
        assert fullest(client.times("llm.tokens"), 10) <= 1000
        assert fullest(client.times("llm"), 10) <= 10
        assert len(client.granted) * 100 / 10 >= 0.97 * 90 or len(client.granted) == 40
        assert statistics(limits, "llm").granted == len(client.granted)
        assert statistics(limits, "llm.tokens").granted == 100 * len(client.granted)
        await clean(limits)

    virtual(body())


def test_a_dimension_implies_one_unit_of_its_limit() -> None:
    async def body() -> None:
        limits = Limits([Limit("llm", concurrency=1, dimensions=TOKENS)])
        client = Client(limits)
        first, second = client.ask(**{"llm.tokens": 10}), client.ask(**{"llm.tokens": 10})
        await asyncio.sleep(5)
        assert (first.when, second.when) != (None, None) and second.grant is None
        first.held.release()
        await asyncio.sleep(5)
        assert second.grant is not None
        await clean(limits)

    virtual(body())


def test_a_cancelled_wait_takes_nothing() -> None:
    async def body() -> None:
        limits = Limits([Limit("llm", rate=10, per=10, dimensions={"tokens": {"rate": 100, "burst": 100}})])
        client = Client(limits)
        big = client.ask(**{"llm": 1, "llm.tokens": 100})
        stuck = [client.ask(**{"llm": 1, "llm.tokens": 100}) for _ in range(5)]
        await asyncio.sleep(4)
        for asked in stuck:
            assert asked.ticket is not None
            asked.ticket.cancel()
        big.held.release()
        for name in ("llm", "llm.tokens"):
            assert (statistics(limits, name).held, statistics(limits, name).waiting) == (0, 0)
        await asyncio.sleep(10)
        # What the cancelled ones had of the requests is there for others within the same window.
        begin = now()
        for _ in range(9):
            client.ask(llm=1)
        await asyncio.sleep(10.2)
        assert sum(1 for when, _ in client.times("llm") if when >= begin) == 9
        await clean(limits)

    virtual(body())


def test_a_weight_above_the_burst_is_saved_up_in_pieces() -> None:
    async def body() -> None:
        limits = Limits([Limit("tokens", rate=50, per=1, burst=10)])
        client = Client(limits)
        asked = client.ask(tokens=35)
        await asyncio.sleep(2)
        assert asked.when == pytest.approx(25 / 50, abs=0.03)
        with pytest.raises(ConfigurationError, match="51 units can never be granted: limit 'tokens' has rate=50"):
            limits.check({"tokens": 51}, "permit")
        await clean(limits)

    virtual(body())


# Fairness


@pytest.mark.parametrize("lights", [4, 20, 200])
def test_heavy_requests_wait_little_beside_light_ones(lights: int) -> None:
    async def body() -> None:
        limits = Limits([Limit("tokens", rate=10, per=1)])
        client = Client(limits)

        def light(asked: Asked) -> None:
            asked.held.release()
            client.ask(light, tokens=1)

        for _ in range(lights):
            client.ask(light, tokens=1)
        await asyncio.sleep(5)
        waits = []
        for _ in range(10):
            began = now()
            heavy = client.ask(tokens=8)
            await heavy.over.wait()
            waits.append(now() - began)
            heavy.held.release()
        assert max(waits) <= 1.5, waits
        # Nor are the light ones starved.
        served = sum(units for when, units in client.times("tokens") if when >= 5 and units == 1)
        assert served >= 0.15 * 10 * (now() - 5)
        await clean(limits)

    virtual(body())


# Reports


def test_what_was_estimated_too_high_goes_to_others() -> None:
    async def body() -> None:
        limits = Limits([Limit("llm", dimensions={"tokens": {"rate": 1000, "per": 1}})])
        client = Client(limits)
        used = 0.0

        def report(asked: Asked) -> None:
            nonlocal used
            used += 5
            asked.held.release({"llm.tokens": 5})

        for _ in range(5000):
            client.ask(report, **{"llm.tokens": 20})
        await asyncio.sleep(20)
        # Estimated 20 and used 5: by estimates only a quarter of the rate would be used.
        # The last one in a window needs room for its whole estimate.
        assert used >= 0.97 * (1000 - 15) * 20
        await clean(limits)

    virtual(body())


def test_what_was_estimated_too_low_is_paid_before_the_next_grant() -> None:
    async def body() -> None:
        limits = Limits([Limit("llm", dimensions={"tokens": {"rate": 10, "per": 10, "burst": 10}})])
        client = Client(limits)
        first = client.ask(**{"llm.tokens": 1})
        await asyncio.sleep(0.01)
        first.held.release({"llm.tokens": 10})
        second = client.ask(**{"llm.tokens": 1})
        await asyncio.sleep(9.9)
        assert second.when is None
        await asyncio.sleep(1)
        assert second.when is not None
        # Of one that was not estimated at all, too; and nonsense costs a window, not for ever.
        unestimated = client.ask(llm=1)
        await asyncio.sleep(0.1)
        unestimated.held.release({"llm.tokens": 1e12})
        third = client.ask(**{"llm.tokens": 1})
        await asyncio.sleep(9)
        assert third.when is None
        await asyncio.sleep(15)
        assert third.when is not None
        await clean(limits)

    virtual(body())


# Deadlines


def test_a_deadline_that_cannot_be_kept_fails_at_once() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=1, per=1)])
        client = Client(limits)
        for _ in range(10):
            client.ask(api=1)
        await asyncio.sleep(0.01)
        began = now()
        late = client.ask(api=1, timeout=5.0)
        assert isinstance(late.refused, TooLate) and late.when == pytest.approx(began, abs=1e-6)
        # It says when: whoever comes back then waits no more.
        assert late.refused.retry_after == pytest.approx(10, abs=0.5)
        in_time = client.ask(api=1, timeout=late.refused.retry_after + 0.3)
        await asyncio.sleep(12)
        assert in_time.grant is not None and in_time.when == pytest.approx(began + late.refused.retry_after, abs=0.3)
        await clean(limits)

    virtual(body())


def test_a_deadline_that_passes_is_told() -> None:
    async def body() -> None:
        limits = Limits([Limit("gpu", concurrency=1)])
        client = Client(limits)
        holder = client.ask(gpu=1)
        asked = client.ask(gpu=1, timeout=3.0)
        await asyncio.sleep(2.9)
        assert asked.refused is None
        await asyncio.sleep(0.2)
        assert isinstance(asked.refused, TooLate) and asked.when == pytest.approx(3)
        assert statistics(limits, "gpu").waiting == 0
        holder.held.release()
        await asyncio.sleep(1)
        assert asked.grant is None
        await clean(limits)

    virtual(body())


def test_a_pause_fails_those_who_cannot_wait_for_its_end() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", concurrency=1)])
        client = Client(limits)
        holder = client.ask(api=1)
        short, long = client.ask(api=1, timeout=10.0), client.ask(api=1, timeout=60.0)
        holder.held.throttled(30.0)
        assert isinstance(short.refused, TooLate) and short.refused.retry_after == pytest.approx(30)
        assert long.refused is None
        await asyncio.sleep(31)
        assert long.grant is not None
        await clean(limits)

    virtual(body())


@given(
    ahead=st.lists(st.sampled_from([1, 1, 1, 2, 4]), max_size=30),
    units=st.sampled_from([1, 2, 4]),
    burst=st.none() | st.sampled_from([4, 10]),
    idle=st.floats(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_nobody_is_refused_who_would_have_been_in_time(
    ahead: list[int], units: int, burst: float | None, idle: float
) -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=10, per=1, burst=burst)])
        client = Client(limits)
        for count in ahead:
            client.ask(api=count)
        await asyncio.sleep(idle)
        gate = limits._gates["api"]
        earliest = gate.earliest(units, 0.0, 60.0)
        began = now()
        asked = client.ask(api=units)
        await asyncio.sleep(20)
        assert asked.when is not None
        assert asked.when - began >= earliest - 0.01
        await clean(limits)

    virtual(body())


# Refusals of the other side


def test_a_refusal_cuts_once_and_time_heals() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=100, per=1)])
        client = Client(limits)
        crowd = [client.ask(api=1) for _ in range(5)]
        await asyncio.sleep(0.1)
        for asked in crowd:
            asked.held.throttled(2.0)
        one = statistics(limits, "api")
        # All five had begun before the first cut: one epoch.
        assert (one.factor, one.throttled) == (pytest.approx(0.7), 5)
        assert one.paused_for == pytest.approx(2.0)
        await asyncio.sleep(2.0 + 1.05)
        assert statistics(limits, "api").factor == pytest.approx(0.75)
        later = client.ask(api=1)
        await asyncio.sleep(0.5)
        later.held.throttled(0.0)
        assert statistics(limits, "api").factor == pytest.approx(0.75 * 0.7)
        await asyncio.sleep(20)
        assert statistics(limits, "api").factor == 1.0
        assert statistics(limits, "api").rate == 100
        await clean(limits)

    virtual(body())


def test_the_factor_has_a_floor_and_the_rate_follows_it() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=100, per=1)])
        client = Client(limits)
        for _ in range(12):
            asked = client.ask(api=1)
            await asked.over.wait()
            asked.held.throttled(0.0)
        assert statistics(limits, "api").factor == pytest.approx(0.05)
        await asyncio.sleep(1.0)  # the slope after a refusal
        begin, factor = now(), statistics(limits, "api").factor
        for _ in range(500):
            client.ask(api=1)
        await asyncio.sleep(0.9)
        assert sum(1 for when, _ in client.times("api") if when >= begin) <= 100 * (factor + 0.05) * 0.9 + 2
        await clean(limits)

    virtual(body())


@pytest.mark.parametrize("burst", [None, 50.0])
def test_nobody_storms_in_after_a_pause(burst: float | None) -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=50, per=1, burst=burst)])
        client = Client(limits)
        first = client.ask(api=1)
        await asyncio.sleep(0.1)
        first.held.throttled(5.0)
        for _ in range(300):
            client.ask(api=1)
        await asyncio.sleep(5.0)
        resumed = [when for when, _ in client.times("api") if when > 1]
        assert not resumed
        await asyncio.sleep(0.3)
        assert sum(1 for when, _ in client.times("api") if when > 1) <= 3
        await asyncio.sleep(3)
        assert len(client.granted) >= 60
        await clean(limits)

    virtual(body())


def test_requests_that_had_their_units_come_back_in_turn_after_a_pause() -> None:
    async def body() -> None:
        limits = Limits([Limit("a", rate=10, per=1, burst=10), Limit("b", concurrency=1)])
        client = Client(limits)
        first = client.ask(a=1)
        holder = client.ask(b=1)
        await asyncio.sleep(0.01)
        waiting = [client.ask(a=1, b=1) for _ in range(5)]
        behind = [client.ask(a=1) for _ in range(5)]
        first.held.throttled(3.0)
        holder.held.release()
        await asyncio.sleep(10)
        for _ in range(5):
            for asked in waiting:
                if asked.grant is not None:
                    asked.grant.release()
            await asyncio.sleep(2)
        assert all(asked.grant is not None for asked in (*waiting, *behind))
        assert min(asked.when or 0 for asked in waiting) >= 3
        assert fullest(client.times("a"), 1) <= 10
        await clean(limits)

    virtual(body())


def test_ramp_up_begins_gently() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=100, per=1, ramp_up=10)])
        client = Client(limits)
        for _ in range(3000):
            client.ask(api=1)
        await asyncio.sleep(20)
        times = [when for when, _ in client.times("api")]
        counts = [sum(1 for when in times if second <= when < second + 1) for second in range(20)]
        assert counts[0] <= 20 and counts[4] <= 60
        assert counts[1] < counts[4] < counts[8]
        assert min(counts[11:19]) >= 96 and max(counts) <= 100
        await clean(limits)

    virtual(body())


def test_refusals_lower_the_concurrency_where_there_is_no_rate() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", concurrency=10)])
        client = Client(limits)
        crowd = [client.ask(api=1) for _ in range(10)]
        crowd[0].held.throttled(0.0)
        for asked in crowd[1:]:
            asked.held.release()
        assert statistics(limits, "api").factor == pytest.approx(0.7)
        later = [client.ask(api=1) for _ in range(10)]
        await asyncio.sleep(0.9)
        assert 1 <= sum(asked.grant is not None for asked in later) <= 7
        await asyncio.sleep(10)
        assert all(asked.grant is not None for asked in later)
        await clean(limits)

    virtual(body())


def test_the_log_says_of_storms_but_not_always() -> None:
    async def body() -> None:
        said: list[tuple[str, dict[str, Any]]] = []
        limits = Limits(
            [Limit("api", rate=100, per=1)], tell=lambda event, level, **fields: said.append((event, fields))
        )
        client = Client(limits)
        for _ in range(50):
            asked = client.ask(api=1)
            await asked.over.wait()
            asked.held.throttled(0.1)
        events = [event for event, _ in said]
        assert 1 <= events.count("limit.paused") <= now() / 10 + 1
        assert said[0] == ("limit.paused", {"limit": "api", "throttled": 1, "seconds": 0.1})
        assert said[1] == (
            "limit.rate_changed",
            {"limit": "api", "throttled": 1, "factor": 0.7, "rate": 70.0, "per": 1.0},
        )
        await asyncio.sleep(60)
        assert said[-1][0] == "limit.rate_changed" and said[-1][1]["factor"] == 1.0
        await clean(limits)

    virtual(body())


# Places among all permits


def test_places_bound_all_limits_together() -> None:
    async def body() -> None:
        limits = Limits([Limit("a", concurrency=5), Limit("b", rate=100)], max_permits=3)
        client = Client(limits)
        asked = [client.ask(a=1) for _ in range(2)] + [client.ask(b=1) for _ in range(4)]
        jobs = client.ask()  # a job that asks for nothing
        await asyncio.sleep(1)
        assert sum(each.grant is not None for each in (*asked, jobs)) == 3
        for _ in range(5):
            for each in (*asked, jobs):
                if each.grant is not None:
                    each.grant.release()
            await asyncio.sleep(0.1)
        assert all(each.grant is not None for each in (*asked, jobs))
        await clean(limits)

    virtual(body())


def test_a_limit_that_waits_takes_no_place() -> None:
    async def body() -> None:
        limits = Limits([Limit("slow", rate=1, per=100), Limit("quick", concurrency=10)], max_permits=2)
        client = Client(limits)
        for _ in range(5):
            client.ask(slow=1)
        await asyncio.sleep(1)
        for _ in range(20):
            quick = client.ask(quick=1)
            await asyncio.sleep(0.01)
            assert quick.grant is not None
            quick.held.release()
        await clean(limits)

    virtual(body())


def test_whoever_holds_a_place_is_not_kept_out_by_those_who_wait_for_one() -> None:
    async def body() -> None:
        limits = Limits([Limit("a", concurrency=1), Limit("b", concurrency=1)], max_permits=1)
        client = Client(limits)
        outer = client.ask(b=1)
        waiting = client.ask(a=1)  # takes the only unit of `a`, and waits for the place
        assert outer.held.place is not None
        inner = client.ask(a=1, place=outer.held.place.share(), urgent=True)
        assert inner.grant is not None and waiting.grant is None
        inner.held.release()
        assert waiting.grant is None
        outer.held.release()
        assert waiting.grant is not None
        await clean(limits)

    virtual(body())


# Changes


def test_a_changed_rate_holds_from_now_on() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=100, per=1)])
        client = Client(limits)
        for _ in range(5000):
            client.ask(api=1)
        await asyncio.sleep(3)
        limits.change(Limit("api", rate=10, per=1))
        changed = now()
        await asyncio.sleep(10)
        late = [(when, units) for when, units in client.times("api") if when >= changed]
        assert fullest(late, 1) <= 10
        every = client.times("api")
        for when, _ in late:  # what was granted before counts too
            assert sum(1 for other, _ in every if when - 1 <= other <= when) <= 10
        assert len(late) >= 0.97 * 10 * 8
        limits.change(Limit("api", rate=200, per=1))
        changed = now()
        await asyncio.sleep(5)
        assert fullest(client.times("api"), 1) <= 200
        assert sum(1 for when, _ in client.times("api") if when >= changed) >= 0.95 * 200 * 5
        await clean(limits)

    virtual(body())


def test_a_longer_window_counts_what_nobody_remembers() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=10, per=1)])
        client = Client(limits)
        for _ in range(500):
            client.ask(api=1)
        await asyncio.sleep(10)
        limits.change(Limit("api", rate=10, per=60))
        granted = len(client.granted)
        await asyncio.sleep(55)
        assert len(client.granted) == granted
        await asyncio.sleep(120)
        assert fullest(client.times("api")[granted:], 60) <= 10
        assert len(client.granted) > granted + 10
        await clean(limits)

    virtual(body())


def test_what_a_changed_limit_can_never_give_is_refused() -> None:
    async def body() -> None:
        limits = Limits([Limit("api", rate=10, per=10, concurrency=8)])
        client = Client(limits)
        holder = client.ask(api=8)
        await asyncio.sleep(10)
        heavy, light = client.ask(api=5), client.ask(api=1)
        limits.change(Limit("api", rate=10, per=10, concurrency=4))
        assert isinstance(heavy.refused, ConfigurationError) and light.refused is None
        holder.held.release()
        await asyncio.sleep(20)
        assert light.grant is not None
        for wrong, problem in (
            (Limit("nope", rate=1), "there is no limit 'nope'"),
            (Limit("api", rate=1, dimensions=TOKENS), "dimensions"),
        ):
            with pytest.raises(ConfigurationError, match=problem):
                limits.change(wrong)
        await clean(limits)

    virtual(body())


# Everything at once


@dataclass
class Ledger:
    """What the far end of one gate counted, as far as anybody knows by now."""

    rate: float
    per: float
    events: list[list[float]] = field(default_factory=list)

    def grant(self, units: float) -> list[float]:
        event = [now(), units]
        self.events.append(event)
        total = sum(count for when, count in self.events if event[0] - when <= self.per)
        assert total <= self.rate * (1 + 1e-6), f"{total} in {self.per} s, and {self.rate} are allowed"
        return event

    def report(self, event: list[float], used: float) -> None:
        if used <= event[1]:
            event[1] = used
        else:
            self.events.append([now(), min(used - event[1], self.rate)])


KINDS = ["ask"] * 6 + ["release"] * 3 + ["report", "cancel", "wait", "wait", "throttle", "change"]


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_any_story_keeps_all_promises(data: st.DataObject) -> None:
    rate = data.draw(st.sampled_from([1, 5, 20, 100]))
    tokens = data.draw(st.sampled_from([10.0, 250.0, 5000.0]))
    per = data.draw(st.sampled_from([0.5, 1.0, 10.0]))
    concurrency = data.draw(st.none() | st.integers(1, 6))
    places = data.draw(st.none() | st.integers(1, 4))

    def limit(share: float) -> Limit:
        bursts = [None if each is None else each * share for each in (None, 1.0)]
        return Limit(
            "llm",
            rate=rate * share,
            per=per,
            concurrency=concurrency,
            dimensions={"tokens": {"rate": tokens * share, "per": 2 * per, "burst": bursts[1]}},
        )

    async def body() -> None:
        limits = Limits([limit(1.0), Limit("other", rate=30, per=1)], max_permits=places)
        client = Client(limits)
        ledgers = {"llm": Ledger(rate, per), "llm.tokens": Ledger(tokens, 2 * per), "other": Ledger(30, 1)}
        holding: dict[Asked, dict[str, list[float]]] = {}
        held = 0
        everyone: list[Asked] = []
        cancelled: list[Asked] = []

        def got(asked: Asked) -> None:
            nonlocal held
            assert asked not in cancelled
            holding[asked] = {name: ledgers[name].grant(units) for name, units in asked.units.items()}
            held += 1
            assert places is None or held <= places
            assert concurrency is None or sum("llm" in each.units for each in holding) <= concurrency

        def release(asked: Asked, share: float | None = None, throttled: float | None = None) -> None:
            nonlocal held
            held -= 1
            events = holding.pop(asked)
            used = {}
            if share is not None and "llm.tokens" in events:
                used["llm.tokens"] = asked.units["llm.tokens"] * share
                ledgers["llm.tokens"].report(events["llm.tokens"], used["llm.tokens"])
            if throttled is None:
                asked.held.release(used)
            else:
                asked.held.throttled(throttled, used)

        for _ in range(data.draw(st.integers(1, 50))):
            what = data.draw(st.sampled_from(KINDS))
            if what == "ask":
                units: dict[str, float] = {}
                if data.draw(st.booleans()):
                    units["llm"] = 1
                    if data.draw(st.booleans()):
                        units["llm.tokens"] = tokens * 0.1 * data.draw(st.sampled_from([0.1, 0.5, 1, 1]))
                else:
                    units["other"] = data.draw(st.sampled_from([1, 1, 3, 20]))
                timeout = data.draw(st.none() | st.none() | st.floats(0.01, 20))
                everyone.append(client.ask(got, timeout=timeout, **units))
            elif what == "wait":
                await asyncio.sleep(data.draw(st.floats(0, 3 * per)))
            elif what == "cancel" and everyone:
                asked = data.draw(st.sampled_from(everyone))
                assert asked.ticket is not None
                if asked.grant is None:
                    cancelled.append(asked)
                asked.ticket.cancel()
            elif what == "change":
                # Never so low that somebody is refused: what they ask for is at most a tenth of the whole.
                share = data.draw(st.sampled_from([1.0, 0.5, 2.0])) if rate >= 5 else 1.0
                limits.change(limit(share))
                ledgers["llm"].rate, ledgers["llm.tokens"].rate = rate * share, tokens * share
            elif holding and what in ("release", "report", "throttle"):
                asked = data.draw(st.sampled_from(list(holding)))
                release(
                    asked,
                    None if what == "release" else data.draw(st.sampled_from([0.0, 0.3, 1.0, 1.7])),
                    data.draw(st.floats(0, 3)) if what == "throttle" else None,
                )
        for _ in range(400):
            open_ones = [each for each in everyone if each.grant is None and not each.refused and each not in cancelled]
            if not open_ones:
                break
            for asked in list(holding):
                release(asked)
            await asyncio.sleep(per)
        assert not open_ones, "somebody waits for ever"
        for asked in list(holding):
            release(asked)
        files: dict[Any, list[int]] = {}
        for each in client.granted:
            like = tuple((name, math.frexp(units)[1]) for name, units in sorted(each.units.items()))
            files.setdefault(like, []).append(each.number)
        assert all(numbers == sorted(numbers) for numbers in files.values()), "those of like weight keep their order"
        for one in limits.statistics():
            assert (one.held, one.waiting) == (0, 0)
        for gate in (*limits._gates.values(), *([limits.cap] if limits.cap else [])):
            assert not gate._ungranted and gate._held == 0
            assert gate._window is None or gate._window.pending == 0
        assert not limits.timed
        await clean(limits)

    virtual(body())


@pytest.mark.parametrize("estimate", [1.0, 2.0])
def test_a_saturated_limit_of_several_dimensions_is_used_whole(estimate: float) -> None:
    async def body() -> None:
        limits = Limits([Limit("llm", rate=1000, per=1, dimensions={"tokens": {"rate": 600, "per": 6}})], max_permits=8)
        client = Client(limits)
        ledger = Ledger(600, 6)

        def got(asked: Asked) -> None:
            grant: Grant = asked.held
            event = ledger.grant(asked.units["llm.tokens"])

            def finish() -> None:
                used = asked.units["llm.tokens"] / estimate
                ledger.report(event, used)
                grant.release({"llm.tokens": used})
                client.ask(got, **asked.units)

            asyncio.get_running_loop().call_later(0.05, finish)

        for number in range(40):
            client.ask(got, **{"llm": 1, "llm.tokens": 1 + number % 7})
        await asyncio.sleep(46)
        used = sum(count for _, count in ledger.events)
        assert used >= 0.97 * 100 * (46 - 6), used
        await limits.aclose()

    virtual(body())
