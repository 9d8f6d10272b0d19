"""A real child on raw pipes: what a job says while it runs, what it asks for, and what it keeps."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract._raw_child import RawChild, raw_child

JOBS = "_child_jobs"


@pytest.fixture
def child(tmp_path: Path) -> Iterator[RawChild]:
    with raw_child(tmp_path) as started:
        yield started


def still_answers(child: RawChild) -> None:
    """A barrier: whatever the child was about to say by itself was said before this."""
    child.send({"type": "ping", "seq": len(child.frames)})
    child.of_type("pong", seq=len(child.frames))


# Usage, params, secrets


def test_usage_is_told_at_once(child: RawChild) -> None:
    fence = child.job(f"{JOBS}:use", {"prompt": 12, "output": 0.5})
    assert child.outcome(fence)["value"] == {}
    assert [frame["counts"] for frame in child.all_of("usage", fence=fence)] == [{"prompt": 12, "output": 0.5}]
    kinds = [frame["type"] for frame in child.frames]
    assert kinds.index("usage") < kinds.index("result")
    for bad in ("x", True, None, [1]):
        error = child.fail(f"{JOBS}:use", {"prompt": bad})["error"]
        assert error["type"] == "TypeError" and "usage(prompt=…)" in error["message"]
    assert child.fail(f"{JOBS}:use", {"prompt": 10**400})["error"]
    assert child.run(f"{JOBS}:use", {}) == {}
    assert len(child.all_of("usage")) == 1


def test_usage_outlives_its_child(child: RawChild) -> None:
    fence = child.job(f"{JOBS}:use", {"prompt": 3}, 7)
    assert child.end() == 7
    assert [frame["counts"] for frame in child.all_of("usage", fence=fence)] == [{"prompt": 3}]


def test_params_come_with_init(tmp_path: Path) -> None:
    with raw_child(tmp_path, params={"model": {"name": "ü"}}) as child:
        assert child.run(f"{JOBS}:use", {}) == {"model": {"name": "ü"}}


def test_secrets_leave_in_no_frame(tmp_path: Path) -> None:
    key = 'k3y-with-"quotes"-and-ünï'
    with raw_child(tmp_path, secrets={"API_KEY": key}) as child:
        assert child.run(f"{JOBS}:environment", "API_KEY") == [key]  # data stays data
        before = len(child.lines)
        error = child.fail(f"{JOBS}:tell_key", "API_KEY")["error"]
        assert error["message"] == "error [secret API_KEY]" and "[secret API_KEY]" in error["traceback"]
        assert error["cause"]["message"] == "'[secret API_KEY]'"
        assert child.logged("log", "log [secret API_KEY]")["fields"] == {"field": ["[secret API_KEY]"]}
        assert child.logged("stdout", "print")["text"] == 'print "[secret API_KEY]"'
        assert child.logged("stdout", "half a line")["text"] == "half a line [secret API_KEY]"
        assert child.of_type("progress")["text"] == "progress [secret API_KEY]"
        assert not [line for line in child.lines[before:] if b"k3y-with" in line]
        child.on_stderr(key.encode())  # the pipe is the supervisor's to look at


def test_a_preload_that_fails_does_not_tell(tmp_path: Path) -> None:
    with raw_child(
        tmp_path, secrets={"KEY_OF_PRELOAD": "no_such_module_is_there"}, preload=["no_such_module_is_there"]
    ) as child:
        assert child.end() == 1
        assert child.frames[-1]["reason"] == "ModuleNotFoundError: No module named '[secret KEY_OF_PRELOAD]'"
        assert not [line for line in child.lines if b"no_such_module" in line]


# Items


@pytest.mark.parametrize("target", ["count", "count_async"])
def test_items_wait_for_credits(child: RawChild, target: str) -> None:
    fence = child.job(f"{JOBS}:{target}", 40)
    child.of_type("item", value=15)
    still_answers(child)
    assert [frame["value"] for frame in child.all_of("item")] == list(range(16)), "16 ahead and no more"
    child.send({"type": "credit", "fence": fence, "n": 1})
    child.of_type("item", value=16)
    still_answers(child)
    assert len(child.all_of("item")) == 17
    child.send({"type": "credit", "fence": fence, "n": 100})
    assert child.outcome(fence)["value"] is None
    assert [frame["value"] for frame in child.all_of("item", fence=fence)] == list(range(40))


def test_a_generator_returns_a_value_too(child: RawChild) -> None:
    assert child.run(f"{JOBS}:count_and_return", 3) == "returned"
    assert len(child.all_of("item")) == 3


def test_an_item_that_cannot_travel_fails_the_job(child: RawChild) -> None:
    error = child.fail(f"{JOBS}:yield_objects")["error"]
    assert error["type"] == "TypeError" and error["message"].startswith("item: builtins.object")


def test_a_generator_that_waits_for_credits_is_cancelled_and_closed(child: RawChild) -> None:
    fence = child.job(f"{JOBS}:hold_generator")
    child.of_type("item", value=15)
    child.send({"type": "cancel", "fence": fence})
    assert child.outcome(fence)["cancelled"] is True
    child.logged("log", "generator closed")
    assert child.run(f"{JOBS}:add", 1, 2) == 3


def test_an_async_generator_that_waits_for_credits_is_cancelled(child: RawChild) -> None:
    fence = child.job(f"{JOBS}:count_async", 40)
    child.of_type("item", value=15)
    child.send({"type": "cancel", "fence": fence, "stack": True})
    assert child.outcome(fence)["cancelled"] is True


def test_a_thread_of_the_job_that_waits_for_credits_ends_with_it(child: RawChild) -> None:
    fence = child.job(f"{JOBS}:emit_from_thread")
    child.of_type("item", value=15)
    child.logged("log", "thread started")
    child.send({"type": "cancel", "fence": fence})
    assert child.outcome(fence)["cancelled"] is True


def test_emit_outside_of_generators(child: RawChild) -> None:
    child.run(f"{JOBS}:emit", [1, {"two": 2}, None])
    assert [frame["value"] for frame in child.all_of("item")] == [1, {"two": 2}, None]


# Progress, logs, artefacts, callbacks


def test_progress_is_sent_now_and_then_and_the_latest_always(child: RawChild) -> None:
    began = time.monotonic()
    child.run(f"{JOBS}:hurry", 100_000)
    took = time.monotonic() - began
    frames = child.all_of("progress")
    assert frames[0] == {"type": "progress", "fence": 1, "done": 1, "total": 100_000, "text": "hurrying"}
    assert frames[-1]["done"] == 100_000
    assert len(frames) <= 2 + took / 0.05
    assert child.frames[-1]["type"] == "result", "all progress comes before the outcome"


@pytest.mark.parametrize("done", ["7", True, None, [1]])
def test_progress_takes_numbers_only(child: RawChild, done: object) -> None:
    answer = child.outcome(child.job(f"{JOBS}:progress_of", done))
    assert (answer["type"] == "error") == (done is not None)


def test_log_and_artefact(child: RawChild, tmp_path: Path) -> None:
    child.run(f"{JOBS}:say", "a text", "warning")
    frame = child.logged("log", "a text")
    assert frame["level"] == "warning" and frame["fence"] == 1
    assert frame["fields"]["answer"] == 42 and frame["fields"]["thing"] in ("{1, 2}", "{2, 1}")
    path = tmp_path / "made.txt"
    child.run(f"{JOBS}:make_artifact", str(path))
    assert child.of_type("artifact") == {"type": "artifact", "fence": 2, "path": str(path), "name": "made.txt"}
    assert child.fail(f"{JOBS}:make_artifact", str(tmp_path / "no" / "folder"))["error"]["type"] == "FileNotFoundError"


def test_calls_of_callbacks_come_in_order_before_the_outcome(child: RawChild) -> None:
    fence = child.job(f"{JOBS}:call", None, 100, callbacks=[["0", False]])
    child.outcome(fence)
    calls = child.all_of("callback")
    assert [call["args"] for call in calls] == [[number] for number in range(100)]
    assert calls[3] == {
        "type": "callback", "fence": fence, "index": 0, "args": [3], "kwargs": {"half": 1.5},
    }  # fmt: skip
    assert child.frames[-1]["type"] == "result"
    fence = child.job(f"{JOBS}:call", kwargs={"progress": None, "number": 1}, callbacks=[["progress", False]])
    assert child.outcome(fence)["value"] is None


def test_calls_of_which_only_the_latest_matters_coalesce(child: RawChild) -> None:
    began = time.monotonic()
    child.outcome(child.job(f"{JOBS}:call", None, 20_000, callbacks=[["0", True]]))
    calls = child.all_of("callback")
    assert calls[0]["args"] == [0] and calls[-1]["args"] == [19_999]
    assert len(calls) <= 2 + (time.monotonic() - began) / 0.05


def test_calls_wait_for_credits(child: RawChild) -> None:
    fence = child.job(f"{JOBS}:call", None, 1_500, callbacks=[["0", False]])
    child.of_type("callback", args=[999])
    still_answers(child)
    assert len(child.all_of("callback")) == 1_000
    child.send({"type": "credit", "fence": fence, "n": 500, "calls": True})
    child.outcome(fence)
    assert len(child.all_of("callback")) == 1_500


def test_a_call_with_what_cannot_travel_fails_in_the_job(child: RawChild) -> None:
    error = child.outcome(child.job(f"{JOBS}:call_with_object", None, callbacks=[["0", False]]))["error"]
    assert error["message"].startswith("callback.args[0]: builtins.object")


# Permits


@pytest.mark.parametrize("target", ["with_permit", "with_permit_async"])
def test_a_permit_is_asked_for_and_given_back(child: RawChild, target: str) -> None:
    fence = child.job(f"{JOBS}:{target}", "api")
    asked = child.of_type("acquire")
    assert asked["fence"] == fence and asked["name"] == "api"
    assert asked["weight"] == (2 if target == "with_permit" else 1)
    still_answers(child)
    assert not child.all_of("log")
    child.send({"type": "granted", "request": asked["request"]})
    assert child.outcome(fence)["value"] == "left"
    assert [frame["type"] for frame in child.frames[-3:]] == ["log", "release", "result"]
    assert child.of_type("release")["request"] == asked["request"]


@pytest.mark.parametrize("target", ["with_permit", "with_permit_async"])
def test_a_permit_that_is_denied_fails_in_the_job(child: RawChild, target: str) -> None:
    fence = child.job(f"{JOBS}:{target}", "nope")
    child.send({"type": "denied", "request": child.of_type("acquire")["request"], "reason": "no such limit"})
    error = child.outcome(fence)["error"]
    assert error["type"] == "RuntimeError" and error["message"] == "permit('nope'): no such limit"
    assert not child.all_of("release")


@pytest.mark.parametrize("target", ["with_permit", "with_permit_async"])
def test_a_request_is_withdrawn_when_its_job_is_cancelled(child: RawChild, target: str) -> None:
    fence = child.job(f"{JOBS}:{target}", "api")
    asked = child.of_type("acquire")
    child.send({"type": "cancel", "fence": fence})
    assert child.outcome(fence)["cancelled"] is True
    assert child.of_type("release")["request"] == asked["request"]
    child.send({"type": "granted", "request": asked["request"]})  # crossed with the release
    fence = child.job(f"{JOBS}:{target}", "api")
    child.send({"type": "granted", "request": child.wait(lambda f: f["type"] == "acquire" and f != asked)["request"]})
    assert child.outcome(fence)["value"] == "left"


def test_a_refusal_of_the_other_side_is_passed_on(child: RawChild) -> None:
    fence = child.job(f"{JOBS}:throttled")
    asked = child.of_type("acquire")
    child.send({"type": "granted", "request": asked["request"]})
    child.outcome(fence)
    assert child.all_of("release") == [
        {"type": "release", "fence": fence, "request": asked["request"], "throttled": 1.5}
    ]


# Resources


def test_resources_are_kept_and_closed_at_the_end(child: RawChild) -> None:
    assert child.run(f"{JOBS}:use_resource") == 1
    assert child.run(f"{JOBS}:use_resource") == 2
    assert child.fail(f"{JOBS}:failing_resource")["error"]["message"] == "no connection"
    assert child.fail(f"{JOBS}:failing_resource")["error"]["message"] == "no connection", "and is tried again"
    assert child.stop() == 0
    texts = [(frame["stream"], frame["text"]) for frame in child.all_of("log")]
    assert texts == [
        ("stderr", "resource 'bad' did not close: OSError('will not close')"),
        ("stdout", "connection closed"),
    ]
    assert child.frames[-1] == {"type": "bye"}


def test_one_async_resource_is_made_for_all_even_if_the_first_to_ask_is_cancelled(tmp_path: Path) -> None:
    release = tmp_path / "release"
    with raw_child(tmp_path, secrets={"RELEASE": str(release)}) as child:
        fences = [child.job(f"{JOBS}:use_async_resource", kind="async") for _ in range(3)]
        child.logged("log", "connecting")
        for fence in fences:
            child.of_type("started", fence=fence)
        child.send({"type": "cancel", "fence": fences[0]})
        assert child.outcome(fences[0])["cancelled"] is True
        release.touch()
        assert [child.outcome(fence)["value"] for fence in fences[1:]] == [1, 1]
        assert child.stop() == 0
        child.logged("stdout", "async connection closed")


# Output


def test_prints_are_lines_of_the_job(child: RawChild) -> None:
    child.run(f"{JOBS}:print_lines", 3)
    child.run(f"{JOBS}:print_to_error", "to error")
    child.run(f"{JOBS}:print_bytes")
    lines = [(frame["fence"], frame["stream"], frame["text"]) for frame in child.all_of("log")]
    assert lines == [
        (1, "stdout", "line 0"),
        (1, "stdout", "line 1"),
        (1, "stdout", "line 2"),
        (2, "stderr", "to error"),
        (3, "stdout", "hé"),
        (3, "stdout", "\\xff"),
    ]
    assert not child.stderr


def test_an_unfinished_line_belongs_to_its_job(child: RawChild) -> None:
    first = child.job(f"{JOBS}:print_lines", 2, kwargs={"end": " "})
    child.run(f"{JOBS}:print_lines", 1)
    assert [frame["text"] for frame in child.all_of("log", fence=first)] == ["line 0 line 1 "]
    child.run(f"{JOBS}:print_lines", 1_000, kwargs={"end": "\r"})
    assert child.logged("stdout", "line 999")["text"] == "line 999", "a progress bar: what is to be seen at the end"


def test_raw_output_comes_through_the_stderr_pipe(child: RawChild) -> None:
    fake = json.dumps({"type": "result", "fence": 1, "value": "fake"})
    child.run(f"{JOBS}:write_raw", 1, f"raw 1 {fake}\n{fake}\n")
    child.run(f"{JOBS}:write_raw", 2, "raw 2\n")
    child.run(f"{JOBS}:let_grandchild_print", f"grandchild {fake}")
    child.run(f"{JOBS}:print_lines", 1, kwargs={"end": f"\n{fake}\n"})
    for text in (b"raw 1 {", b"raw 2\n", b"grandchild {"):
        child.on_stderr(text)
    assert [frame["value"] for frame in child.all_of("result")] == [None, None, 0, None]
    assert child.logged("stdout", "fake")["text"] == fake, "printed, so it is a text within a frame"


def test_c_output_comes_through_the_stderr_pipe(tmp_path: Path) -> None:
    child = RawChild(tmp_path, {}, flags=("-u",))
    try:
        child.run(f"{JOBS}:puts", '{"type":"result","fence":1,"value":"fake"}')
        assert child.stop() == 0
        child.on_stderr(b"fake")
        assert [frame["value"] for frame in child.all_of("result")] == [None]
    finally:
        child.close()


def test_a_flood_of_stderr_stalls_nothing(child: RawChild) -> None:
    assert child.run(f"{JOBS}:flood", 100) == 100
    assert child.run(f"{JOBS}:add", 1, 2) == 3
    assert child.stop() == 0
    child._drainer.join(20)
    assert len(child.stderr) == 100 * 2**20


def test_a_flood_of_prints_is_cut_and_counted(child: RawChild) -> None:
    child.run(f"{JOBS}:print_lines", 60_000)
    logs = child.all_of("log")
    assert 10_000 <= len(logs) < 60_000
    assert sum(bool(frame["text"]) + frame.get("dropped", 0) for frame in logs) == 60_000


def test_finalisers_may_print_at_any_moment(child: RawChild) -> None:
    assert child.run(f"{JOBS}:print_in_finaliser", 300) == 300
    text = "".join(frame["text"] for frame in child.all_of("log"))  # `print` writes a line and its end in two calls
    assert text.count("made") == 300 and text.count("finalised") >= 250


def test_stdin_of_the_job_is_empty(child: RawChild) -> None:
    assert child.run(f"{JOBS}:read_stdin") == ""


def test_output_of_exit_functions_is_heard(child: RawChild) -> None:
    child.run(f"{JOBS}:register_exit")
    assert child.stop() == 0
    assert child.frames[-2]["text"] == "at exit" and child.frames[-1] == {"type": "bye"}


# Records


@pytest.mark.parametrize("how", ["not at all", "basic", "force"])
def test_records_are_structured_whatever_the_job_configures(child: RawChild, how: str) -> None:
    child.run(f"{JOBS}:log_records", how)
    logs = child.all_of("log", stream="logging")
    assert {frame["logger"] for frame in logs} == {"our.logger"} and {frame["fence"] for frame in logs} == {1}
    found = [(frame["level"], frame["text"].partition("\n")[0]) for frame in logs]
    assert (
        found
        == [
            *([("debug", "debug text")] if how == "basic" else []),
            ("info", "info text"),
            ("warning", "not %d enough"),
            ("error", "went wrong"),
        ][: len(found)]
        or how
    )
    assert ("info", "info text") in found and ("error", "went wrong") in found
    assert "ZeroDivisionError: division by zero" in logs[-1]["text"]
    printed = [frame["text"] for frame in child.all_of("log") if frame["stream"] in ("stdout", "stderr")]
    assert printed[-1] == "printed after"
    assert not [text for text in printed if "info text" in text], "not said twice"
    assert any("Logging error" in text for text in printed), "a record that cannot be formatted is not lost"


def test_warnings_are_structured(child: RawChild) -> None:
    child.run(f"{JOBS}:warn")
    (frame,) = child.all_of("log")
    assert frame["stream"] == "warnings" and frame["level"] == "warning" and frame["logger"] == "UserWarning"
    assert frame["fence"] == 1 and frame["text"].endswith("UserWarning: look out")


def test_the_import_hook_leaves_no_trace(child: RawChild) -> None:
    assert "_Finder" not in child.run(f"{JOBS}:finders")
