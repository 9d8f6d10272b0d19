"""Calls of models from real children with the real clients, against a server that misbehaves as it is asked to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asking
import pytest
from local_llm import KEY, ModelServer

from orchestrator import Job, Outcome, Supervisor
from orchestrator._events import Log

TARGETS = Path(asking.__file__).parent
APIS = ["gemini", "openai"]
ASK = {"sync": asking.ask, "async": asking.ask_async}
EMBED = {"sync": asking.embed, "async": asking.embed_async}

each_api = pytest.mark.parametrize("api", APIS)
# Each client is large to import, in every child; the rest is of a long lane.
each_way = pytest.mark.parametrize(
    ("api", "way"),
    [
        ("gemini", "async"),
        ("openai", "sync"),
        pytest.param("gemini", "sync", marks=pytest.mark.soak),
        pytest.param("openai", "async", marks=pytest.mark.soak),
    ],
)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(asking.KEY, KEY)


def children(workers: int = 1, **options: Any) -> Supervisor:
    return Supervisor(workers=workers, secrets=[asking.KEY], **options)


def job(way: str, api: str, server: ModelServer, prompt: str, **options: Any) -> Job:
    return Job(ASK[way], args=(api, prompt, {"base_url": server.url, **options}), timeout=60)


async def outcome_of(supervisor: Supervisor, job: Job) -> Outcome[Any]:
    return await (await supervisor.submit(job)).outcome()


@each_way
async def test_answers_are_texts_or_what_a_schema_describes_and_use_is_exact(
    server: ModelServer, api: str, way: str
) -> None:
    usage: dict[str, float] = {}
    async with children() as supervisor:
        for number in range(3):
            for schema in asking.SCHEMAS:
                found = await outcome_of(supervisor, job(way, api, server, f"a fox, {number}", schema=schema))
                assert found.status == "succeeded", found.error
                for name, count in found.usage.items():
                    usage[name] = usage.get(name, 0) + count
                if schema == "dataclass":
                    assert found.value["kind"] in ("animal", "food", "other") and found.value["words"]
                elif schema == "list":
                    assert isinstance(found.value, list) and isinstance(found.value[0], str)
                elif schema == "json":
                    assert found.value["kind"] in ("animal", "food") and 0 <= found.value["score"] <= 9
                else:
                    assert isinstance(found.value, str) and found.value
    stats = server.stats()
    assert stats["requests"] == stats["answered"] == usage["requests"] == 12
    assert (usage["prompt"], usage["output"]) == (stats["prompt_tokens"], stats["output_tokens"])
    assert usage["thoughts"] == 12 * 7
    assert stats["connections"] == 1  # one client, kept between jobs


@each_way
async def test_a_request_is_no_line_in_the_log(server: ModelServer, api: str, way: str) -> None:
    async with children() as supervisor:
        handle = await supervisor.submit(job(way, api, server, "a fox"))
        logged = [event async for event in handle.events() if isinstance(event, Log)]
    assert (await handle.outcome()).status == "succeeded" and logged == []


# What each fault comes to: the exception, its code, failure class, quota scope and delay.
FAILURES = {
    "minute=2.5": ("Throttled", 429, "throttled", "minute", 2.5),
    "suffix=53.01": ("Throttled", 429, "throttled", ..., 53.01),
    "header=7": ("Throttled", 429, "throttled", ..., 7),
    "day": ("QuotaExhausted", 429, "throttled", "day", None),
    "spend": ("QuotaExhausted", 429, "throttled", "spend", ...),
    "shared": ("Throttled", 429, "throttled", "shared", ...),
    "contradictory=5": ("Throttled", 429, "throttled", "minute", 5),
    "400": ("Refused", 400, "permanent", None, None),
    "403": ("Refused", 403, "permanent", None, None),
    "404": ("Refused", 404, "permanent", None, None),
    "408": ("Unavailable", 408, "transient", None, None),
    "500": ("Unavailable", 500, "transient", None, None),
    "503": ("Unavailable", 503, "transient", None, None),
    "slow=50": ("Unavailable", None, "transient", None, None),
    "close": ("Unavailable", None, "transient", None, None),
    "cut": ("Unavailable", None, "transient", None, None),
    "garbage": ("Unavailable", None, "transient", None, None),
    "truncated": ("InvalidAnswer", None, "permanent", None, None),
    "empty": ("InvalidAnswer", None, "permanent", None, None),
    "safety": ("Blocked", None, "permanent", None, None),
}


@each_way
async def test_each_failure_says_what_to_do_about_it_and_is_not_tried_again_here(
    server: ModelServer, api: str, way: str
) -> None:
    async with children() as supervisor:
        for fault, (name, code, failure_class, scope, delay) in FAILURES.items():
            timeout = 0.4 if fault.startswith("slow") else 20.0
            # A model of its own, for what is known of a model's refusals goes into the next one.
            options = {"timeout": timeout, "tries": 1, "model": f"m-{fault.partition('=')[0]}"}
            found = await outcome_of(supervisor, job(way, api, server, f"a fox [[{fault}]]", **options))
            assert found.status == "failed" and found.error is not None, (fault, found)
            record = found.error.error
            assert record.type == f"orchestrator_adapters.llm.{name}", (fault, record)
            assert record.data.get("code") == code, (fault, record)
            assert record.data.get("failure_class") == failure_class, (fault, record)
            for expected, told in ((scope, "quota_scope"), (delay, "retry_after")):
                assert expected is ... or record.data.get(told) == expected, (fault, told, record)
            assert found.usage["requests"] == 1
    assert server.stats()["requests"] == len(FAILURES)


@each_way
async def test_an_invalid_answer_is_asked_for_again_within_the_budget_and_each_try_is_counted(
    server: ModelServer, api: str, way: str
) -> None:
    async with children() as supervisor:
        for fault in ("invalid", "truncated", "empty"):
            before = server.stats()
            prompt = f"a fox [[{fault}*2]]"
            found = await outcome_of(supervisor, job(way, api, server, prompt, schema="dataclass", tries=3))
            assert found.status == "succeeded", (fault, found.error)
            after = server.stats()
            assert found.usage["requests"] == after["requests"] - before["requests"] == 3
            assert found.usage["prompt"] == after["prompt_tokens"] - before["prompt_tokens"]
            assert found.usage["output"] == after["output_tokens"] - before["output_tokens"]
        found = await outcome_of(supervisor, job(way, api, server, "a fox [[invalid]]", schema="dataclass", tries=2))
    assert found.status == "failed" and found.error is not None
    assert found.usage["requests"] == 2
    # What was paid for can be read, and what is wrong with it.
    assert "in 2 tries" in found.error.error.message and '{"unexpected": true}' in found.error.error.message
    assert found.error.error.data["failure_class"] == "permanent"


@each_api
async def test_a_day_that_comes_back_at_once_is_probed_and_then_believed(server: ModelServer, api: str) -> None:
    async with children() as supervisor:
        scopes = []
        for number in range(3):
            found = await outcome_of(supervisor, job("sync", api, server, f"{number} [[contradictory=0.05]]"))
            scopes.append(found.error.error.data["quota_scope"] if found.error else found.status)  # type: ignore[attr-defined]
            await asyncio.sleep(0.1)  # until the time that was named is over
        # Another model has another quota.
        other = await outcome_of(supervisor, job("sync", api, server, "a fox", model="other"))
    assert scopes == ["minute", "day", "day"] and other.status == "succeeded"
    assert server.stats()["refused"] == 2  # once it is believed nobody is asked for a while


@each_api
async def test_a_key_that_is_missing_or_wrong_is_named_without_its_value(
    server: ModelServer, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Supervisor(workers=1, env={asking.KEY: None}) as supervisor:
        found = await outcome_of(supervisor, job("sync", api, server, "a fox"))
    assert found.error is not None and f"variable {asking.KEY} is not set" in str(found.error)
    assert found.error.error.data["failure_class"] == "permanent"  # type: ignore[attr-defined]
    assert server.stats()["requests"] == 0
    monkeypatch.setenv(asking.KEY, "a-wrong-key-98765")
    async with children() as supervisor:
        found = await outcome_of(supervisor, job("sync", api, server, "a fox"))
    assert found.error is not None and "API key" in str(found.error) and "98765" not in repr(found)
    assert found.error.error.data["failure_class"] == "permanent"  # type: ignore[attr-defined]
    assert server.stats()["bad_keys"] == 1


@each_way
async def test_each_text_is_embedded_once_however_many_children_ask(server: ModelServer, api: str, way: str) -> None:
    texts = [f"text {number}" for number in range(60)]
    async with children(workers=4) as supervisor:
        jobs = [
            Job(EMBED[way], args=(api, texts[start : start + 30] * 2, {"base_url": server.url, "batch_size": 7}))
            for start in (0, 10, 20, 30) * 3
        ]
        outcomes = {outcome.index: outcome async for outcome in supervisor.map(jobs)}
    vectors: dict[str, list[float]] = {}
    for index, found in outcomes.items():
        assert found.status == "succeeded", found.error
        start = (0, 10, 20, 30)[index % 4]
        assert len(found.value) == 60
        for text, vector in zip(texts[start : start + 30] * 2, found.value, strict=True):
            assert vectors.setdefault(text, vector) == vector and len(vector) == 16
    sent = [text for request in server.requests for text in request["prompt"].split("\n")]
    assert sorted(sent) == sorted(texts)
    assert sum(found.usage.get("embeddings", 0) for found in outcomes.values()) == 60


@each_api
def test_job_code_runs_outside_a_child_too_in_loops_one_after_the_other(server: ModelServer, api: str) -> None:
    code = f"""
import asyncio, os, sys
sys.path.insert(0, {str(TARGETS)!r})
os.environ["THE_MODEL_KEY"] = {KEY!r}
import asking

options = {{"base_url": {server.url!r}}}
answer = asking.ask({api!r}, "a fox", options)
for _ in range(2):
    assert asyncio.run(asking.ask_async({api!r}, "a fox", options)) == answer
vector = asking.embed({api!r}, ["fox"], options)
assert asyncio.run(asking.embed_async({api!r}, ["fox"], options)) == vector
print(answer)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.strip()
    assert server.stats()["requests"] <= 5
