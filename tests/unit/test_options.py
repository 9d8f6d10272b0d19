"""A wrong option is refused with its name, before anything starts."""

from __future__ import annotations

import math
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import BlockingSupervisor, Job, Limit, RestartPolicy, RetryPolicy, Supervisor, callback
from orchestrator._options import Options
from orchestrator.exceptions import ConfigurationError

LIMIT = Limit("api", rate=1)

WRONG: list[tuple[str, dict[str, Any]]] = [
    *(
        (name, {name: value})
        for name in ("workers", "concurrency", "queue_size", "max_jobs")
        for value in (0, -1, 1.5, "2", True)
        if (name, value) != ("workers", 0)
    ),
    ("workers", {"workers": 0, "isolation": "inline"}),
    *(("max_message_bytes", {"max_message_bytes": value}) for value in (0, 1023, -1, None, 2.0)),
    *((name, {name: value}) for name in ("grace", "start_timeout") for value in (-1, "1", math.nan, True)),
    ("start_timeout", {"start_timeout": 0}),
    *(("name", {"name": value}) for value in ("", None, 3, "a\nb")),
    *(("isolation", {"isolation": value}) for value in ("thread", None, "")),
    *(("on_exit", {"on_exit": value}) for value in ("kill", None)),
    *(("restart", {"restart": value}) for value in (5, "never", RetryPolicy())),
    *(("limits", {"limits": value}) for value in (LIMIT, "api", {"api": 1})),
    ("limits[1]", {"limits": [LIMIT, "api"]}),
    ("limits[1]", {"limits": [LIMIT, Limit("api", concurrency=1)]}),
    *((name, {name: "one string"}) for name in ("preload", "secrets", "env_allow", "command")),
    *((name, {name: 7}) for name in ("preload", "secrets", "env_allow", "command")),
    *(
        (f"{name}[0]", {name: [value]})
        for name in ("preload", "secrets", "env_allow", "command")
        for value in ("", 1, "a\0b")
    ),
    ("command", {"command": []}),
    ("secrets", {"secrets": ["NO_SUCH_VARIABLE_ANYWHERE"]}),
    *(("env", {"env": value}) for value in ([("A", "1")], "A=1", {"": "x"}, {"A=B": "x"}, {1: "x"}, {"A\0": "x"})),
    *(("env['A']", {"env": {"A": value}}) for value in (1, b"x", "a\0b")),
    *(("cwd", {"cwd": value}) for value in ("/no/such/folder/anywhere", 7, __file__)),
]


@pytest.mark.parametrize(("field", "options"), WRONG, ids=lambda part: repr(part)[:50])
def test_wrong_options_name_their_field(field: str, options: dict[str, Any]) -> None:
    for kind in (Options, Supervisor, BlockingSupervisor):
        with pytest.raises(ConfigurationError) as refused:
            kind(**options)
        assert refused.value.field == field
        assert str(refused.value).startswith(f"{field}: ")


def test_unknown_option() -> None:
    with pytest.raises(TypeError, match="worker_count"):
        Supervisor(worker_count=3)  # type: ignore[call-arg]


def test_normal_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    monkeypatch.chdir(tmp_path.parent)
    options = Options(
        limits=iter([LIMIT]),
        grace=timedelta(seconds=1.5),
        start_timeout=3,
        command=[tmp_path / "python"],
        secrets=iter(["A_SECRET"]),
        cwd=tmp_path.name,
        env={"A": "1", "B": None},
    )
    assert options.workers == os.cpu_count()
    assert options.limits == (LIMIT,)
    assert (options.grace, options.start_timeout) == (1.5, 3.0)
    assert options.command == (str(tmp_path / "python"),)
    assert options.secrets == ("A_SECRET",)
    assert options.cwd == str(tmp_path), "as it was when the supervisor was made"
    assert Options(grace=0).grace == 0.0


def test_defaults_agree_with_the_supervisors() -> None:
    import inspect

    own = Options()
    parameters = inspect.signature(Supervisor).parameters
    assert parameters.keys() == Options.__dataclass_fields__.keys()
    for name, parameter in parameters.items():
        if name not in ("workers", "restart"):
            assert Options(**{name: parameter.default}) == own, name


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("job.timeout", lambda: Job("m:f", timeout=0)),
        ("job.timeout", lambda: Job("m:f", timeout=-1)),
        ("job.queue_timeout", lambda: Job("m:f", queue_timeout="1")),  # type: ignore[arg-type]
        ("job.total_timeout", lambda: Job("m:f", total_timeout=math.nan)),
        ("job.progress_timeout", lambda: Job("m:f", progress_timeout=0)),
        ("retry.attempts", lambda: RetryPolicy(attempts=0)),
        ("retry.on", lambda: RetryPolicy(on=[3])),  # type: ignore[list-item]
        ("callback", lambda: callback(3)),  # type: ignore[arg-type]
        ("limit 'a'", lambda: Limit("a")),
        ("limit.name", lambda: Limit("")),
        ("limit 'a': rate", lambda: Limit("a", rate=0)),
        ("limit 'a': burst", lambda: Limit("a", concurrency=1, burst=1)),
        ("limit 'a': burst", lambda: Limit("a", rate=1, burst=2)),
        ("limit 'a': concurrency", lambda: Limit("a", concurrency=0)),
    ],
)
def test_other_values_name_their_field_too(field: str, make: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make()
    assert refused.value.field == field


def test_policies_normalise_what_they_are_given() -> None:
    assert RetryPolicy(on=ValueError, backoff=timedelta(seconds=2)).backoff == 2.0
    assert RestartPolicy(window=timedelta(minutes=1)).window == 60.0
