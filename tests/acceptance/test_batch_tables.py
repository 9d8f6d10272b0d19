"""Batches from every format to every other, and tables that are bad, cut off or cannot hold the results."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from orchestrator_adapters.batch import Batch, BatchError, Report

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

RECORDS = [{"id": str(number), "text": f'a "quoted", text\nof {number}'} for number in range(40)]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def run(source: Any, sink: Any, *, target: str = "enriching:same", **options: Any) -> Report:
    params = {"multiprocessing": {"worker_count": 2}}
    return await Batch(target, source, sink, params=params, progress="none", **options).run()


def write(name: str, records: list[dict[str, Any]]) -> str:
    kind = name.removesuffix(".gz").rpartition(".")[2]
    plain = Path(f"plain.{kind}")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), plain)
    elif kind == "csv":
        with plain.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(records[0]))
            table.writeheader()
            table.writerows(records)
    else:
        plain.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    data = plain.read_bytes()
    Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return name


def read(name: str) -> list[Any]:
    data = Path(name).read_bytes()
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    if ".parquet" in name:
        return pq.read_table(pa.BufferReader(data)).to_pylist()  # type: ignore[no-any-return]
    if ".csv" in name:
        return list(csv.DictReader(data.decode().splitlines(keepends=True)))
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        ("in.csv", "out.parquet"),
        ("in.parquet", "out.csv.gz"),
        ("in.jsonl.gz", "out.csv"),
        ("in.csv.gz", "out.jsonl.gz"),
        ("in.parquet.gz", "out.parquet.gz"),
    ],
)
async def test_from_every_format_to_every_other(source: str, sink: str) -> None:
    report = await run(write(source, RECORDS), sink)
    assert (report.exit_code, report.succeeded, report.total) == (0, 40, 40)
    assert read(sink) == RECORDS
    again = await run(source, sink)
    assert (again.exit_code, again.resumed) == (0, 40)
    assert read(sink) == RECORDS
    assert not list(Path().glob(".*.partial"))


async def test_bad_rows_fail_with_file_and_line_and_are_run_when_they_are_mended() -> None:
    Path("in.csv").write_bytes(b"id,text\n1,good\n2,too,many\n3,\xff\n4,good\n")
    report = await run("in.csv", "out.csv")
    assert (report.exit_code, report.succeeded, report.by_class) == (1, 2, {"invalid": 2})
    failed = read("failed.jsonl")
    assert [(line["number"], line["place"], line["record"]) for line in failed] == [
        (2, "line 3", "2,too,many"),
        (3, "line 4", "3,\ufffd"),
    ]
    assert failed[0]["message"] == "in.csv: line 3: the row has 3 cells, the header has 2"
    assert failed[1]["message"] == "in.csv: line 4: the row is not UTF-8; save the file as UTF-8"
    Path("in.csv").write_bytes(b"id,text\n1,good\n2,mended\n3,mended\n4,good\n")
    report = await run("in.csv", "out.csv")
    assert (report.exit_code, report.succeeded, report.resumed) == (0, 4, 2)
    assert [line["text"] for line in read("out.csv")] == ["good", "mended", "mended", "good"]


async def test_a_gzip_that_is_cut_off_keeps_what_came_before_and_is_gone_on_with() -> None:
    Path("out.jsonl").write_text("before")
    write("in.jsonl.gz", [{"id": number, "x": number * 7919 % 1009} for number in range(2000)])
    whole = Path("in.jsonl.gz").read_bytes()
    Path("in.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    report = await run("in.jsonl.gz", "out.jsonl")
    assert report.exit_code == 75
    assert report.reason is not None
    assert "in.jsonl.gz is cut off" in report.reason
    assert f"(rows 1 to {report.succeeded:,} were read)" in report.reason
    assert Path("out.jsonl").read_text() == "before"
    Path("in.jsonl.gz").write_bytes(whole)
    again = await run("in.jsonl.gz", "out.jsonl")
    assert (again.exit_code, again.succeeded, again.resumed) == (0, 2000, report.succeeded)
    assert len(read("out.jsonl")) == 2000


async def test_results_that_no_table_holds_are_kept_and_can_be_exported() -> None:
    Path("out.parquet").write_bytes(b"before")
    records = [{"id": 1}, {"id": "x"}]
    for resumed in (0, 2):
        report = await run(write("in.jsonl", records), "out.parquet", name="mixed")
        assert (report.exit_code, report.succeeded, report.resumed) == (75, 2, resumed)
        assert report.reason is not None
        assert "out.parquet: result 2: column 'id' has no type for all its values" in report.reason
    assert Path("out.parquet").read_bytes() == b"before"
    command = [sys.executable, "-m", "orchestrator", "batch", "export", "mixed", "--output", "out.jsonl"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read("out.jsonl") == records


async def test_what_is_wrong_with_a_table_is_said_before_anything_starts() -> None:
    write("in.csv", RECORDS)
    Path("twice.csv").write_text("a,a\n1,2\n")
    for source, sink, expected in (
        ("twice.csv", "out.csv", "twice.csv, line 1: the header has 'a' twice"),
        ("absent.csv", "out.csv", "'absent.csv' cannot be opened: No such file"),
        ("in.csv", "absent/out.csv", "the folder 'absent' does not exist; make it first"),
        ("in.csv", "in.csv", "'in.csv'"),
        ("in.csv", "out.xlsx", "'out.xlsx' does not tell its format"),
    ):
        with pytest.raises(BatchError) as refused:
            await run(source, sink)
        assert expected in str(refused.value)
        assert refused.value.exit_code == 2
    assert sorted(path.name for path in Path().iterdir() if path.is_file()) == ["in.csv", "plain.csv", "twice.csv"]
