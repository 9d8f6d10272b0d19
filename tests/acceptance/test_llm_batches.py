"""Batches through a model server that refuses, fails and runs out: what the batch says is what the server counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asking
import pytest
from local_llm import KEY, ModelServer, Quota
from orchestrator_adapters.batch import Batch, Report

each_api = pytest.mark.parametrize("api", ["gemini", "openai"])


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(asking.KEY, KEY)


def params(server: ModelServer, api: str, **more: Any) -> dict[str, Any]:
    return {
        "multiprocessing": {"worker_count": 2, "max_concurrent_requests": 2, "secrets": [asking.KEY]},
        "limits": {"model": {"rate": 200, "per": 1}},
        "llm": {"url": server.url, "api": api, **more},
    }


async def run(folder: Path, records: list[str], params: dict[str, Any], **options: Any) -> Report:
    source = [{"n": number, "prompt": f"{prompt} {number}"} for number, prompt in enumerate(records)]
    batch = Batch(
        options.pop("target", "asking:enrich"),
        source,
        folder / "out.jsonl",
        params=params,
        folder=folder / ".orchestrator",
        progress="none",
        **options,
    )
    return await batch.run()


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(("api", "target"), [("gemini", "asking:enrich_async"), ("openai", "asking:enrich")])
async def test_a_storm_ends_with_every_record_answered_and_every_token_counted(
    server: ModelServer, tmp_path: Path, api: str, target: str
) -> None:
    server.configure({"storm": {"minute=0.1": 0.03, "503": 0.03, "invalid": 0.05, "truncated": 0.03, "close": 0.02}})
    report = await run(tmp_path, ["a fox"] * 120, params(server, api), target=target)
    found = server.stats()
    assert report.exit_code == 0, report
    assert [line["n"] for line in written(tmp_path)] == list(range(120))
    assert found["distinct"] == found["answered"] == 120 and set(found["faults"]) >= {"503", "invalid", "minute"}
    usage = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert usage["usage_requests"] == found["requests"]
    assert usage["usage_prompt"] == found["prompt_tokens"] and usage["usage_output"] == found["output_tokens"]


@pytest.mark.parametrize(
    ("api", "fault"), [("gemini", "day"), pytest.param("gemini", "spend", marks=pytest.mark.soak), ("openai", "spend")]
)
async def test_a_quota_that_is_used_up_stops_the_batch_and_the_next_run_does_the_rest(
    server: ModelServer, tmp_path: Path, api: str, fault: str
) -> None:
    if fault == "day":
        server.configure({"quotas": [Quota("requests", 30, 86_400)]})
    else:
        server.configure({"storm": {"spend": 0.1}})
    report = await run(tmp_path, ["a fox"] * 80, params(server, api))
    before = server.stats()
    assert report.exit_code == 75 and report.reason, report
    assert not (tmp_path / "out.jsonl").exists()
    # Those under way may still be refused; then nothing is asked any more.
    assert 0 < before["refused"] <= 4 and before["answered"] < 80
    server.configure({"quotas": [], "storm": {}})
    report = await run(tmp_path, ["a fox"] * 80, params(server, api))
    after = server.stats()
    assert report.exit_code == 0, report
    assert [line["n"] for line in written(tmp_path)] == list(range(80))
    assert after["answered"] == after["distinct"] == 80 and after["most_for_one"] == 1


@each_api
async def test_failures_of_records_are_told_by_class_with_what_was_paid_for(
    server: ModelServer, tmp_path: Path, api: str
) -> None:
    faults = {"[[safety]]": "permanent", "[[400]]": "permanent", "[[invalid]]": "permanent", "[[500]]": "transient"}
    records = ["a fox", *faults, "a bear [[500*2]]", "a wolf [[slow=30*1]]"]
    report = await run(tmp_path, records, params(server, api, timeout=1.0))
    assert report.exit_code == 1, report
    assert [line["n"] for line in written(tmp_path)] == [0, 5, 6]
    failed = [json.loads(line) for line in (tmp_path / "failed.jsonl").read_text("utf-8").splitlines()]
    assert [line["class"] for line in failed] == list(faults.values())
    assert failed[2]["error"] == "orchestrator_adapters.llm.InvalidAnswer"
    assert '{"unexpected": true}' in failed[2]["message"] and failed[2]["usage"]["requests"] == 3
    assert failed[3]["attempts"] == 3 and KEY not in json.dumps(failed)


@pytest.mark.parametrize(("api", "target"), [("gemini", "asking:enrich"), ("openai", "asking:enrich_async")])
async def test_the_same_job_code_runs_in_this_process(
    server: ModelServer, tmp_path: Path, api: str, target: str
) -> None:
    report = await run(tmp_path, ["a fox"] * 12, params(server, api), target=target, multiprocessing=False)
    found = server.stats()
    assert report.exit_code == 0 and found["answered"] == 12, report
    assert [line["n"] for line in written(tmp_path)] == list(range(12))
