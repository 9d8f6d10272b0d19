"""Values arrive exactly as they were sent, or are refused at submit with their place; targets likewise."""

from __future__ import annotations

import datetime
import decimal
import math
import pathlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import dying
import exactness
import pytest
import pytest_asyncio

from orchestrator import Job, Limit, RetryPolicy, Supervisor, callback
from orchestrator.exceptions import ConfigurationError, JobFailed, PayloadError, TargetError


@pytest_asyncio.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor(workers=1) as supervisor:
        yield supervisor
        assert supervisor.statistics().restarts == 0


PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    2**53 + 1,
    10**40,
    -(10**30),
    0.1,
    1e308,
    -0.0,
    5e-324,
    3.0,
    "",
    "ö€😀",
    '\x00\n\r\u2028\\"',
    "\ud800 lone",
    [],
    {},
    [[], {}, [None]],
    {"a": {"b": [1, 2.5, "c", None, True]}, "": 0, "type": "result"},
]


async def test_json_values_are_exact_both_ways(supervisor: Supervisor) -> None:
    for value in PLAIN:
        for target in (exactness.echo, "exactness:echo"):
            back = await supervisor.run(target, value)
            assert back == value and type(back) is type(value)
            assert str(back) == str(value)  # tells -0.0 from 0.0 and 3.0 from 3
    assert await supervisor.run(exactness.echo, PLAIN) == PLAIN
    assert await supervisor.run(exactness.take_many, 1, "b", key=[2], more={"x": 1.5}) == [
        [1, "b"],
        [2],
        {"more": {"x": 1.5}},
    ]


async def test_tuples_arrive_as_lists(supervisor: Supervisor) -> None:
    assert await supervisor.run(exactness.echo, (1, (2, "c"))) == [1, [2, "c"]]


async def test_large_nested_values(supervisor: Supervisor) -> None:
    value = [{"number": number, "text": "x" * 20, "parts": [number] * 3} for number in range(30_000)]
    assert await supervisor.run(exactness.echo, value) == value
    deep: Any = []
    for _ in range(150):
        deep = [deep]
    assert await supervisor.run(exactness.echo, deep) == deep


async def test_a_tuple_that_no_annotation_carries_arrives_as_a_list(supervisor: Supervisor) -> None:
    assert await supervisor.run(exactness.sum_of, (1, 2, 3)) == [6, "list"]
    assert await supervisor.run(exactness.return_tuple) == [1, 2]


UTC = datetime.UTC
TYPED: list[tuple[Any, Any]] = [
    (exactness.take_datetime, datetime.datetime(2026, 2, 3, 4, 5, 6, 789, UTC)),
    (exactness.take_datetime, datetime.datetime(2026, 2, 3, 4, 5)),
    (exactness.take_date, datetime.date(2026, 2, 3)),
    (exactness.take_delta, datetime.timedelta(days=-1, microseconds=3)),
    (exactness.take_uuid, uuid.UUID(int=7)),
    (exactness.take_decimal, decimal.Decimal("1.10")),
    (exactness.take_path, pathlib.Path("a/b c")),
    (exactness.take_enum, exactness.Color.BLUE),
    (exactness.take_bytes, bytes(range(256))),
    (exactness.take_set, {3, 1, 2}),
    (exactness.take_tuple, (1, "a")),
    (exactness.take_tuples, {"a": [(1, "a"), (2, "b")]}),
    (exactness.take_keys, {1: "a", 2: "b"}),
    (exactness.take_float, math.inf),
    (exactness.take_pin, exactness.Pin("t", {"a", "b"})),
    (exactness.take_optional, None),
    (exactness.take_optional, exactness.Point(1)),
    (
        exactness.take_shape,
        exactness.Shape(
            [exactness.Point(1, 2.0, datetime.datetime(2026, 1, 1, tzinfo=UTC))], exactness.Color.BLUE, {5: "five"}
        ),
    ),
]


async def test_annotated_values_are_exact_both_ways(supervisor: Supervisor) -> None:
    for target, value in TYPED:
        back = await supervisor.run(target, value)
        assert back == value and type(back) is type(value), target
        by_name = await supervisor.run(target, value=value)
        assert by_name == value
    assert math.isnan(await supervisor.run(exactness.take_float, math.nan))
    assert await supervisor.run(exactness.take_point, exactness.Point(1)) == exactness.Point(2)


REFUSED = [
    (exactness.echo, (object(),), {}, "args[0]"),
    (exactness.echo, (b"bytes",), {}, "args[0]"),
    (exactness.echo, ({1: 2},), {}, "args[0]"),
    (exactness.echo, (math.nan,), {}, "args[0]"),
    (exactness.echo, (math.inf,), {}, "args[0]"),
    (exactness.echo, ([1, {"when": datetime.datetime(2026, 1, 1)}],), {}, "args[0][1].when"),
    (exactness.take_many, (), {"pins": [0, 1, 2, {"when": uuid.UUID(int=1)}]}, "kwargs.pins[3].when"),
    (exactness.take_many, (1, {2}), {}, "args[1]"),
    (exactness.echo, (exactness.Color.RED,), {}, "args[0]"),
    (exactness.echo, (pathlib.Path("x"),), {}, "args[0]"),
    ("exactness:take_point", (exactness.Point(1),), {}, "args[0]"),
]


@pytest.mark.parametrize(("target", "args", "kwargs", "path"), REFUSED)
async def test_refused_values_name_their_place(
    supervisor: Supervisor, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: str
) -> None:
    for attempt in (supervisor.run(target, *args, **kwargs), supervisor.submit(Job(target, args=args, kwargs=kwargs))):
        with pytest.raises(PayloadError) as caught:
            await attempt
        assert caught.value.path == path
        assert path in str(caught.value)
    assert supervisor.statistics().submitted == 0


async def test_a_bare_callable_suggests_callback(supervisor: Supervisor) -> None:
    for call in (
        supervisor.run(exactness.echo, print),
        supervisor.run(exactness.echo, value=lambda: None),
        supervisor.run(exactness.take_many, progress_callback=exactness.echo),
    ):
        with pytest.raises(PayloadError, match=r"callback\("):
            await call
    with pytest.raises(PayloadError, match="callback"):
        await supervisor.run(exactness.echo, [callback(print)])  # not an argument of its own
    assert supervisor.statistics().submitted == 0


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (exactness.return_object, "result"),
        (exactness.return_nested, "result.pins[1].when"),
        (exactness.return_nan, "result"),
    ],
)
async def test_a_result_that_cannot_travel_names_its_place(supervisor: Supervisor, target: Any, path: str) -> None:
    with pytest.raises(PayloadError) as caught:
        await supervisor.run(target)
    assert caught.value.path == path
    outcome = await (await supervisor.submit(target)).outcome()
    assert outcome.status == "failed"
    assert await supervisor.run(exactness.echo, 1) == 1


# Targets


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (lambda: 1, "lambda"),
        (exactness.a_lambda, "lambda"),
        (exactness.make_closure(1), "inside a function"),
        (exactness.a_partial, "partial"),
        (exactness.Greeter("x").greet, "init="),
        ([].append, "bound"),
        (callback(print), "callback"),
        (5, "5"),
        (None, "None"),
        ("no_colon", "package.module:function"),
        ("exactness.echo", "exactness:echo"),
        ("", "package.module:function"),
        ("os:system;rm", "package.module:function"),
    ],
)
async def test_targets_that_no_child_could_run(supervisor: Supervisor, target: Any, words: str) -> None:
    with pytest.raises(TargetError, match=words.replace("(", r"\(")):
        await supervisor.run(target)
    assert supervisor.statistics().submitted == 0


async def test_a_local_function_is_refused(supervisor: Supervisor) -> None:
    def local() -> None: ...

    with pytest.raises(TargetError, match="local"):
        await supervisor.run(local)


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (exactness.one, (), {}),
        (exactness.one, (1, 2), {}),
        (exactness.one, (), {"valeu": 1}),
        (exactness.one, (1,), {"value": 1}),
        (exactness.keyword_only, (1,), {}),
    ],
)
async def test_wrong_arguments_are_refused_at_submit(
    supervisor: Supervisor, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TargetError, match=target.__name__):
        await supervisor.run(target, *args, **kwargs)
    assert supervisor.statistics().submitted == 0


async def test_an_option_given_to_run_is_explained(supervisor: Supervisor) -> None:
    with pytest.warns(UserWarning, match=r"timeout="), pytest.raises(TargetError, match=r"Job\(one, timeout="):
        await supervisor.run(exactness.one, 1, timeout=3)
    with pytest.warns(UserWarning, match=r"Job\(swallow, timeout="):
        assert await supervisor.run(exactness.swallow, timeout=3) == ["timeout"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("exactness.inside:function", "exactness"),
        ("exactness:no_such_function", "no_such_function"),
        ("exactness:not_callable", "not a function"),
    ],
)
async def test_a_missing_target_by_name_fails_its_job(supervisor: Supervisor, target: str, words: str) -> None:
    with pytest.raises(JobFailed, match=words):
        await supervisor.run(target)
    assert await supervisor.run("exactness:echo", 1) == 1


async def test_a_missing_module_is_refused_before_anything_is_queued(supervisor: Supervisor) -> None:
    with pytest.raises(TargetError, match="no module 'no_such_module_here'"):
        await supervisor.submit("no_such_module_here:function")
    assert supervisor.statistics().submitted == 0


async def test_callbacks_of_a_constructor(supervisor: Supervisor) -> None:
    heard: list[int] = []
    job = Job("exactness:Teller.tell", args=(3,), init={"progress_callback": callback(heard.append)})
    assert await supervisor.run(job) == "told"
    assert heard == [0, 1, 2]
    with pytest.raises(PayloadError, match=r"init\.progress_callback.*callback\(function\)"):
        await supervisor.run(Job("exactness:Teller.tell", args=(3,), init={"progress_callback": print}))


async def test_annotations_of_args_and_kwargs(supervisor: Supervisor) -> None:
    when = datetime.datetime(2026, 3, 1, 12, 30)
    assert await supervisor.run(exactness.all_sorts, when, when, price=decimal.Decimal("1.50")) == "datetime 1 Decimal"
    assert await supervisor.run(exactness.wrapped, when) == "datetime 0"


async def test_methods_of_classes(supervisor: Supervisor) -> None:
    job = Job("exactness:Greeter.greet", args=("hello",), init={"name": "you", "mark": "?"})
    assert await supervisor.run(job) == "hello you?"
    assert await supervisor.run("exactness:Greeter.double", 4) == 8
    assert await supervisor.run(exactness.Greeter.double, 4) == 8
    assert await supervisor.run("exactness:Greeter.made_by", "x") == "Greeter x"
    assert await supervisor.run(exactness.Greeter.made_by, "x") == "Greeter x"
    with pytest.raises(JobFailed, match="name"):
        await supervisor.run(Job("exactness:Greeter.greet", args=("hello",)))
    with pytest.raises(PayloadError, match="init.name"):
        await supervisor.run(Job("exactness:Greeter.greet", args=("hello",), init={"name": object()}))
    with pytest.raises(ConfigurationError, match="job.init"):
        await supervisor.run(Job(exactness.one, args=(1,), init={"name": 1}))


async def test_async_methods_of_classes() -> None:
    async with Supervisor(workers=1) as supervisor:
        job = Job("exactness:Greeter.greet_async", args=("hello",), init={"name": "you"})
        assert await supervisor.run(job) == "hello you!"


async def test_decorated_functions(supervisor: Supervisor) -> None:
    assert await supervisor.run(exactness.decorated, 3) == ["wrapped", 3]


async def test_builtins_and_library_functions(supervisor: Supervisor) -> None:
    assert await supervisor.run(math.gcd, 12, 18) == 6
    assert await supervisor.run(len, [1, 2]) == 2


# Options


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"workers": -1}, "workers"),
        ({"workers": 1.5}, "workers"),
        ({"workers": True}, "workers"),
        ({"concurrency": 0}, "concurrency"),
        ({"queue_size": 0}, "queue_size"),
        ({"grace": -1}, "grace"),
        ({"grace": "soon"}, "grace"),
        ({"start_timeout": 0}, "start_timeout"),
        ({"on_exit": "explode"}, "on_exit"),
        ({"isolation": "thread"}, "isolation"),
        ({"max_jobs": 0}, "max_jobs"),
        ({"limits": [1]}, "limits[0]"),
        ({"limits": [Limit("a", rate=1), Limit("a", rate=1)]}, "limits[1]"),
        ({"env": {"A": 1}}, "env['A']"),
        ({"secrets": ["NO_SUCH_SECRET_IS_SET"]}, "secrets"),
        ({"secrets": "KEY"}, "secrets"),
        ({"preload": "module"}, "preload"),
        ({"command": []}, "command"),
        ({"cwd": "/no/such/folder"}, "cwd"),
        ({"restart": 5}, "restart"),
        ({"max_message_bytes": 1}, "max_message_bytes"),
        ({"name": ""}, "name"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Supervisor(**options)
    assert caught.value.field == field
    assert field in str(caught.value)


async def test_wrong_arguments_of_map_are_named(supervisor: Supervisor) -> None:
    with pytest.raises(ConfigurationError, match="items"):
        supervisor.map(exactness.one, 5)
    with pytest.raises(ConfigurationError, match="items"):
        supervisor.map(exactness.one)
    with pytest.raises(ConfigurationError, match="args"):
        supervisor.map(Job(exactness.one, args=(1,)), [1])
    with pytest.raises(ConfigurationError, match=r"items\[1\]"):
        async with supervisor.map([Job(exactness.one, args=(1,)), 5]) as outcomes:  # type: ignore[list-item]
            assert [outcome.value async for outcome in outcomes] == [1]
    with pytest.raises(ConfigurationError, match="workers"):
        await supervisor.scale(0)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TypeError, match="wrokers"):
        Supervisor(wrokers=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Job(exactness.one, timeout=-1), "job.timeout"),
        (lambda: Job(exactness.one, timeout=0), "job.timeout"),
        (lambda: Job(exactness.one, args="abc"), "job.args"),
        (lambda: Job(exactness.one, kwargs={1: 2}), "job.kwargs"),  # type: ignore[dict-item]
        (lambda: Job(exactness.one, priority=1.5), "job.priority"),  # type: ignore[arg-type]
        (lambda: Job(exactness.one, retry=3), "job.retry"),  # type: ignore[arg-type]
        (lambda: Job(exactness.one, key=7), "job.key"),  # type: ignore[arg-type]
        (lambda: Job(exactness.one, effects="maybe"), "job.effects"),  # type: ignore[arg-type]
        (lambda: Job(exactness.one, limits={"api": -1}), "job.limits.api"),
        (lambda: Job(7), "job.target"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(attempts=0), "retry.attempts"),
        (lambda: RetryPolicy(on=()), "retry.on"),
        (lambda: Limit("api"), "limit 'api'"),
        (lambda: Limit("", rate=1), "limit.name"),
        (lambda: callback(5), "callback"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_member_of_a_job_is_named(make: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.field == field


async def test_a_limit_that_does_not_exist_is_named() -> None:
    async with Supervisor(workers=1, limits=[Limit("api", concurrency=2)]) as supervisor:
        with pytest.raises(ConfigurationError, match=r"job.limits.apj.* known are api"):
            await supervisor.run(Job(dying.pid, limits={"apj": 1}))
        with pytest.raises(ConfigurationError, match=r"job.limits.api"):
            await supervisor.run(Job(dying.pid, limits={"api": 3}))
        assert supervisor.statistics().submitted == 0


async def test_a_job_takes_no_arguments_of_run(supervisor: Supervisor) -> None:
    with pytest.raises(ConfigurationError, match="job"):
        await supervisor.run(Job(exactness.one), 1)
