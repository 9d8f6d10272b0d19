"""What a 429 means: the pure reading of bodies, messages and headers, and of several refusals in a row."""

from __future__ import annotations

from email.utils import formatdate
from time import time
from typing import Any

import pytest
from local_llm import Fault, gemini_refusal, openai_refusal
from orchestrator_adapters.llm._throttle import LONGEST_WAIT, REST, SHORTEST_WAIT, Refusals, Throttle, read_throttle


def told(name: str, seconds: float | None = None) -> Throttle:
    return read_throttle(*gemini_refusal(Fault(name, seconds), "m"))


@pytest.mark.parametrize(
    ("fault", "seconds", "expected"),
    [
        ("minute", 53.0, Throttle("minute", 53.0)),
        ("minute", 0.25, Throttle("minute", 0.25)),
        ("day", None, Throttle("day", None)),
        ("day", 40000.0, Throttle("day", 40000.0)),
        ("contradictory", 36.0, Throttle("day", 36.0)),
        ("spend", None, Throttle("spend", 53.0)),
        ("shared", None, Throttle("shared", None)),
        ("suffix", 53.01, Throttle("shared", 53.01)),
        ("header", 7.0, Throttle("minute", 7.0)),
    ],
)
def test_what_gemini_says(fault: str, seconds: float | None, expected: Throttle) -> None:
    assert told(fault, seconds) == expected


@pytest.mark.parametrize(
    ("fault", "seconds", "expected"),
    [
        ("minute", 20.0, Throttle("minute", 20.0)),
        ("day", None, Throttle("day", None)),
        ("contradictory", 5.0, Throttle("day", 5.0)),
        ("spend", None, Throttle("spend", None)),
        ("shared", None, Throttle("shared", None)),
        ("suffix", 20.0, Throttle("minute", 20.0)),
        ("header", 3.0, Throttle("shared", 3.0)),
    ],
)
def test_what_openai_says(fault: str, seconds: float | None, expected: Throttle) -> None:
    assert read_throttle(*openai_refusal(Fault(fault, seconds), "m")) == expected


def test_retry_info_beats_the_message_and_the_message_the_header() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "53s"}
    error: dict[str, Any] = {"message": "Please retry in 53.01s.", "details": [info]}
    assert read_throttle({"error": error}, {"Retry-After": "9"}).retry_after == 53
    del error["details"]
    assert read_throttle({"error": error}, {"Retry-After": "9"}).retry_after == 53.01
    assert read_throttle({"error": {"message": "no"}}, {"retry-after": "9"}).retry_after == 9


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 6m0s.", 360),
        ("Please try again in 1h2m3.5s.", 3723.5),
        ("Please try again in 120ms.", 0.12),
        ("Please retry after 20 seconds", 20),
        ("Please retry after 2 minutes", 120),
        ("Please try again in a moment.", None),
        ("Please try again in 1 lifetime", None),
    ],
)
def test_delays_in_messages(message: str, seconds: float | None) -> None:
    assert read_throttle({"error": {"message": message}}, {}).retry_after == seconds


def test_headers_are_milliseconds_seconds_or_a_date() -> None:
    assert read_throttle({}, {"Retry-After-Ms": "1500", "Retry-After": "2"}).retry_after == 1.5
    assert read_throttle({}, {"Retry-After": "-3"}).retry_after == 0
    at = read_throttle({}, {"Retry-After": formatdate(time() + 60, usegmt=True)}).retry_after
    assert at is not None and 50 < at <= 61
    assert read_throttle({}, {"Retry-After": "soon"}).retry_after is None


@pytest.mark.parametrize(
    "body",
    [
        None,
        "Too many requests",
        [],
        {"error": "slow down"},
        {"error": {"details": "no list"}},
        {"error": {"details": [None, 3, {"@type": "x.RetryInfo", "retryDelay": 53}]}},
        {"error": {"details": [{"@type": "x.RetryInfo", "retryDelay": {"seconds": "many"}}]}},
        {"error": {"details": [{"@type": "x.QuotaFailure", "violations": [None, {"quotaId": None}]}]}},
    ],
)
def test_bodies_of_any_shape_are_read(body: Any) -> None:
    found = read_throttle(body, {})
    assert found.scope in ("shared", "unknown") and found.retry_after is None


def test_durations_of_protobuf_may_be_objects() -> None:
    info = {"@type": "x.RetryInfo", "retryDelay": {"seconds": "5", "nanos": 500_000_000}}
    assert read_throttle([{"error": {"details": [info]}}], {}).retry_after == 5.5


def test_a_day_that_is_over_soon_is_probed_once_and_believed_the_second_time() -> None:
    refusals = Refusals()
    day = Throttle("day", 30.0)
    assert refusals.refused(day, asked_at=0, now=1) == Throttle("minute", 30.0)
    # Those that were under way, and those that were asked too early, prove nothing.
    assert refusals.refused(day, asked_at=0.5, now=2).scope == "minute"
    assert refusals.refused(day, asked_at=30.9, now=31).scope == "minute"
    assert refusals.refused(day, asked_at=31, now=31.5) == day


def test_an_answer_between_two_such_refusals_makes_the_second_a_first() -> None:
    refusals = Refusals()
    day = Throttle("day", 30.0)
    refusals.refused(day, asked_at=0, now=1)
    refusals.answered()
    assert refusals.refused(day, asked_at=50, now=51).scope == "minute"
    assert refusals.refused(day, asked_at=81, now=82).scope == "day"


def test_after_a_quota_is_used_up_nobody_asks_for_a_while_or_until_an_answer_comes() -> None:
    refusals, spent = Refusals(), Throttle("spend", None)
    assert refusals.exhausted(0) is None
    refusals.exhaust(spent, "no money", 10)
    assert refusals.exhausted(10 + REST - 0.1) == (spent, "no money")
    assert refusals.exhausted(10 + REST) is None
    refusals.answered()
    assert refusals.exhausted(11) is None


@pytest.mark.parametrize("delay", [None, 121.0, 40_000.0])
def test_a_day_that_is_not_over_soon_is_believed_at_once(delay: float | None) -> None:
    assert Refusals().refused(Throttle("day", delay), asked_at=0, now=1) == Throttle("day", delay)


def test_without_a_delay_the_wait_grows_with_refusals_in_a_row_but_not_with_those_under_way() -> None:
    shared = Throttle("shared", None)
    longest = []
    for _ in range(200):
        refusals = Refusals()
        waits = [refusals.refused(shared, asked_at=at, now=at + 0.5).retry_after or 0 for at in range(8)]
        longest.append(waits)
        together = Refusals()
        assert all((together.refused(shared, 0, 1 + n / 10).retry_after or 0) <= 2 * SHORTEST_WAIT for n in range(6))
    most = [max(column) for column in zip(*longest, strict=True)]
    assert all(SHORTEST_WAIT <= wait <= LONGEST_WAIT for waits in longest for wait in waits)
    assert most[0] <= 2 < most[2] <= 8 < most[4] <= 32 < most[7]
