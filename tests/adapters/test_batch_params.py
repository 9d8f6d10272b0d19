"""What `params.yaml` says of a batch: defaults, refusals with their place, warnings, and what handlers get."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from orchestrator_adapters.batch import BatchError
from orchestrator_adapters.batch._params import Multiprocessing, Params, load_params

from orchestrator import Limit, Supervisor


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def load(text: str | bytes) -> Params:
        Path("params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_params("params.yaml")

    return load


def problem(load: Any, text: str | bytes) -> str:
    with pytest.raises(BatchError) as refused:
        load(text)
    assert refused.value.exit_code == 2
    message = str(refused.value)
    assert "\n" not in message, "one line"
    return message


def test_without_a_file_the_defaults_are_those_that_are_documented() -> None:
    assert load_params(None) == Params()
    settings = Multiprocessing()
    assert settings.enabled is True
    first_five = (
        settings.worker_count,
        settings.task_queue_size,
        settings.result_queue_size,
        settings.max_concurrent_requests,
    )
    assert first_five == (4, 20, 20, 6)
    assert settings.fallback == "in_process"


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "multiprocessing:\nlimits:\n", "{}", b"\xef\xbb\xbf"])
def test_what_is_not_there_has_its_default(params: Any, text: str) -> None:
    assert params(text) == Params(path="params.yaml")


EVERYTHING = """\
multiprocessing:
  enabled: false
  worker_count: 8
  task_queue_size: 64
  result_queue_size: 65
  max_concurrent_requests: 16
  per_worker_concurrency: 2
  task_timeout: 120
  start_timeout: 30.5
  max_tasks_per_child: 500
  memory_limit: 2147483648
  fallback: none
  attempts: 5
  retry_budget: 0.5
  secrets: [GEMINI_API_KEY, OTHER]
limits:
  gemini: {rate: 60, per: 60, burst: 5, concurrency: 16}
  disk:
    concurrency: 1
  tokens:
    rate: 10
    ramp_up: 5
    dimensions: {tokens: {rate: 1000, per: 60, burst: 100}}
llm:
  model: gemini-2.5-flash
"""


def test_every_key_is_read(params: Any) -> None:
    found = params("\ufeff" + EVERYTHING.replace("\n", "\r\n"))
    assert found.multiprocessing == Multiprocessing(
        enabled=False,
        worker_count=8,
        task_queue_size=64,
        result_queue_size=65,
        max_concurrent_requests=16,
        per_worker_concurrency=2,
        task_timeout=120.0,
        start_timeout=30.5,
        max_tasks_per_child=500,
        memory_limit=2**31,
        fallback="none",
        attempts=5,
        retry_budget=0.5,
        secrets=("GEMINI_API_KEY", "OTHER"),
    )
    assert found.limits == (
        Limit("gemini", rate=60, per=60, burst=5, concurrency=16),
        Limit("disk", concurrency=1),
        Limit("tokens", rate=10, ramp_up=5, dimensions={"tokens": {"rate": 1000, "per": 60, "burst": 100}}),
    )
    assert found.other == {"llm": {"model": "gemini-2.5-flash"}}
    assert found.warnings == ()


def test_a_mapping_is_read_as_a_file_is(params: Any) -> None:
    from_file = params(EVERYTHING)
    given = {
        "multiprocessing": dataclasses.asdict(from_file.multiprocessing),
        "limits": {
            "gemini": {"rate": 60, "per": 60, "burst": 5, "concurrency": 16},
            "disk": {"concurrency": 1},
            "tokens": {"rate": 10, "ramp_up": 5, "dimensions": {"tokens": {"rate": 1000, "per": 60, "burst": 100}}},
        },
        "llm": {"model": "gemini-2.5-flash"},
    }
    assert load_params(given) == dataclasses.replace(from_file, path=None)
    with pytest.raises(BatchError, match=r"^params: multiprocessing.worker_count: must be a whole number"):
        load_params({"multiprocessing": {"worker_count": 0}})


def test_auto_is_the_cpus_that_this_process_may_use(params: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert params("multiprocessing: {worker_count: auto, max_concurrent_requests: 3}").multiprocessing.worker_count == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: 1\nmultiprocessing:\n  worker_cuont: 3",
            "params.yaml, line 3: multiprocessing.worker_cuont: there is no such key; did you mean 'worker_count'?",
        ),
        (
            "multiprocessing: {x: 1}",
            "params.yaml, line 1: multiprocessing.x: there is no such key; known are enabled, worker_count,",
        ),
        ("multiprocessing: {1: 1}", "params.yaml, line 1: multiprocessing.1: there is no such key"),
        (
            "limits:\n  gemini:\n    rate: 1\n    concurency: 3",
            "params.yaml, line 4: limits.gemini.concurency: there is no such key; did you mean 'concurrency'?",
        ),
        ("multiprocessing: {enabled: yes}", "multiprocessing.enabled: must be true or false, not the text 'yes' (YAML"),
        ("multiprocessing: {enabled: 1}", "multiprocessing.enabled: must be true or false, not 1"),
        ("multiprocessing: {worker_count: true}", "worker_count: must be a whole number of at least 1, not true"),
        ("multiprocessing: {worker_count: 2.5}", "worker_count: must be a whole number of at least 1, not 2.5"),
        ("multiprocessing: {worker_count: }", "worker_count: must be a whole number of at least 1, not nothing"),
        ("multiprocessing: {worker_count: 10001}", "worker_count: must be at most 10000, not 10001; each is a process"),
        ("multiprocessing: {worker_count: -1}", "worker_count: must be a whole number of at least 1, not -1"),
        ("multiprocessing: {worker_count: '4'}", "or auto, not the text '4'; write 4"),
        ("multiprocessing: {task_queue_size: 1e3}", "not 1000.0; write 1000"),
        ("multiprocessing: {task_queue_size: '1e6'}", "not the text '1e6'; write 1000000"),
        ("multiprocessing: {task_timeout: 2 min}", "must be a number of seconds above 0, not the text '2 min'"),
        ("multiprocessing: {task_timeout: .inf}", "must be a number of seconds above 0, not inf"),
        ("multiprocessing: {start_timeout: 0}", "must be a number of seconds above 0, not 0"),
        ("multiprocessing: {memory_limit: 512}", "must be a whole number of bytes of at least 16777216 (16 MiB)"),
        ("multiprocessing: {memory_limit: 2GiB}", "not the text '2GiB'"),
        ("multiprocessing: {fallback: thread}", "fallback: must be in_process or none, not the text 'thread'"),
        ("multiprocessing: {retry_budget: -0.1}", "retry_budget: must be a share of the records, such as 0.2"),
        ("multiprocessing: {secrets: KEY}", "secrets: must be a list of names of environment variables"),
        ("multiprocessing: {secrets: [3]}", "secrets: must be a list of names of environment variables; 3 is none"),
        ("multiprocessing: [1]", "params.yaml, line 1: multiprocessing: must be a mapping of keys to values, not a"),
        ("limits: 3", "params.yaml, line 1: limits: must be a mapping of keys to values, not 3"),
        ("limits: {gemini: 60}", "limits.gemini: must be a mapping with rate, per, burst, concurrency"),
        ("limits: {gemini: }", "params.yaml, line 1: limits.gemini: needs rate="),
        ("limits: {gemini: {rate: '60'}}", "limits.gemini.rate: must be a number, not the text '60'; write 60"),
        ("limits: {gemini: {rate: true}}", "limits.gemini.rate: must be a number, not true"),
        ("limits: {gemini: {rate: .nan}}", "limits.gemini.rate: must be a number, not nan"),
        ("limits: {gemini: {rate: 0}}", "limits.gemini.rate: must be greater than 0, not 0"),
        (
            "limits:\n  g:\n    rate: 1\n    burst: 2",
            "params.yaml, line 4: limits.g.burst: must be at most the rate, 1",
        ),
        ("limits: {g: {concurrency: 1.5}}", "limits.g.concurrency: must be a whole number of at least 1, not 1.5"),
        (
            "limits:\n  g:\n    dimensions:\n      tokens: {rte: 1}",
            "params.yaml, line 4: limits.g.dimensions.tokens.rte: there is no such key; did you mean 'rate'?",
        ),
        (
            "limits: {g: {dimensions: {tokens: {rate: '1e6'}}}}",
            "limits.g.dimensions.tokens.rate: must be a number, not",
        ),
        ("limits: {g: {dimensions: {tokens: {rate: -1}}}}", "limits.g.dimensions.tokens.rate: must be greater than 0"),
        ("limits: {g: {dimensions: {tokens: {per: 1}}}}", "limits.g.dimensions.tokens: needs a rate"),
        ("limits: {g: {dimensions: {tokens: 5}}}", "limits.g.dimensions.tokens: must be a mapping"),
        ("limits: {g: {dimensions: [tokens]}}", "limits.g.dimensions: must be a mapping"),
        ("limits: {g: {dimensions: {timeout: {rate: 1}}}}", "limits.g.dimensions.timeout: "),
        ("limits: {7: {rate: 1}}", "limits.7: the name of a limit must be a text; write '7' in quotes"),
        ("- a\n- b", "params.yaml: must be a mapping of sections, such as 'multiprocessing:', not a list"),
        ("hello", "params.yaml: must be a mapping of sections, such as 'multiprocessing:', not a single value"),
        ("a: 1\nb: 2\na: 3", "params.yaml, line 3: the key 'a' stands here a second time; a mapping has each key once"),
        ("a:\n\tb: 1", "params.yaml, line 2: a tab stands where YAML allows only spaces; indent with spaces"),
        ("a: 1\n---\nb: 1", "params.yaml, line 2: a second document begins here ('---'); a file holds one"),
        ("a: b: c", "params.yaml, line 1: mapping values are not allowed here"),
        ("a: [1", "params.yaml, line"),
        ("a: 1\nb: \x01", "params.yaml, line 2: "),
        ("a: !mine 1", "params.yaml, line 1: could not determine a constructor for the tag '!mine'"),
        (b"a: 1\nb: \xff", "params.yaml, line 2: the file is not UTF-8; save it as UTF-8"),
        ("a: 1".encode("utf-16"), "params.yaml, line 1: the file is not UTF-8; save it as UTF-8"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_with_its_place(params: Any, text: str | bytes, expected: str) -> None:
    message = problem(params, text)
    assert message.startswith("params.yaml")
    assert expected in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(BatchError) as refused:
            load_params(path)
        assert str(path) in str(refused.value)
    with pytest.raises(BatchError, match="must be the path of a YAML file or a mapping, not a list"):
        load_params([1])  # type: ignore[arg-type]


def test_without_the_extra_the_remedy_is_named(params: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ruamel.yaml", None)
    assert "pip install 'subprocess-orchestrator[batch]'" in problem(params, "a: 1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "multiprocessing:\n  worker_count: 2\n  max_concurrent_requests: 6",
            "params.yaml, line 3: multiprocessing.max_concurrent_requests: 6 is never reached by one request a record,",
        ),
        (
            "multiprocessing: {worker_count: 8, max_concurrent_requests: 6}",
            "params.yaml, line 1: multiprocessing.max_concurrent_requests: 6 leaves 2 of 8 workers idle",
        ),
        (
            "limits:\n  gemini:\n    concurrency: 7",
            "params.yaml, line 3: limits.gemini.concurrency: 7 is never reached, for max_concurrent_requests is 6",
        ),
        (
            "multiprocessing: {task_queue_size: 3}",
            "params.yaml, line 1: multiprocessing.task_queue_size: 3 is less than worker_count, 4: workers wait for",
        ),
        (
            "multiprocessing: {result_queue_size: 2}",
            "params.yaml, line 1: multiprocessing.result_queue_size: 2 is less than worker_count, 4: workers wait for",
        ),
        (
            "multi-processing: {enabled: false}",
            "params.yaml, line 1: multi-processing: is not read by the batch; did you mean 'multiprocessing'?",
        ),
        (
            "a: 1\ntrain:\n  rate: .nan",
            "params.yaml, line 3: train.rate: is nan, which JSON has no form for, so handlers get no section 'train'",
        ),
    ],
)
def test_what_is_surely_not_meant_warns(params: Any, text: str, expected: str) -> None:
    (warning,) = params(text).warnings
    assert warning.startswith(expected)


@pytest.mark.parametrize(
    "text",
    [
        "multiprocessing: {enabled: true}",
        "multiprocessing: {worker_count: 4, per_worker_concurrency: 2, max_concurrent_requests: 6}",
        "multiprocessing: {enabled: false, worker_count: 1}",
        "limits: {gemini: {rate: 5}}",
        "run: {limit: 5}",
    ],
)
def test_what_may_well_be_meant_does_not_warn(params: Any, text: str) -> None:
    assert params(text).warnings == ()


def test_other_sections_are_handed_on_as_json(params: Any) -> None:
    found = params(
        """
llm: {model: m, temperature: 0.0, stop: [a, null, true]}
since: 2024-02-03
at: 2024-02-03 04:05:06
clock: 12:30
when: {2: two, null: nothing, true: yes}
octal: 0o17
base: &base {x: 1}
derived: {<<: *base, y: 2}
bad: {deep: [1, {worse: !!binary aGk=}]}
"""
    )
    assert found.other == {
        "llm": {"model": "m", "temperature": 0.0, "stop": ["a", None, True]},
        "since": "2024-02-03",
        "at": "2024-02-03T04:05:06",
        "clock": "12:30",
        "when": {"2": "two", "null": "nothing", "true": "yes"},
        "octal": 15,
        "base": {"x": 1},
        "derived": {"x": 1, "y": 2},
    }
    (warning,) = found.warnings
    assert "line 10: bad.deep.1.worse: is a bytes, which JSON has no form for" in warning


def test_the_same_holds_for_a_mapping() -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    found = load_params({"since": dt.date(2024, 2, 3), "endless": endless, "same": {1: "a", "1": "b"}})
    assert found.other == {"since": "2024-02-03"}
    assert [warning.partition(",")[0] for warning in found.warnings] == [
        "params: endless: contains itself",
        "params: same: has two keys that are the same text",
    ]


# The documentation

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "params.md"


def documented(name: str) -> str:
    found = re.search(rf"^\| `{name}` \| .*? \| (.*?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert found, f"docs/reference/params.md has no row for {name}"
    return found[1].strip("`")


@pytest.mark.parametrize("field", dataclasses.fields(Multiprocessing), ids=lambda field: field.name)
def test_the_reference_has_every_key_with_its_default(field: dataclasses.Field[Any]) -> None:
    said = documented(field.name)
    if field.default is None or field.default == ():
        # A start_timeout that is not given is the supervisor's own.
        assert said in ("none", "never", str(inspect.signature(Supervisor).parameters["start_timeout"].default)[:2])
    else:
        assert said == str(field.default).replace("True", "true")


def test_the_reference_names_every_field_of_a_limit() -> None:
    section = PAGE.read_text("utf-8").partition("## limits")[2].partition("\n## ")[0]
    for field in dataclasses.fields(Limit):
        assert field.name == "name" or f"`{field.name}`" in section


def test_what_the_reference_shows_is_read(params: Any) -> None:
    found = params(PAGE.read_text("utf-8").partition("```yaml\n")[2].partition("```")[0])
    assert found.limits[0].dimensions["tokens"]["rate"] == 1_000_000
    assert found.other == {"llm": {"model": "some-model"}}
    assert not found.warnings
