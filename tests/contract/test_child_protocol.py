"""A real child on raw pipes: its start, its jobs, and what becomes of values and errors."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from orchestrator import _wire
from orchestrator.child import _typed
from tests.contract import _child_typed_jobs as typed
from tests.contract._raw_child import PYTHON, RawChild, raw_child

JOBS = "_child_jobs"
TYPED = "_child_typed_jobs"


@pytest.fixture
def child(tmp_path: Path) -> Iterator[RawChild]:
    with raw_child(tmp_path) as started:
        yield started


# Start


def test_the_first_frames(child: RawChild) -> None:
    child.of_type("ready")
    hello, ready = child.frames
    assert hello == {
        "type": "hello",
        "version": _wire.VERSION,
        "nonce": child.nonce,
        "pid": child.process.pid,
        "python": hello["python"],
        "flavours": ["plain", "async"],
    }
    assert ready == {"type": "ready"}


def test_it_says_hello_before_init_and_waits_for_it(tmp_path: Path) -> None:
    child = RawChild(tmp_path)
    try:
        child.of_type("hello")
        child.send({"type": "ping", "seq": 1})
        child.of_type("pong", seq=1)
        assert [frame["type"] for frame in child.frames] == ["hello", "pong"]
        fence = child.job(f"{JOBS}:add", 1, 2)  # before init: kept
        child.start()
        assert child.outcome(fence)["value"] == 3
    finally:
        child.close()


def test_unknown_frames_are_ignored(child: RawChild) -> None:
    child.send({"type": "from_the_future", "fence": 1}, {"type": "cached"}, {"type": "effect_ack"})
    assert child.run(f"{JOBS}:add", 1, 2) == 3


@pytest.mark.parametrize("line", [b"no json\n", b"[1]\n", b'{"type":5}\n', b'{"type":"job"}\n', b"\xff\n"])
def test_a_line_that_is_no_frame_ends_it(child: RawChild, line: bytes) -> None:
    child.of_type("ready")
    child.write(line)
    assert child.end() == _wire.EXIT_PROTOCOL
    child.on_stderr(b"orchestrator child: not a frame of ours")


def test_another_version_is_refused(tmp_path: Path) -> None:
    with raw_child(tmp_path, version=2) as child:
        assert child.end() == _wire.EXIT_PROTOCOL
        child.on_stderr(b"version 2 of the protocol is asked for, this is 1")
        assert not child.all_of("ready")


def test_secrets_and_argv_come_with_init(tmp_path: Path) -> None:
    with raw_child(tmp_path, secrets={"API_KEY": "s3cret"}, argv=["program.py", "--option"]) as child:
        assert child.run(f"{JOBS}:environment", "API_KEY", "NOT_SET") == ["s3cret", None]
        assert child.run(f"{JOBS}:arguments") == ["program.py", "--option"]


def test_preload_runs_before_ready(tmp_path: Path) -> None:
    with raw_child(tmp_path, preload=["decimal", f"{JOBS}:warm"]) as child:
        child.of_type("ready")
        assert "decimal" in child.run(f"{JOBS}:modules")
        assert child.run(f"{JOBS}:use_resource") == 1
        assert child.stop() == 0
        child.logged("stdout", "connection closed")


@pytest.mark.parametrize("preload", ["no_such_module", f"{JOBS}:fail_richly", f"{JOBS}:interrupt"])
def test_a_preload_that_fails_is_told_and_ends_it(tmp_path: Path, preload: str) -> None:
    with raw_child(tmp_path, preload=[preload]) as child:
        assert child.end() == 1
        assert child.frames[-1]["type"] == "bye"
        error = child.frames[-1]["reason"].partition(":")[0]
        assert not child.all_of("ready")
        assert any(error in frame["text"] for frame in child.all_of("log", stream="stderr"))


def test_it_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    with raw_child(tmp_path) as child:
        loaded = set(child.run(f"{JOBS}:modules"))
    started_with = set(json.loads(_bare_modules()))
    ours = loaded - started_with
    banned = set(
        "anyio asyncio collections contextlib ctypes dataclasses enum functools importlib inspect json logging msgspec "
        "pathlib pickle random re selectors signal socket structlog subprocess tempfile threading traceback types "
        "typing warnings weakref".split()
    )
    assert not ours & banned
    assert {name for name in ours if not name.startswith("orchestrator")} <= {
        "__future__", "mmap", "_collections", "_contextvars", "_json", "_signal", "faulthandler", "gc", JOBS,
        "collections.abc",  # only an alias, made by `os`
    }  # fmt: skip


def _bare_modules() -> str:
    program = "import sys; names = [*sys.modules]; import json; print(json.dumps(names))"
    return subprocess.run([PYTHON or sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


# Jobs


def test_sync_jobs(child: RawChild) -> None:
    assert child.run(f"{JOBS}:add", 1, 2) == 3
    assert child.run(f"{JOBS}:echo", 1, None, [2.5, {"é\ud800": True}], kwargs={"key": "word"}) == [
        [1, None, [2.5, {"é\ud800": True}]],
        {"key": "word"},
    ]
    assert child.run(f"{JOBS}:Greeter.greet", "you", init={"greeting": "hello"}) == "hello you"
    assert child.run(f"{JOBS}:Greeter.shout", "you") == "YOU"
    assert child.all_of("started") == [{"type": "started", "fence": 1, "flavour": "plain", "kind": "sync"}]


def test_a_target_that_cannot_be_found_fails_its_job(child: RawChild) -> None:
    assert child.fail("no_such_module:f")["error"]["type"] == "ModuleNotFoundError"
    assert child.fail(f"{JOBS}:no_such_function")["error"]["type"] == "AttributeError"
    assert "is int, not a function" in child.fail(f"{JOBS}:calls")["error"]["message"]
    assert child.fail(f"{JOBS}:add", 1)["error"]["type"] == "TypeError"
    assert child.run(f"{JOBS}:add", 1, 2) == 3


def test_answers_come_in_the_order_of_the_jobs(child: RawChild) -> None:
    frames = [child.job_frame(f"{JOBS}:add", number, 0, kind="sync") for number in range(64)]
    child.send(*frames)
    child.outcome(frames[-1]["fence"])
    assert [(frame["fence"], frame["value"]) for frame in child.all_of("result")] == [
        (frame["fence"], number) for number, frame in enumerate(frames)
    ]
    assert [frame["type"] for frame in child.frames] == ["hello", "ready", "started", *["result"] * 64]


# Errors


def test_an_error_is_told_whole(child: RawChild) -> None:
    answer = child.fail(f"{JOBS}:fail_richly")
    error = answer["error"]
    assert error["type"] == f"{JOBS}.OurError" and error["message"] == "rich"
    assert error["notes"] == ["first note"]
    assert error["bases"] == [f"{JOBS}.OurError"]
    assert error["data"] == {"code": 7}
    assert error["cause"]["type"] == "KeyError" and error["cause"]["message"] == "'missing'"
    assert "direct cause" in error["traceback"] and "first note" in error["traceback"]
    assert "_invoke.py" not in error["traceback"], "the package's own frames are of no use"
    assert answer["ms"] >= 0 and "cancelled" not in answer and "payload" not in answer


def test_a_group_is_told_in_the_traceback(child: RawChild) -> None:
    error = child.fail(f"{JOBS}:fail_in_a_group")["error"]
    assert error["type"] == "ExceptionGroup"
    assert "ValueError: one" in error["traceback"] and "TypeError: two" in error["traceback"]


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("fail_hugely", "ValueError"),
        ("fail_recursively", f"{JOBS}.fail_recursively.<locals>.Recursive"),
        ("fail_in_its_own_text", f"{JOBS}.fail_in_its_own_text.<locals>.Mute"),
        ("fail_with_a_chain", "ValueError"),
        ("fail_with_a_cycle", "ValueError"),
        ("fail_with_base", f"{JOBS}.fail_with_base.<locals>.Base"),
        ("recurse", "RecursionError"),
        ("interrupt", "KeyboardInterrupt"),
        ("want_memory", "MemoryError"),
    ],
)
def test_any_error_fails_its_job_and_no_more(child: RawChild, target: str, kind: str) -> None:
    error = child.fail(f"{JOBS}:{target}")["error"]
    assert error["type"] == kind
    assert target in error["traceback"]
    assert len(json.dumps(error)) < 2**20
    assert child.run(f"{JOBS}:add", 1, 2) == 3


@pytest.mark.parametrize("code", [0, 3, "text", None])
def test_an_exit_is_a_failed_job(child: RawChild, code: object) -> None:
    assert child.fail(f"{JOBS}:leave", code)["error"]["type"] == "SystemExit"
    assert child.run(f"{JOBS}:add", 1, 2) == 3


# Values


def everything() -> typed.Everything:
    when = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
    return typed.Everything(
        pin=typed.Pin("a pin", when),
        price=Decimal("10.10"),
        ident=UUID(int=7),
        path=Path("/some/path"),
        colour=typed.Colour.RED,
        raw=b"\x00\xff",
        tags={"a", "b"},
        board=typed.Board("board", [typed.Pin("b", when)]),
        numbers={1: 0.5, 2: 2.0},
        pair=(1, "one"),
    )


def test_annotated_values_travel_both_ways(child: RawChild) -> None:
    value = everything()
    text = _typed.to_text(value, typed.Everything, "args[0]")
    answer = child.outcome(child.job(f"{TYPED}:send_back", None, typed={"0": text}))
    assert _typed.from_text(answer["typed"], typed.Everything) == value
    path = _typed.to_text(Path("/a"), Path, "kwargs.value")
    answer = child.outcome(child.job(f"{TYPED}:path_back", kwargs={"value": None}, typed={"value": path}))
    assert _typed.from_text(answer["typed"], Path) == Path("/a/child")
    answer = child.outcome(child.job(f"{TYPED}:not_a_number"))
    assert math.isnan(_typed.from_text(answer["typed"], float))
    answer = child.outcome(child.job(f"{TYPED}:pair"))
    assert _typed.from_text(answer["typed"], tuple[int, str]) == (1, "one")
    assert child.run(f"{TYPED}:sequence") == [1, 2], "no annotation of a tuple: a list"


def test_json_forms_are_converted_to_the_annotations(child: RawChild) -> None:
    form = json.loads(_typed.to_text(everything(), typed.Everything, "args[0]"))
    answer = child.outcome(child.job(f"{TYPED}:send_back", form, convert="json"))
    assert _typed.from_text(answer["typed"], typed.Everything) == everything()
    cells = ["12", "2024-02-29T12:30:00", "true", "34"]
    assert child.run(f"{TYPED}:from_cells", *cells, convert="text") == [
        "int",
        "12",
        "2024-02-29T12:30:00",
        "True",
        "34",
    ]


@pytest.mark.parametrize(
    "members",
    [
        {"args": ["twelve", "2024-02-29", "true", ""], "convert": "text"},
        {"args": [None, None, True, ""], "typed": {"0": '"twelve"'}},
    ],
)
def test_an_argument_that_does_not_fit_is_named(child: RawChild, members: dict[str, Any]) -> None:
    frame = {**child.job_frame(f"{TYPED}:from_cells"), **members}
    child.send(frame)
    answer = child.outcome(frame["fence"])
    assert answer["payload"] == "argument"
    assert answer["error"]["message"].startswith("parameter ")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (f"{JOBS}:return_object", "result.deep[0]: "),
        (f"{JOBS}:return_endless", "result[0]"),
        (f"{TYPED}:lie", "result"),
    ],
)
def test_a_result_that_cannot_travel_says_where(child: RawChild, target: str, path: str) -> None:
    answer = child.fail(target)
    assert answer["payload"] == "result"
    assert answer["error"]["message"].startswith(path)
    assert child.run(f"{JOBS}:add", 1, 2) == 3


def test_large_values_travel_as_files(child: RawChild) -> None:
    size = 10 * 2**20
    path = child.temp / "job-1"
    path.write_text(json.dumps({"args": ["é" + "x" * size]}, ensure_ascii=False), encoding="utf-8")
    fence = child.job(f"{JOBS}:size_of", file=str(path))
    assert child.outcome(fence)["value"] == size + 1
    assert not path.exists()
    answer = child.outcome(child.job(f"{JOBS}:return_text", size))
    with open(answer["value_file"]) as file:
        assert json.load(file) == "x" * size
    assert os.path.dirname(answer["value_file"]) == str(child.temp)


def test_large_values_travel_in_line_where_there_is_no_folder(tmp_path: Path) -> None:
    with raw_child(tmp_path, temp=None) as child:
        assert child.run(f"{JOBS}:return_text", 3 * 2**20) == "x" * 3 * 2**20
        assert child.run(f"{JOBS}:size_of", "x" * 3 * 2**20) == 3 * 2**20


def test_too_large_values_fail_their_job(tmp_path: Path) -> None:
    with raw_child(tmp_path, max_message_bytes=1000) as child:
        answer = child.fail(f"{JOBS}:return_text", 1000)
        assert answer["payload"] == "result_too_large"
        assert "max_message_bytes=1000" in answer["error"]["message"]
        assert "max_message_bytes" in child.fail(f"{JOBS}:emit", ["x" * 1000])["error"]["message"]
        assert child.run(f"{JOBS}:return_text", 900) == "x" * 900


def test_a_result_that_cannot_be_written_fails_its_job(child: RawChild) -> None:
    child.of_type("ready")
    for path in child.temp.iterdir():
        path.unlink()
    child.temp.rmdir()
    answer = child.fail(f"{JOBS}:return_text", 2 * 2**20)
    assert answer["error"]["type"] == "FileNotFoundError" and answer["payload"] == "result"
    assert child.run(f"{JOBS}:add", 1, 2) == 3


# The main script


def test_the_main_script_is_loaded_once_under_another_name(tmp_path: Path) -> None:
    script = Path(__file__).parent / "_main_script.py"
    with raw_child(tmp_path, main={"path": str(script)}) as child:
        assert child.run("__mp_main__:of_main") == ["__mp_main__", 1, False]
        assert child.run("__mp_main__:of_main") == ["__mp_main__", 2, False]
        lines = child.all_of("log", stream="stdout")
        assert [line["text"] for line in lines] == ["main script runs; loading is True"]
        error = child.fail("__mp_main__:fail")["error"]
        assert error["type"] == "__main__.MainError", "as its own program calls it"


def test_a_main_module_is_loaded_by_its_name(tmp_path: Path) -> None:
    with raw_child(tmp_path, main={"name": "_main_script"}) as child:
        assert child.run("__mp_main__:of_main") == ["__mp_main__", 1, False]


@pytest.mark.parametrize("main", [None, {"name": "no_such_module"}, {"path": "/no/such/file.py"}])
def test_a_main_script_that_cannot_be_loaded_fails_the_job(tmp_path: Path, main: dict[str, str] | None) -> None:
    with raw_child(tmp_path, main=main) as child:
        assert child.fail("__mp_main__:of_main")["error"]["type"] in ("ImportError", "FileNotFoundError")
        assert child.run(f"{JOBS}:add", 1, 2) == 3
