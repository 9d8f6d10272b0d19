"""Where the results of a batch go: whole or not at all, in order, and what is refused before a start."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from orchestrator_adapters.batch import BatchError
from orchestrator_adapters.batch._sink import Sink, open_sink
from orchestrator_adapters.batch._source import open_source

from orchestrator.testing import nothing_left

pq = pytest.importorskip("pyarrow.parquet")

RECORDS = [{"a": 1, "b": 'x, "y"\r\nz'}, {"b": None, "c": [1, {"d": "ü"}]}, {"a": True}]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


def texts(values: list[Any]) -> list[bytes]:
    return [msgspec.json.encode(value) for value in values]


async def put(target: Any, values: list[Any], **options: Any) -> Sink:
    sink = open_sink(target, **options)
    await sink.open()
    try:
        for text in texts(values):
            await sink.write([text])
        await sink.commit()
    finally:
        await sink.abort()
    return sink


async def failure(target: Any, values: list[Any] | None = None, **options: Any) -> BatchError:
    with pytest.raises(BatchError) as failed:
        await put(target, RECORDS if values is None else values, **options)
    assert "\n" not in str(failed.value)
    return failed.value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_json_lines_stand_as_they_were_given(tmp_path: Path) -> None:
    given = [b'{"a":1.0}', b"null", b'{ "b" : 2 }']
    sink = open_sink(tmp_path / "out.jsonl")
    await sink.open()
    await sink.write(given[:2])
    await sink.write(given[2:])
    assert names(tmp_path) == [".out.jsonl.partial"]
    await sink.commit()
    assert names(tmp_path) == ["out.jsonl"]
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"a":1.0}\nnull\n{ "b" : 2 }\n'
    await sink.abort()
    assert names(tmp_path) == ["out.jsonl"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.csv", "out.csv.gz", "out.parquet"])
async def test_without_a_commit_nothing_is_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"before")
    sink = open_sink(tmp_path / name)
    await sink.open()
    await sink.write(texts(RECORDS) * 10_000)
    await sink.abort()
    await sink.abort()
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"before"


async def test_a_sink_can_be_begun_anew(tmp_path: Path) -> None:
    (tmp_path / ".out.jsonl.partial").write_bytes(b"of a run that was killed")
    sink = open_sink(tmp_path / "out.jsonl")
    await sink.open()
    await sink.write([b"1"])
    await sink.open()
    await sink.write([b"2"])
    await sink.commit()
    assert (tmp_path / "out.jsonl").read_bytes() == b"2\n"
    assert names(tmp_path) == ["out.jsonl"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
async def test_a_commit_that_is_cancelled_leaves_all_or_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"before")
    sink = open_sink(tmp_path / name)
    await sink.open()
    await sink.write(texts(RECORDS) * 20_000)
    committing = asyncio.create_task(sink.commit())
    await asyncio.sleep(0)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    await sink.abort()
    assert names(tmp_path) == [name]
    data = (tmp_path / name).read_bytes()
    assert data == b"before" or len([row async for row in open_source(tmp_path / name)]) == 60_000


async def test_compressed_results_are_the_same_file_each_time(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        await put(tmp_path / name, RECORDS)
    data = (tmp_path / "a.jsonl.gz").read_bytes()
    assert data == (tmp_path / "b.jsonl.gz").read_bytes()
    assert [msgspec.json.decode(line) for line in gzip.decompress(data).splitlines()] == RECORDS


async def test_csv_has_the_columns_of_all_results(tmp_path: Path) -> None:
    await put(tmp_path / "out.csv", [*RECORDS, None, "text", 5])
    data = (tmp_path / "out.csv").read_bytes()
    assert data.startswith(b"a,b,c,value\n")
    table = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    assert table == [
        {"a": "1", "b": 'x, "y"\r\nz', "c": "", "value": ""},
        {"a": "", "b": "", "c": '[1,{"d":"ü"}]', "value": ""},
        {"a": "true", "b": "", "c": "", "value": ""},
        {"a": "", "b": "", "c": "", "value": ""},
        {"a": "", "b": "", "c": "", "value": "text"},
        {"a": "", "b": "", "c": "", "value": "5"},
    ]


@pytest.mark.parametrize(("values", "expected"), [([], b""), ([{}, {}], b'value\n""\n""\n'), ([""], b'value\n""\n')])
async def test_csv_of_results_without_columns_has_their_number(
    tmp_path: Path, values: list[Any], expected: bytes
) -> None:
    await put(tmp_path / "out.csv", values)
    assert (tmp_path / "out.csv").read_bytes() == expected
    assert len([row async for row in open_source(tmp_path / "out.csv")]) == len(values)


async def test_parquet_has_types_that_hold_all_results(tmp_path: Path) -> None:
    values = [{"n": 1, "s": {"x": [1]}}] * 1500 + [{"n": 1.5, "s": {"y": "t"}, "late": True}]
    await put(tmp_path / "out.parquet", values)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 1501
    assert [str(kind) for kind in table.schema.types][::2] == ["double", "bool"]
    assert table.slice(1499).to_pylist() == [
        {"n": 1.0, "s": {"x": [1], "y": None}, "late": None},
        {"n": 1.5, "s": {"x": None, "y": "t"}, "late": True},
    ]
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 1


@pytest.mark.parametrize("values", [[], [{}, {}], [None], ["a", "b"], [{"a": []}, {"a": None}]])
async def test_parquet_of_few_columns_has_their_number(tmp_path: Path, values: list[Any]) -> None:
    await put(tmp_path / "out.parquet", values)
    await put(tmp_path / "out.parquet.gz", values)
    for name in names(tmp_path):
        assert len([row async for row in open_source(tmp_path / name)]) == len(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            [{"a": 1}] * 1200 + [{"a": "n/a"}],
            "result 1201: column 'a' has no type for all its values: \"n/a\" here and int64",
        ),
        ([{"a": 1}, {"b": 1}, {"a": {"x": 1}}], "result 3: column 'a' has no type for all its values: {\"x\":1} here"),
        ([{"a": 2**63}], "result 1: column 'a' has no type for all its values: 9223372036854775808 here"),
        ([{"a": 2**60 + 1}, {"a": 0.5}], "column 'a'|do not fit"),
        ([{"a": 1}, {"a": {}}], "result 2: column 'a' has no type"),
        ([{"a": {}}], "column 'a' holds objects without any key, which Parquet cannot; they are kept"),
    ],
)
async def test_results_that_parquet_cannot_hold_leave_the_old_output(
    tmp_path: Path, values: list[Any], expected: str
) -> None:
    path = tmp_path / "out.parquet"
    path.write_bytes(b"before")
    error = await failure(path, values)
    assert any(part in str(error) for part in expected.split("|"))
    assert str(path) in str(error)
    assert error.exit_code == 75
    assert names(tmp_path) == ["out.parquet"]
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
async def test_text_that_is_not_unicode_is_for_json_lines_only(tmp_path: Path, name: str) -> None:
    sink = open_sink(tmp_path / name)
    await sink.open()
    await sink.write([b'"a"', rb'"\ud800"'])
    with pytest.raises(
        BatchError, match=r"result 2 has text that is not Unicode .* `orchestrator batch export` writes"
    ):
        await sink.commit()
    await sink.abort()
    assert names(tmp_path) == []
    seen: list[Any] = []
    await open_sink(seen.append).write([rb'"\ud800"'])
    assert seen == ["\ud800"]


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(BatchError, match=r"pip install 'subprocess-orchestrator\[parquet\]'"):
        open_sink(tmp_path / "out.parquet")


# Files


async def test_mode_bits_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    before = os.umask(0o027)
    try:
        await put(path, [1])
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        await put(path, [2])
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)
    assert path.read_bytes() == b"2\n"


async def test_a_link_is_followed_unless_it_leads_to_a_read_only_file(tmp_path: Path) -> None:
    for name, mode in (("data", 0o644), ("cached", 0o444)):
        (tmp_path / name).write_bytes(b"before")
        (tmp_path / name).chmod(mode)
    link = tmp_path / "out.jsonl"
    link.symlink_to(tmp_path / "data")
    await put(link, [1])
    assert link.is_symlink()
    assert (tmp_path / "data").read_bytes() == b"1\n"
    link.unlink()
    link.symlink_to(tmp_path / "cached")
    await put(link, [2])
    assert not link.is_symlink()
    assert link.read_bytes() == b"2\n"
    assert (tmp_path / "cached").read_bytes() == b"before"


async def test_a_file_with_other_names_keeps_those_as_they_were(tmp_path: Path) -> None:
    # As of a file in DVC's cache: what shares its bytes must not change with it.
    (tmp_path / "cached").write_bytes(b"before")
    os.link(tmp_path / "cached", tmp_path / "out.jsonl")
    await put(tmp_path / "out.jsonl", [1])
    assert (tmp_path / "cached").read_bytes() == b"before"


async def test_what_cannot_be_written_is_refused_before_a_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / ".way.jsonl.partial").mkdir()
    records = tmp_path / "in.jsonl"
    records.write_bytes(b"1\n")
    (tmp_path / "same.jsonl").symlink_to(records)
    cases: list[tuple[Any, str]] = [
        (tmp_path / "absent" / "out.jsonl", "absent' does not exist; make it first"),
        (tmp_path / "file" / "out.jsonl", ""),
        (tmp_path / "folder.jsonl", "is a folder; name a file in it"),
        (tmp_path / "way.jsonl", ".way.jsonl.partial' is a folder in its way"),
        (tmp_path / ("x" * 250 + ".jsonl"), "File name too long"),
        ("a\0.jsonl", "no path has a NUL character"),
        (tmp_path / "same.jsonl", "is the file that the records come from; name another"),
    ]
    before = names(tmp_path)
    for target, expected in cases:
        error = await failure(target, source=open_source(records))
        assert expected in str(error)
        assert str(target).split("\0")[0] in str(error)
        assert error.exit_code == 2
    assert names(tmp_path) == before
    for target, expected in (("", "empty path"), ("out.txt", "does not tell its format"), (3, "the sink is a int")):
        error = await failure(target)
        assert expected in str(error)
        assert error.exit_code == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_without_permission_is_refused_before_a_start(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "theirs").mkdir(mode=0o755)
    script = """
import asyncio, os
from orchestrator_adapters.batch import BatchError
from orchestrator_adapters.batch._sink import open_sink
async def main():
    sinks = [open_sink(f"theirs/out.{ending}") for ending in ("jsonl", "csv")]
    await asyncio.to_thread(os.setuid, 65534)
    for sink in sinks:
        try:
            await sink.open()
        except BatchError as error:
            print(error.exit_code, error)
open_sink("-")
import anyio._backends._asyncio
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    problem = "cannot be written: the folder 'theirs' may not be written by this user"
    assert done.stdout.splitlines() == [f"2 the output 'theirs/out.{ending}' {problem}" for ending in ("jsonl", "csv")]


# A full disk


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Let no file of this process grow beyond a megabyte: what the system says then is what a full disk says."""
    resource: Any = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet", "out.jsonl.gz"])
async def test_a_full_disk_leaves_the_old_output_and_can_be_resumed_from(
    tmp_path: Path, small_disk: None, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"before")
    error = await failure(path, [{"n": n, "x": os.urandom(64).hex()} for n in range(20_000)])
    assert error.exit_code == 75
    assert str(error).startswith(f"{path} cannot be written: File too large; make room and give the same command again")
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == [name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
@pytest.mark.parametrize("format", ["jsonl", "csv"])
async def test_a_device_is_written_to_and_never_replaced(format: str) -> None:
    error = await failure("/dev/full", format=format)
    assert "/dev/full cannot be written: No space left on device; make room" in str(error)
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    await put("/dev/null", RECORDS, format=format)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


# Standard output


def on_stdout(code: str) -> subprocess.Popen[bytes]:
    script = f"""
import asyncio, sys
from orchestrator_adapters.batch._sink import open_sink
async def main():
    print("first")
    {code}
asyncio.run(main())
"""
    return subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, stderr=-1)


def test_results_on_stdout_come_as_they_are_written() -> None:
    process = on_stdout(
        "sink = open_sink('-'); await sink.open(); await sink.write([b'1', b'2']);"
        "sys.stdin.readline(); await sink.write([b'3']); await sink.commit(); print('last')"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert [process.stdout.readline() for _ in range(3)] == [b"first\n", b"1\n", b"2\n"]
        out, err = process.communicate(b"\n")
    assert (out.splitlines(), err, process.returncode) == ([b"3", b"last"], b"", 0)


def test_a_pipe_that_somebody_made_non_blocking_gets_everything() -> None:
    process = on_stdout(
        "import os, time; os.set_blocking(1, False)\n"
        "    sink = open_sink('-'); await sink.open()\n"
        "    writing = asyncio.create_task(sink.write([b'%d' % n for n in range(200_000)]))\n"
        "    await asyncio.sleep(0.3); before = time.process_time()\n"
        "    await asyncio.sleep(0.5); worked = time.process_time() - before\n"
        "    print('it waits' if worked < 0.02 else 'it works', file=sys.stderr, flush=True)\n"
        "    await writing; await sink.commit()"
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert process.stderr.readline() == b"it waits\n"
        assert process.stdout.read().splitlines() == [b"first", *(b"%d" % n for n in range(200_000))]
        assert process.stderr.read() == b""


def test_a_reader_that_is_stuck_holds_nobody_up() -> None:
    process = on_stdout(
        "sink = open_sink('-'); await sink.open()\n"
        "    writing = asyncio.create_task(sink.write([b'x'] * 1_000_000))\n"
        "    await asyncio.to_thread(sys.stdin.readline)\n"
        "    writing.cancel(); await asyncio.wait([writing]); await sink.abort()"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert [process.stdout.readline() for _ in range(2)] == [b"first\n", b"x\n"]
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_table_goes_to_stdout_at_the_end() -> None:
    with on_stdout(
        "sink = open_sink('-', format='csv'); await sink.open(); await sink.write([b'{\"a\":1}', b'{\"b\":2}']);"
        "await sink.commit()"
    ) as process:
        out, err = process.communicate()
    assert (out, err) == (b"first\na,b\n1,\n,2\n", b"")


def test_a_reader_that_goes_away_is_one_clear_error() -> None:
    process = on_stdout(
        "sink = open_sink('-'); await sink.open(); sys.stdin.readline()\n"
        "    try: await sink.write([b'x'] * 100_000)\n"
        "    except Exception as error: print(type(error).__name__, error.exit_code, error, file=sys.stderr)\n"
        "    sys.stdout = None"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.stderr.read() == b"BatchError 75 stdout cannot be written: Broken pipe\n"


# Functions and objects


async def test_functions_get_values_in_order_in_the_loops_thread() -> None:
    seen: list[Any] = []

    async def later(value: Any) -> None:
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        seen.append(value)

    task = asyncio.current_task()
    assert (await put(seen.append, [1, {"a": [2]}])).is_live
    await put(later, [None, "x"])
    assert seen == [1, {"a": [2]}, None, "x"]


async def test_what_a_function_raises_stops_with_its_name() -> None:
    async def broken(value: int) -> None:
        if value == 3:
            raise LookupError("no table")

    error = await failure(broken, [1, 2, 3, 4])
    assert str(error).endswith("broken raised at result 3: LookupError: no table")
    assert isinstance(error.__cause__, LookupError)
    assert error.exit_code == 75


async def test_objects_with_write_get_lines(tmp_path: Path) -> None:
    binary, text = io.BytesIO(), io.StringIO()
    await put(binary, [1, "ü"])
    await put(text, [1, "ü"])
    assert binary.getvalue().decode() == text.getvalue() == '1\n"ü"\n'
    with gzip.open(tmp_path / "out.gz", "wb") as file:
        await put(file, [1])
    assert gzip.decompress((tmp_path / "out.gz").read_bytes()) == b"1\n"
    with open(tmp_path / "out", "w") as file:
        await put(file, [1])
        assert (tmp_path / "out").read_text() == "1\n", "flushed"


async def test_no_sink_takes_everything() -> None:
    await put(None, RECORDS)
