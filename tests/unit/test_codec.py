"""Values are exact or refused, with the path of what cannot travel; large ones are known without much looking."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import codable
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import Job, _codec, callback
from orchestrator._targets import Target, Targets
from orchestrator.child import _typed
from orchestrator.exceptions import PayloadError, PayloadTooLarge

LARGEST = 2**24
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=()), max_size=30)
)
JSON = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
)
ANYTHING = st.recursive(
    ATOMS | st.floats() | st.binary(max_size=5) | st.dates() | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.frozensets(st.integers(), max_size=2)
    ),
)


def encode(*args: Any, to: Any = codable.plain, job: Job | None = None, **kwargs: Any) -> dict[str, Any]:
    """Return the members of the frame that a child would read."""
    payload = payload_of(*args, to=to, job=job, **kwargs)
    found: dict[str, Any] = json.loads(b"{%s%s}" % (payload.head, payload.body), parse_constant=pytest.fail)
    return found


def payload_of(*args: Any, to: Any = codable.plain, job: Job | None = None, **kwargs: Any) -> _codec.Payload:
    target = to if isinstance(to, Target) else Targets().resolve(to)
    return _codec.encode_job(job or Job(target.reference), target, args, kwargs, LARGEST)


def refusal(*args: Any, **options: Any) -> PayloadError:
    with pytest.raises(PayloadError) as refused:
        payload_of(*args, **options)
    return refused.value


def listed(value: Any) -> Any:
    """Tuples arrive as lists."""
    if isinstance(value, list | tuple):
        return [listed(item) for item in value]
    return {key: listed(item) for key, item in value.items()} if isinstance(value, dict) else value


@given(a=JSON, b=JSON)
def test_json_values_arrive_as_they_are(a: Any, b: Any) -> None:
    by_position, by_name = encode(a, b), encode(a=a, b=b)
    assert repr(by_position["args"]) == repr([a, b])
    assert repr(by_name["kwargs"]) == repr({"a": a, "b": b})
    assert by_name["args"] == []
    assert "typed" not in by_position and "callbacks" not in by_position


@given(value=ANYTHING)
def test_anything_is_exact_or_refused(value: Any) -> None:
    path = ""
    try:
        found = encode(value)["args"][0]
    except PayloadError as error:
        path = error.path
    if path:
        assert path.startswith("args[0]")
    else:
        assert repr(found) == repr(listed(value))


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        2**53 + 1,
        2**63,
        -(2**63) - 1,
        2**64,
        10**400,
        -0.0,
        5e-324,
        1.7976931348623157e308,
        "\ud800",
        "\0",
        "\u2028",
        "null",
    ],
)
@pytest.mark.parametrize("shape", [lambda value: value, lambda value: [value], lambda value: {"k": value}])
def test_edges_of_json(value: Any, shape: Any) -> None:
    found = encode(shape(value), b=None)
    assert repr(found["args"]) == repr([shape(value)])
    assert found["kwargs"] == {"b": None}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_number_is_refused(value: float) -> None:
    assert refusal(value).path == "args[0]"
    assert refusal(None, value).path == "args[1]", "beside a None, which is null as well"
    assert refusal(b=value).path == "kwargs.b"
    assert refusal([1, {"x": [value]}]).path == "args[0][1].x[0]"
    assert repr(value) in str(refusal(value))


def test_paths_and_remedies() -> None:
    pins = [{}, {}, {}, {"when": datetime(2024, 1, 1)}]
    found = refusal(a=pins)
    assert found.path == "kwargs.a[3].when"
    assert "datetime.datetime is not a JSON type" in str(found) and "annotate" in str(found)
    assert "has the key 1" in str(refusal({1: 2}))
    by_name = refusal(datetime(2024, 1, 1), to=Target("codable:plain", None))
    assert "named by a string" in str(by_name) and 'convert="json"' in str(by_name)
    assert "contains itself" in str(refusal(recursive()))


def recursive() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


class Text(str):
    pass


class Number(int):
    pass


@pytest.mark.parametrize(
    "value", [Text("x"), Number(1), {1, 2}, b"x", bytearray(b"x"), 1j, range(3), object(), Ellipsis]
)
def test_other_types_are_refused(value: Any) -> None:
    assert refusal(value).path == "args[0]"
    assert refusal({"a": [value]}).path == "args[0].a[0]"


TYPED = {
    "pin": codable.Pin("a", datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    "when": datetime(2024, 1, 2, 3, 4, 5),
    "amount": Decimal("1.10"),
    "path": Path("a/b"),
    "uid": UUID(int=7),
    "colour": codable.Colour.RED,
    "data": b"\0\xff",
    "names": {"a", "b"},
    "numbers": {1: "one", -2: "two"},
    "level": math.inf,
    "pair": (1, 2),
}


@pytest.mark.parametrize("name", TYPED)
def test_annotated_values_travel_by_their_annotation(name: str) -> None:
    target = Targets().resolve(codable.typed)
    found = encode(to=codable.typed, **{name: TYPED[name]})
    assert found["kwargs"] == {name: None}
    back = _typed.from_text(found["typed"][name], target.hint_of(name))
    assert back == TYPED[name] and type(back) is type(TYPED[name])
    at = list(TYPED).index(name)
    by_position = encode(*[None] * at, TYPED[name], to=codable.typed) if name != "level" else None
    assert by_position is None or by_position["typed"].keys() == {str(at)}


def test_annotations_that_do_not_carry_the_value() -> None:
    assert refusal(to=codable.typed, when=Path("a")).path == "kwargs.when"
    assert refusal(to=codable.typed, pin=codable.Pin(b"no text", datetime(2024, 1, 1))).path == "kwargs.pin"  # type: ignore[arg-type]
    assert refusal(to=codable.typed, colour=object()).path == "kwargs.colour"


def test_nan_is_carried_by_an_annotation_that_says_float() -> None:
    assert _typed.to_text(math.nan, list[float] | float, "x") == "NaN"
    assert math.isnan(_typed.from_text("NaN", float))


def test_one_bad_annotation_does_not_hide_the_others() -> None:
    found = encode(1, datetime(2024, 1, 1), to=codable.half_annotated)
    assert found["args"] == [1, None]
    assert found["typed"].keys() == {"1"}


def test_callbacks_leave_their_place() -> None:
    first, second = callback(print), callback(len, latest=True)
    payload = payload_of(first, other=second, to=codable.called)
    assert payload.callbacks == (first, second)
    found = encode(first, other=second, to=codable.called)
    assert found["callbacks"] == [["0", False], ["other", True]]
    assert found["args"] == [None] and found["kwargs"] == {"other": None}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (print, "args[0]"),
        ([print], "args[0][0]"),
        ({"f": {"g": len}}, "args[0].f.g"),
        ([callback(print)], "args[0][0]"),
    ],
)
def test_functions_are_to_be_wrapped(value: Any, path: str) -> None:
    found = refusal(value)
    assert found.path == path
    assert "callback(function)" in str(found)


def test_members_of_the_head() -> None:
    found = encode(1, job=Job(codable.plain, key="k\ud800", convert="json"))
    assert (found["key"], found["convert"], found["target"], found["kind"]) == (
        "k\ud800",
        "json",
        "codable:plain",
        "sync",
    )
    built = encode(to=Target("codable:Owner.method", None), job=Job("codable:Owner.method", init={"a": [1]}))
    assert built["init"] == {"a": [1]} and "kind" not in built
    with pytest.raises(PayloadError) as refused:
        encode(to=Target("codable:Owner.method", None), job=Job("codable:Owner.method", init={"a": [b""]}))
    assert refused.value.path == "init.a[0]"


def test_largest() -> None:
    target = Targets().resolve(codable.plain)
    for args in (("x" * 2000,), (["x" * 2000],)):
        with pytest.raises(PayloadTooLarge, match="max_message_bytes=1024"):
            _codec.encode_job(Job(codable.plain), target, args, {}, 1024)
        assert _codec.encode_job(Job(codable.plain), target, args, {}, 4096)


# Large values


@pytest.mark.parametrize(
    "value",
    [
        "x" * (_codec.LARGE + 1),
        b"x" * (_codec.LARGE + 1),
        ["x" * 1000] * 300,
        list(range(5_000)),
        {str(number): number for number in range(5_000)},
        [[number] for number in range(3_000)],
        {"a": {"b": {"c": ["x" * (_codec.LARGE + 1)]}}},
        [codable.Pin("x" * 1000, datetime(2024, 1, 1)) for _ in range(400)],
        {"x" * (_codec.LARGE + 1): 1},
        ("x" * 1025,) * 1024,
    ],
    ids=lambda value: repr(value)[:30],
)
def test_large(value: Any) -> None:
    assert _codec.is_large((value,))
    assert _codec.is_large({"name": value})


@pytest.mark.parametrize("value", ["x" * 100_000, list(range(1_000)), {"a": [1, 2, {"b": None}]}, 10**100, None])
def test_not_large(value: Any) -> None:
    assert not _codec.is_large((value,))
    assert not _codec.is_large(("a", value, 1.5))


def test_looking_takes_no_time_whatever_the_size() -> None:
    huge = [[{"x": list(range(100))} for _ in range(100)] for _ in range(100)]
    wide = [codable.Pin(str(number), datetime(2024, 1, 1)) for number in range(100_000)]
    begun = time.thread_time()
    for _ in range(10):
        assert _codec.is_large((huge,)) and _codec.is_large((wide,)) and _codec.is_large((recursive() * 5_000,))
    assert time.thread_time() - begun < 0.3


def test_value_that_contains_itself_ends_the_looking() -> None:
    _codec.is_large((recursive(),))


@given(value=JSON)
def test_bytes_decode_to_what_they_were(value: Any) -> None:
    assert repr(_codec.from_json(_codec.to_json(value))) == repr(value)


def test_typed_results() -> None:
    pins = [TYPED["pin"]]
    text = _typed.to_text(pins, list[codable.Pin], "result")
    assert _codec.decode_typed(text, Targets().resolve(codable.typed)) == pins
    assert _codec.decode_typed(text, Target("codable:typed", None)) == json.loads(text), "by name alone, its JSON form"
    with pytest.raises(Exception, match="Expected"):
        _codec.decode_typed('"no list"', Targets().resolve(codable.typed))


@pytest.mark.parametrize("shape", [lambda value: value, lambda value: [value], lambda value: {"k": value}])
def test_integer_of_more_digits_than_python_writes(shape: Any) -> None:
    found = refusal(shape(10**5000))
    assert found.path == "args"
    assert "4300 digits" in str(found)
