"""Records become jobs, or a problem that names the field; the JSON schema says the same."""

import json
from dataclasses import replace
from importlib import resources
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from orchestrator._models import Job, Limit, RetryPolicy
from orchestrator.cli._options import RunOptions
from orchestrator.cli._rows import JOB_FIELDS, RETRY_FIELDS, InvalidLine, JobBuilder

SCHEMA = json.loads(resources.files("orchestrator.cli").joinpath("job.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def build(value: Any, **options: Any) -> Job:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return built(JobBuilder(RunOptions(**options)), content)


def built(builder: JobBuilder, content: Any) -> Job:
    job, args, kwargs = builder.build(content)
    return replace(job, args=args, kwargs=kwargs)


def test_description_with_every_field() -> None:
    job = build(
        {
            "target": "a.b:C.m",
            "args": [1, None],
            "kwargs": {"x": {"y": []}},
            "init": {"z": 1},
            "key": "k",
            "timeout": 1,
            "queue_timeout": 2.5,
            "total_timeout": 3,
            "progress_timeout": 4,
            "retry": {"attempts": 2, "on": ["timeout", "OSError"], "backoff": 0, "max_backoff": 1, "jitter": False},
            "limits": {"api": 2},
            "priority": -1,
            "effects": "idempotent",
        },
        limits=(Limit("api", concurrency=2),),
    )
    assert job == Job(
        "a.b:C.m",
        args=[1, None],
        kwargs={"x": {"y": []}},
        init={"z": 1},
        key="k",
        timeout=1.0,
        queue_timeout=2.5,
        total_timeout=3.0,
        progress_timeout=4.0,
        retry=RetryPolicy(attempts=2, on=["timeout", "OSError"], backoff=0, max_backoff=1, jitter=False),
        limits={"api": 2},
        priority=-1,
        effects="idempotent",
        convert="json",
    )


def test_the_line_beats_the_options_and_null_does_not() -> None:
    retry = RetryPolicy(attempts=2, on="any")
    assert build({"target": "a:b", "timeout": 1}, timeout=9.0, retry=retry).timeout == 1.0
    job = build({"target": "a:b", "timeout": None, "retry": None, "args": None}, timeout=9.0, retry=retry)
    assert (job.timeout, job.retry, job.args) == (9.0, retry, ())


@pytest.mark.parametrize(
    ("row", "args", "kwargs"),
    [
        ({"a": 1, "b": [2]}, (), {"a": 1, "b": [2]}),
        ([1, {"b": 2}], [1, {"b": 2}], {}),
        ("text", ("text",), {}),
        (3.5, (3.5,), {}),
        (None, (None,), {}),
        (True, (True,), {}),
        (2**80, (2**80,), {}),
        ([], [], {}),
        ({}, (), {}),
    ],
)
def test_plain_rows(row: Any, args: Any, kwargs: Any) -> None:
    job = build(row, target="a:b", timeout=2.0, row_limits=("api",), limits=(Limit("api", concurrency=1),))
    assert (job.target, job.args, job.kwargs, job.convert) == ("a:b", args, kwargs, "json")
    assert job == Job("a:b", args, kwargs, timeout=2.0, limits={"api": 1.0}, convert="json")


def test_cells_are_keywords_converted_from_text() -> None:
    builder = JobBuilder(RunOptions(target="a:b"))
    builder.columns = ["x", "y"]
    job = built(builder, ["1", ""])
    assert (job.kwargs, job.convert) == ({"x": "1", "y": ""}, "text")
    with pytest.raises(InvalidLine, match="the row has 1 cells, the header has 2"):
        builder.build(["1"])


WRONG = [
    ([], "a job is a JSON object, not an array; for plain rows add --target"),
    (3, "not a number"),
    ("x", "not a string"),
    (None, "not null"),
    (True, "not a boolean"),
    ({}, "target: is missing"),
    ({"target": 3}, "target: must be a string"),
    ({"target": None}, "target: must be a string"),
    ({"target": "json.dumps"}, 'target: .*"json:dumps"'),
    ({"target": "a:b", "kwarg": {}}, "kwarg: is not a field of a job; did you mean 'kwargs'"),
    ({"target": "a:b", "zzz": {}}, "zzz: is not a field of a job; known are target, args"),
    ({"target": "a:b", "args": {}}, "args: must be an array"),
    ({"target": "a:b", "args": "xy"}, "args: must be an array"),
    ({"target": "a:b", "kwargs": []}, "kwargs: must be an object"),
    ({"target": "a:b", "init": []}, "init: must be an object"),
    ({"target": "a:b", "limits": ["api"]}, "limits: must be an object"),
    ({"target": "a:b", "limits": {"api": 0}}, "limits.api: must be greater than 0"),
    ({"target": "a:b", "limits": {"api": "1"}}, "limits.api: must be a number"),
    ({"target": "a:b", "key": 3}, "key: must be a string"),
    ({"target": "a:b", "timeout": -1}, "timeout: must be greater than 0"),
    ({"target": "a:b", "timeout": "1"}, "timeout: must be a number"),
    ({"target": "a:b", "timeout": True}, "timeout: must be a number"),
    ({"target": "a:b", "priority": 1.5}, "priority: must be a whole number"),
    ({"target": "a:b", "effects": "none"}, "effects: must be pure, idempotent"),
    ({"target": "a:b", "retry": 3}, 'retry: must be an object, such as {"attempts": 3}'),
    ({"target": "a:b", "retry": {"tries": 3}}, "retry.tries: is not a field"),
    ({"target": "a:b", "retry": {"attempts": 0}}, "retry.attempts: must be a whole number of at least 1"),
    ({"target": "a:b", "retry": {"on": []}}, "retry.on: takes"),
    ({"target": "a:b", "retry": {"on": [3]}}, "retry.on: takes"),
    ({"target": "a:b", "retry": {"jitter": 1}}, "retry.jitter: must be true or false"),
    ({"target": "a:b", "retry": {"backoff": -1}}, "retry.backoff: must be at least 0"),
]


@pytest.mark.parametrize(("value", "said"), WRONG)
def test_wrong_description_names_the_field_and_the_schema_refuses_it_too(value: Any, said: str) -> None:
    with pytest.raises(InvalidLine, match=said):
        build(value, limits=(Limit("api", concurrency=1),))
    assert not VALIDATOR.is_valid(value)


def test_unknown_limits_are_named() -> None:
    with pytest.raises(InvalidLine, match=r"limits.api: there is no such limit; define it with --limit api=RATE/PER"):
        build({"target": "a:b", "limits": {"api": 1}})
    with pytest.raises(InvalidLine, match="did you mean 'openai'"):
        build({"target": "a:b", "limits": {"opnai": 1}}, limits=(Limit("openai", concurrency=1),))


@pytest.mark.parametrize("line", [b"{", b"nonsense", b"NaN", b"1e999", b'"\xff"', b"1 2", b"[" * 5_000, b'"\\ud800"'])
def test_what_is_not_json(line: bytes) -> None:
    with pytest.raises(InvalidLine, match="the line is n"):
        build(line, target="a:b")


def test_schema_is_a_schema_and_knows_the_same_fields() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]) == set(JOB_FIELDS)
    assert set(SCHEMA["properties"]["retry"]["properties"]) == set(RETRY_FIELDS)


@pytest.mark.parametrize("example", SCHEMA["examples"])
def test_examples_of_the_schema_are_jobs(example: Any) -> None:
    VALIDATOR.validate(example)
    assert build(example, limits=(Limit("api", concurrency=1),)).target == example["target"]
