"""A batch in real children: results in order, failures by class, retries, resuming, what is refused and how."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import enriching
import pytest
from orchestrator_adapters.batch import Batch, BatchError, Report


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def batch(target: Any, source: Any, sink: Any = "out.jsonl", **options: Any) -> Batch:
    mapping = {"multiprocessing": {"worker_count": 2, **options.pop("mp", {})}, **options.pop("sections", {})}
    return Batch(target, source, sink, **{"params": mapping, "progress": "none", **options})


def write(path: str, records: list[Any]) -> str:
    Path(path).write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    return path


def lines(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def notes(path: str = "log") -> Counter[int]:
    return Counter(int(line) for line in Path(path).read_text("utf-8").split())


def obeying(*whats: str | None, times: int = 1) -> list[dict[str, Any]]:
    """Return records that do these things once each before they succeed."""
    log = str(Path("log").absolute())
    return [
        {"id": number, "log": log} | ({} if what is None else {"first": what, "times": times})
        for number, what in enumerate(whats)
    ]


async def test_results_in_order_files_beside_them_and_the_same_again_only_exports() -> None:
    source = write("in.jsonl", [{"id": number} for number in range(300)])
    report = await batch("enriching:double", source).run()
    assert (report.exit_code, report.total, report.succeeded, report.failed) == (0, 300, 300, 0)
    assert lines("out.jsonl") == [{"id": number, "twice": 2 * number} for number in range(300)]
    assert report.in_children == 300 and report.in_process == 0 and report.attempts == 300
    metrics = json.loads(Path("metrics.json").read_text("utf-8"))
    assert metrics["total"] == metrics["successful"] == 300
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert not Path("failed.jsonl").exists() and not list(Path().glob(".*.partial"))

    Path("out.jsonl").unlink()
    again = await batch("enriching:double", source).run()
    assert (again.exit_code, again.resumed, again.attempts) == (0, 300, 300)
    assert len(lines("out.jsonl")) == 300
    assert json.loads(Path("metrics.json").read_text("utf-8")) == metrics


async def test_functions_async_handlers_and_annotations() -> None:
    taken: list[Any] = []
    report = await batch(
        enriching.answer, [{"text": "a"}, {"text": "b", "weight": 2}, {"weight": 3}], taken.append
    ).run()
    assert report.by_class == {"invalid": 1} and report.exit_code == 1
    assert [each["text"] for each in taken] == ["a!", "b!"] and taken[0]["when"].startswith("2026-01-02T00:00:00")

    taken.clear()
    await batch("enriching:later", [{"id": 1}, {"id": 2}], taken.append, mp={"per_worker_concurrency": 2}).run()
    assert taken == [1, 2]

    await batch(enriching.nothing, [1, 2], "none.jsonl").run()
    assert Path("none.jsonl").read_text("utf-8") == "null\nnull\n"


async def test_typed_results_are_json_as_their_annotation_would_read_it() -> None:
    for target in (enriching.priced, "enriching:priced"):
        await batch(target, [{"text": "a", "cost": "1.50"}, {"text": "b", "cost": None}], fresh=True).run()
        expected = '{"text":"a","cost":"1.50"}\n{"text":"b","cost":null}\n'
        assert Path("out.jsonl").read_text("utf-8") == expected
    await batch(enriching.numbered, [1], "numbered.jsonl").run()
    assert lines("numbered.jsonl") == [{"2": "2026-01-02T00:00:00Z", "1": None}]
    report = await batch(enriching.infinite, [1], "infinite.jsonl").run()
    assert report.by_class == {"permanent": 1} and "the result holds inf" in lines("failed.jsonl")[0]["message"]


async def test_async_iterator_and_async_sink() -> None:
    async def records() -> AsyncIterator[int]:
        for number in range(50):
            await asyncio.sleep(0)
            yield number

    taken: list[int] = []

    async def take(value: int) -> None:
        await asyncio.sleep(0)
        taken.append(value)

    assert (await batch("enriching:same", records(), take).run()).exit_code == 0
    assert taken == list(range(50))


async def test_other_sections_are_the_handlers_params() -> None:
    taken: list[Any] = []
    await batch("enriching:parameters", [1], taken.append, sections={"llm": {"model": "m"}}).run()
    assert taken == [{"llm": {"model": "m"}}]


async def test_failures_have_classes_and_lines_of_their_own() -> None:
    records = obeying(
        None, "value_error", "code 400", "code 503", "throttle 0.05", "connection", "die", "class invalid"
    )
    for number in (1, 2, 7):
        records[number]["times"] = 99
    write("in.jsonl", records)
    with open("in.jsonl", "a", encoding="utf-8") as file:
        file.write("{broken\n")
    report = await batch("enriching:obey", "in.jsonl").run()
    assert report.exit_code == 1 and report.total == 9
    assert report.by_class == {"permanent": 2, "invalid": 2}
    assert lines("out.jsonl") == [0, 3, 4, 5, 6]
    calls = notes()
    assert [calls[number] for number in range(8)] == [1, 1, 1, 2, 2, 2, 2, 1]
    assert report.attempts == calls.total() == 12 and report.retries == 4
    # Also what crashed and what failed was paid for.
    assert report.usage == {"tokens": 120}
    failed = lines("failed.jsonl")
    assert [each["number"] for each in failed] == [2, 3, 8, 9]
    assert set(failed[0]) == {"number", "place", "record", "class", "error", "message", "attempts", "usage"}
    assert failed[0]["record"] == records[1] and failed[0]["error"] == "ValueError"
    assert failed[0]["usage"] == {"tokens": 10} and failed[0]["attempts"] == 1
    assert failed[3]["place"] == "line 9" and failed[3]["record"] == "{broken" and failed[3]["class"] == "invalid"
    assert "in.jsonl: line 9" in failed[3]["message"]


async def test_the_first_failures_are_shown_as_they_come(capfd: pytest.CaptureFixture[str]) -> None:
    records: list[Any] = obeying(*["value_error"] * 13)
    for record in records:
        record["times"] = 99
    write("in.jsonl", records)
    with open("in.jsonl", "a", encoding="utf-8") as file:
        file.write("{broken\n")
    report = await batch("enriching:obey", "in.jsonl", progress="log").run()
    assert report.failed == 14
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(said) == 11
    shown = [line for line in said[:-1] if ": permanent: ValueError: " in line]
    bad = [line for line in said[:-1] if line.startswith("failed: line 14: invalid: in.jsonl: line 14: ")]
    assert len(shown) + len(bad) == 10 and "not shown here" in said[-1]


async def test_attempts_bound_retries_and_crashes_become_poison() -> None:
    records = obeying("code 503", "die", "throttle 0.01", times=99)
    report = await batch("enriching:obey", write("in.jsonl", records)).run()
    assert report.by_class == {"transient": 1, "poison": 1, "throttled": 1}
    # Three attempts, three deaths; being throttled is free, but not for ever.
    assert notes() == {0: 3, 1: 3, 2: 11}


async def test_timeouts_are_tried_again() -> None:
    records = obeying("sleep 60")
    report = await batch("enriching:obey", records, mp={"task_timeout": 3, "attempts": 2}).run()
    assert report.exit_code == 0 and notes() == {0: 2}


async def test_max_failures_are_a_success_and_one_more_stops() -> None:
    records = obeying(*["value_error"] * 3, *[None] * 5)
    report = await batch("enriching:obey", records, max_failures=3).run()
    assert report.exit_code == 0 and report.failed == 3 and lines("out.jsonl") == [3, 4, 5, 6, 7]

    Path("out.jsonl").unlink()
    many = obeying(*["value_error"] * 500)
    report = await batch("enriching:obey", many, name="many", max_failures=2).run()
    assert report.exit_code == 1 and report.reason is not None and "max_failures" in report.reason
    assert 3 <= report.failed < 100 and not Path("out.jsonl").exists()
    assert len(lines("failed.jsonl")) == report.failed


async def test_classify_goes_first_by_name_or_as_a_function() -> None:
    records = obeying("value_error", times=9)
    for classify in (enriching.odd_is_throttled, "enriching:odd_is_throttled"):
        report = await batch("enriching:obey", records, classify=classify, fresh=True).run()
        assert report.by_class == {"invalid": 1}
    with pytest.raises(BatchError, match="classify returned 'strange'") as caught:
        await batch("enriching:obey", records, classify=enriching.wrong_class, fresh=True).run()
    assert caught.value.exit_code == 2
    with pytest.raises(BatchError, match="cannot be imported"):
        await batch("enriching:obey", records, classify="enriching:missing").run()


async def test_daily_quota_ends_the_run_and_the_next_goes_on() -> None:
    records = obeying(*[None] * 5, "day", *[None] * 200)
    report = await batch("enriching:obey", write("in.jsonl", records)).run()
    assert report.exit_code == 75 and report.reason is not None and "daily quota" in report.reason
    assert not Path("out.jsonl").exists() and report.failed == 0
    assert report.succeeded < 100
    report = await batch("enriching:obey", "in.jsonl").run()
    assert report.exit_code == 0 and lines("out.jsonl") == list(range(206))
    # The one that found the quota used up is tried again; what it cost counts.
    assert notes() == Counter(range(206)) + Counter([5])
    assert report.attempts == 207 and report.usage == {"tokens": 2070}


async def test_changed_input_keeps_results_by_content() -> None:
    log = str(Path("log").absolute())
    records = [{"id": number, "log": log} for number in range(100)]
    await batch("enriching:noted", write("in.jsonl", records)).run()
    changed = [{"id": 1000, "log": log}, *records[:40], *records[60:], *records[:2], {"id": 1001, "log": log}]
    report = await batch("enriching:noted", write("in.jsonl", changed)).run()
    assert report.exit_code == 0 and report.total == 84 and report.resumed == 80
    assert lines("out.jsonl") == [each["id"] for each in changed]
    # Of equal records each has a result of its own.
    assert notes() == Counter([each["id"] for each in records]) + Counter([1000, 1001, 0, 1])
    report = await batch("enriching:noted", write("in.jsonl", changed[:10])).run()
    assert report.total == report.resumed == 10 and len(lines("out.jsonl")) == 10
    assert json.loads(Path("metrics.json").read_text("utf-8"))["total"] == 10


async def test_unfinished_run_of_something_else_is_refused_with_the_difference() -> None:
    records = obeying("day", None)
    assert (await batch("enriching:obey", records, sections={"llm": {"model": "a", "size": 1}}).run()).exit_code == 75
    with pytest.raises(BatchError) as caught:
        await batch("enriching:obey", records, sections={"llm": {"model": "b", "size": 1}}).run()
    assert caught.value.exit_code == 2
    assert "llm.model is 'b' (was 'a')" in str(caught.value) and "--fresh" in str(caught.value)
    assert "size" not in str(caught.value)
    with pytest.raises(BatchError, match="target is 'enriching:same'"):
        await batch("enriching:same", records, sections={"llm": {"model": "a", "size": 1}}).run()
    # How it is carried out never matters.
    sections = {"llm": {"model": "a", "size": 1}, "limits": {"api": {"rate": 100}}}
    report = await batch("enriching:obey", records, mp={"worker_count": 1}, sections=sections).run()
    assert report.exit_code == 0
    # After a finished one it is another run.
    report = await batch("enriching:same", records).run()
    assert report.exit_code == 0 and report.resumed == 0 and len(lines("out.jsonl")) == 2


async def test_fresh_forgets() -> None:
    records = obeying(None, None)
    await batch("enriching:obey", records).run()
    report = await batch("enriching:obey", records, fresh=True).run()
    assert report.resumed == 0 and notes() == {0: 2, 1: 2}


async def test_changed_handler_is_a_new_run_once_the_old_one_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    handler = tmp_path / "changing_handler.py"
    handler.write_text("def work(record):\n    return record % 2 or 1 // (record - 2)\n", "utf-8")
    report = await batch("changing_handler:work", [1, 2, 3]).run()
    assert report.exit_code == 1
    handler.write_text("def work(record):\n    return 'changed'\n", "utf-8")
    report = await batch("changing_handler:work", [1, 2, 3]).run()
    assert report.exit_code == 1 and report.resumed == 3 and "handler's file has changed" in capfd.readouterr().err
    await batch("changing_handler:work", [1, 2, 3], fresh=True).run()
    assert lines("out.jsonl") == ["changed"] * 3
    handler.write_text("def work(record):\n    return 'again'\n", "utf-8")
    report = await batch("changing_handler:work", [1, 2, 3]).run()
    assert report.resumed == 0 and lines("out.jsonl") == ["again"] * 3
    sys.modules.pop("changing_handler", None)


async def test_in_process_gives_the_same_and_says_so() -> None:
    records = obeying(None, "code 503", "value_error")
    report = await batch("enriching:obey", records, multiprocessing=False).run()
    assert report.in_process == 3 and report.in_children == 0 and report.by_class == {"permanent": 1}
    assert report.attempts == 4 and report.usage == {"tokens": 40}


async def test_wrong_from_the_start_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("a_file").write_text("no folder", "utf-8")
    Path("imported_broken.py").write_text("import no_such_dependency\ndef work(record): ...\n", "utf-8")
    for options, told in (
        ({"target": "enriching"}, "package.module:function"),
        ({"target": "enriching:missing"}, "missing"),
        ({"target": "no_such_module:work"}, "no_such_module"),
        ({"target": "enriching:sam"}, "did you mean 'same'"),
        ({"target": "imported_broken:work"}, "imported_broken"),
        ({"target": enriching.two}, "other"),
        ({"target": "enriching:two"}, "other"),
        ({"max_failures": -1}, "max_failures"),
        ({"name": "a/b"}, "name"),
        ({"failed": "metrics.json"}, "metrics.json"),
        ({"failed": "a_file/failed.jsonl"}, "failed: .*a_file.* cannot be written"),
        ({"metrics": "a_file/metrics.json"}, "metrics: .*a_file.* cannot be written"),
        ({"sections": {"limits": {"api": {"rat": 1}}}}, "rat"),
    ):
        with pytest.raises(BatchError, match=told) as caught:
            given: dict[str, Any] = {"target": "enriching:same", "source": [1, 2, 3], **options}
            await batch(**given, fresh=True).run()
            pytest.fail(f"{options} is taken")
        assert caught.value.exit_code == 2
    # What is there under that name is still there: nothing was begun.
    assert (await batch("enriching:same", [1]).run()).exit_code == 0
    with pytest.raises(BatchError, match="cannot be imported"):
        await batch("imported_broken:work", [1]).run()
    assert (await batch("enriching:same", [1]).run()).resumed == 1
    with pytest.raises(BatchError, match="run already"):
        used = batch("enriching:same", [1])
        await used.run()
        await used.run()


async def test_source_that_breaks_keeps_what_came_before() -> None:
    def records() -> Iterator[int]:
        yield from range(10)
        raise RuntimeError("no more for today")

    report = await batch("enriching:same", records()).run()
    assert report.exit_code == 75 and report.succeeded == 10 and "no more for today" in (report.reason or "")
    report = await batch("enriching:same", range(12)).run()
    assert report.exit_code == 0 and report.resumed == 10 and report.total == 12


async def test_sink_that_raises_stops_the_run_and_nothing_is_lost() -> None:
    taken: list[int] = []

    def take(value: int) -> None:
        if value == 5 and len(taken) == 5:
            taken.append(-1)
            raise RuntimeError("the sink is full")
        taken.append(value)

    report = await batch("enriching:same", range(100), take).run()
    assert report.exit_code != 0 and "the sink is full" in (report.reason or "")
    taken.clear()
    report = await batch("enriching:same", range(100), taken.append).run()
    assert report.exit_code == 0 and taken == list(range(100)) and report.resumed >= 5


async def test_text_that_is_no_unicode_breaks_nothing() -> None:
    report = await batch("enriching:surrogates", ["ok", "fail", "\udcff"], sections={"mine": {"a": "\udcff"}}).run()
    assert (report.succeeded, report.failed) == (1, 2) or (report.succeeded, report.failed) == (2, 1)
    assert lines("out.jsonl")[0] == ["\ud800", "ok"]
    assert "no text" in lines("failed.jsonl")[0]["message"]
    report = await batch("enriching:obey", obeying("surrogate"), name="retried").run()
    assert report.succeeded == 1 and report.retries == 1


async def test_no_sink_keeps_results_in_the_journal() -> None:
    report = await batch("enriching:double", [{"id": 3}], None).run()
    assert report.output is None and Path(report.metrics_file or "").parent == Path(report.folder)
    with sqlite3.connect(Path(report.folder, "journal.db")) as connection:
        assert connection.execute("SELECT number, value FROM records").fetchall() == [(1, '{"id":3,"twice":6}')]
    connection.close()


async def test_empty_input() -> None:
    report = await batch("enriching:same", write("in.jsonl", [])).run()
    assert report.exit_code == 0 and report.total == 0 and Path("out.jsonl").read_bytes() == b""


def test_blocking_with_and_without_a_running_loop() -> None:
    def run() -> Report:
        return batch("enriching:same", [1, 2, 3], fresh=True).run_blocking()

    assert run().succeeded == 3

    async def under_a_loop() -> Report:
        return run()

    assert asyncio.run(under_a_loop()).succeeded == 3


async def test_failed_file_is_written_when_asked_for_and_removed_when_it_holds_no_more() -> None:
    await batch("enriching:same", [1], failed="asked.jsonl").run()
    assert Path("asked.jsonl").read_bytes() == b""
    await batch("enriching:obey", obeying("value_error"), "other.jsonl").run()
    assert len(lines("failed.jsonl")) == 1
    # Another run has no failures, and leaves the file of this one alone.
    await batch("enriching:same", [1], "third.jsonl", metrics="third.json").run()
    assert len(lines("failed.jsonl")) == 1
    await batch("enriching:obey", obeying("value_error"), "other.jsonl", fresh=True).run()
    assert not Path("failed.jsonl").exists()
