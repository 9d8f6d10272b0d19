"""The cache's frames: with a child that says what no real one would, and with a supervisor that answers late."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import hosting
import pytest

from orchestrator import Supervisor, _worker
from orchestrator._cache_file import CacheFile
from tests.contract._fake_child import FakeChild, Frame
from tests.contract._raw_child import RawChild, raw_child

JOBS = "_child_jobs"
A, B = (hashlib.sha256(text).hexdigest() for text in (b"a", b"b"))


# A supervisor, and children that say anything


class Talker(FakeChild):
    """Runs the job for ever, and is told by the test what to say of it."""

    made: ClassVar[list[FakeChild]] = []

    def script(self, frame: Frame) -> None:  # type: ignore[override]
        if frame["type"] == "init":
            self.hello()
        elif frame["type"] == "job":
            self.running = frame["fence"]
        elif frame["type"] == "cancel":
            self.say({"type": "error", "fence": frame["fence"], "cancelled": True, "error": {"type": "C"}})

    async def answers(self, **said: Any) -> list[Frame]:
        """Say something of the job; return what came of it."""
        before = len(self.heard)
        self.say_now({"type": "cache", "fence": self.running, **said})
        for _ in range(100):  # turns of the loop, and of the thread that checks files
            await asyncio.sleep(0.001 if len(self.heard) == before else 0)
        return self.heard[before:]


@pytest.fixture
def talkers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    monkeypatch.setattr(Talker, "made", made)
    monkeypatch.setattr(_worker, "Child", Talker)
    return made


async def busy(supervisor: Supervisor, talkers: list[Any], count: int = 1) -> list[Talker]:
    """Have so many children run a job each."""
    for _ in range(count):
        await supervisor.submit(hosting.hold)
    async with asyncio.timeout(20):
        while sum(talker.running is not None for talker in talkers) < count:  # noqa: ASYNC110  nobody is told
            await asyncio.sleep(0.001)
    return talkers


async def test_what_is_no_question_is_denied_and_nothing_else_happens(talkers: list[Any]) -> None:
    async with Supervisor(workers=1, on_exit="cancel") as supervisor:
        (talker,) = await busy(supervisor, talkers)
        for said, reason in (
            ({"op": "get", "keys": ["no hex"]}, "non-hexadecimal"),
            ({"op": "look"}, "no operation 'look'"),
            ({"op": "fill", "keys": [A], "values": []}, "0 values for 1 keys"),
            ({"op": "fill", "keys": [A], "values": [{}]}, "neither json, nor bytes, nor a file"),
            ({"op": "fill", "keys": [A], "values": [{"bytes": "*"}]}, "base64"),
        ):
            (answer,) = await talker.answers(request=3, **said)
            assert (answer["type"], answer["request"]) == ("denied", 3)
            assert reason in answer["reason"]
        assert await talker.answers(op="drop", lease=99) == []
        assert supervisor.statistics().cache.entries == 0
        assert supervisor.statistics().workers[0].state == "busy"


async def test_questions_leases_and_fills(talkers: list[Any]) -> None:
    async with Supervisor(workers=2, on_exit="cancel") as supervisor:
        one, two = await busy(supervisor, talkers, 2)
        (answer,) = await one.answers(op="get", request=1, keys=[A, B], wait=True)
        assert (answer["values"], answer["missing"]) == ([None, None], [0, 1])
        assert await two.answers(op="get", request=1, keys=[B], wait=True) == []
        (answer,) = await two.answers(op="get", request=2, keys=[A, B])
        assert answer == {"type": "cached", "request": 2, "values": [None, None]}
        heard = len(two.heard)
        (answer,) = await one.answers(op="fill", request=2, lease=1, keys=[B], values=[{"json": "[1]"}])
        assert answer == {"type": "cached", "request": 2}
        assert two.heard[heard:] == [{"type": "cached", "request": 1, "values": [{"json": "[1]"}]}]
        # A second value of a key is no other one.
        await two.answers(op="fill", request=3, lease=0, keys=[B], values=[{"json": "[2]"}])
        (answer,) = await two.answers(op="get", request=4, keys=[A, B], wait=True)
        assert answer["values"] == [None, {"json": "[1]"}]
        assert await two.answers(op="get", request=5, keys=[A], wait=True) == []
        heard = len(two.heard)
        await one.answers(op="drop", lease=1)
        assert [frame["missing"] for frame in two.heard[heard:]] == [[0]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("1-1-0.value", b"something else", {}),
        ("1-1-0.value", b"value", {"size": 6}),
        ("1-1-0.value", b"value", {"kind": "bytes"}),
        ("1-1-0.value", None, {}),
        ("../../outside", b"value", {}),
        ("", b"value", {}),
        ("..", b"value", {}),
    ],
)
async def test_a_file_that_is_not_what_was_said_is_not_kept(
    talkers: list[Any], name: str, content: bytes | None, said: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with Supervisor(workers=2, on_exit="cancel") as supervisor:
        one, two = await busy(supervisor, talkers, 2)
        (answer,) = await one.answers(op="get", request=1, keys=[A], wait=True)
        folder = Path(answer["folder"])
        await two.answers(op="get", request=1, keys=[A], wait=True)
        if content is not None:
            (folder / "1-1-0.value").write_bytes(content)
            outside = folder.parent.parent / "outside"
            outside.write_bytes(content)
        value = {"file": name, "kind": "json", "size": 5, "sha256": hashlib.sha256(b"json\0value").hexdigest(), **said}
        heard = len(two.heard)
        (answer,) = await one.answers(op="fill", request=2, lease=1, keys=[A], values=[value])
        assert answer["type"] == "cached"
        assert [frame["missing"] for frame in two.heard[heard:]] == [[0]], "the next one computes"
        assert supervisor.statistics().cache.entries == 0
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
        if content is not None:
            assert outside.exists()
    assert "cache.value_refused" in caplog.text


async def test_an_answer_that_is_long_comes_in_parts(talkers: list[Any]) -> None:
    keys = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(40)]
    async with Supervisor(workers=1, on_exit="cancel") as supervisor:
        (talker,) = await busy(supervisor, talkers)
        for number, key in enumerate(keys):
            value = {"json": json.dumps(str(number) * 60_000 if number > 9 else f"{number}{number}" * 30_000)}
            await talker.answers(op="fill", request=1, keys=[key], values=[value])
        (answer,) = await talker.answers(op="get", request=2, keys=keys)
        told = [value for value in answer["values"] if value is not None]
        assert "missing" not in answer
        assert 1 <= len(told) < 20


async def test_an_attempt_that_is_over_leaves_nothing(talkers: list[Any]) -> None:
    async with Supervisor(workers=1, on_exit="cancel") as supervisor:
        (talker,) = await busy(supervisor, talkers)
        await talker.answers(op="get", request=1, keys=[A], wait=True)
        await talker.answers(op="get", request=2, keys=[A], wait=True)
        flights = supervisor._link.engine.cache._flights  # type: ignore[union-attr]
        assert len(flights) == 1
        talker.say_now({"type": "result", "fence": talker.running, "value": None})
        assert (len(flights), flights._calls, flights._waiting) == (0, {}, {})


async def test_what_was_for_a_dead_child_is_not_told_to_the_next_one(
    talkers: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    write = CacheFile.write

    def slowly(self: CacheFile, *args: Any) -> None:
        assert free.wait(60)
        write(self, *args)

    async with Supervisor(workers=1, on_exit="cancel", cache=tmp_path / "cache.db") as supervisor:
        monkeypatch.setattr(CacheFile, "write", slowly)
        (talker,) = await busy(supervisor, talkers)
        await talker.answers(op="get", request=1, keys=[A], wait=True)
        assert await talker.answers(op="fill", request=2, lease=1, keys=[A], values=[{"json": "1"}]) == []
        talker.end_now(signal="SIGKILL")
        _, another = await busy(supervisor, talkers, 2)
        assert await another.answers(op="get", request=2, keys=[A], wait=True) == []
        free.set()
        async with asyncio.timeout(20):
            while another.heard[-1]["type"] != "cached":  # noqa: ASYNC110  nobody is told
                await asyncio.sleep(0.001)
        assert [frame for frame in another.heard if frame["type"] == "cached"] == [
            {"type": "cached", "request": 2, "values": [{"json": "1"}]}
        ]


# A child, and a supervisor that says anything


@pytest.fixture
def child(tmp_path: Path) -> Iterator[RawChild]:
    with raw_child(tmp_path) as found:
        yield found


def cached(child: RawChild, asked: Frame, **said: Any) -> None:
    child.send({"type": "cached", "request": asked["request"], **said})


def question(child: RawChild, after: Frame | None = None) -> Frame:
    last = 0 if after is None else after["request"]
    return child.wait(lambda frame: frame["type"] == "cache" and frame.get("request", 0) > last)


@pytest.mark.parametrize("target", ["with_cache", "with_cache_async"])
def test_a_child_asks_computes_tells_and_waits_until_that_is_kept(child: RawChild, target: str) -> None:
    fence = child.job(f"{JOBS}:{target}", "key")
    asked = question(child)
    digest = hashlib.sha256(b'["test","key"]').hexdigest()
    assert asked == {
        "type": "cache", "op": "get", "keys": [digest], "wait": True, "fence": fence, "request": asked["request"],
    }  # fmt: skip
    cached(child, asked, values=[None], missing=[0], folder=None)
    told = question(child, asked)
    assert (told["op"], told["lease"]) == ("fill", asked["request"])
    assert (told["keys"], told["values"]) == ([digest], [{"json": '{"of":"key"}'}])
    assert not child.all_of("result")
    cached(child, told)
    assert child.outcome(fence)["value"] == {"of": "key"}


@pytest.mark.parametrize("target", ["with_cache", "with_cache_async"])
def test_a_question_is_withdrawn_when_its_job_is_cancelled(child: RawChild, target: str) -> None:
    fence = child.job(f"{JOBS}:{target}", "key")
    asked = question(child)
    child.send({"type": "cancel", "fence": fence})
    assert child.outcome(fence)["cancelled"] is True
    (dropped,) = [frame for frame in child.all_of("cache") if frame["op"] == "drop"]
    assert (dropped["lease"], dropped["fence"]) == (asked["request"], fence)
    cached(child, asked, values=[None], missing=[0])  # crossed with it
    fence = child.job(f"{JOBS}:{target}", "key")
    again = question(child, asked)
    cached(child, again, values=[{"json": '"found"'}])
    assert child.outcome(fence)["value"] == "found"


def test_a_file_that_is_gone_is_asked_for_again_and_then_computed(child: RawChild, tmp_path: Path) -> None:
    fence = child.job(f"{JOBS}:with_cache", "key")
    asked = question(child)
    for _ in range(3):
        cached(child, asked, values=[{"file": str(tmp_path / "none"), "kind": "json", "size": 5}])
        asked = question(child, asked)
        if asked["op"] == "get":
            assert asked["lost"] == asked["keys"]
    assert (asked["op"], asked["lease"]) == ("fill", 0)
    cached(child, asked)
    assert child.outcome(fence)["value"] == {"of": "key"}


def test_a_file_of_another_size_counts_as_gone(child: RawChild, tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(b'"torn')
    fence = child.job(f"{JOBS}:with_cache", "key")
    asked = question(child)
    cached(child, asked, values=[{"file": str(tmp_path / "value"), "kind": "json", "size": 7}])
    asked = question(child, asked)
    assert asked["lost"] == asked["keys"]
    (tmp_path / "value").write_bytes(b'"whole"')
    cached(child, asked, values=[{"file": str(tmp_path / "value"), "kind": "json", "size": 7}])
    assert child.outcome(fence)["value"] == "whole"


def test_a_denied_question_fails_in_the_job(child: RawChild) -> None:
    fence = child.job(f"{JOBS}:with_cache", "key")
    child.send({"type": "denied", "request": question(child)["request"], "reason": "because"})
    assert child.outcome(fence)["error"]["message"] == "cache('test'): because"
