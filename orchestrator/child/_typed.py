"""Values that JSON cannot carry, sent because an annotation says what they are; loads msgspec only when called."""

from __future__ import annotations

from orchestrator import _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Not float: it may be NaN or infinite, which JSON cannot carry.
_PLAIN_HINTS = (str, int, bool, list, dict, object, type(None))


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's resolved annotations by parameter name; unresolvable ones are left out."""
    import typing

    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:
        # One bad annotation (a name only imported for type checkers) must not hide the others.
        found: dict[str, Any] = {}
        for name, hint in getattr(function, "__annotations__", {}).items():
            try:
                scope = getattr(function, "__globals__", {})
                found[name] = eval(hint, scope) if isinstance(hint, str) else hint
            except Exception:
                continue
        return found


def is_plain(hint: Any) -> bool:
    """Return whether JSON values need no conversion for this annotation."""
    import typing  # loaded by whoever found the annotation

    return hint is typing.Any or hint in _PLAIN_HINTS


def to_text(value: Any, hint: Any, path: str) -> str:
    """Return a value in JSON form, having checked that it comes back equal and of the same type.

    Raises:
        TypeError: `path: problem` when the annotation does not carry it exactly.
    """
    import json

    import msgspec

    try:
        form = msgspec.to_builtins(value, str_keys=True, enc_hook=_encode)
        # The standard library's dialect: it has NaN and infinities, which annotated floats may be.
        text = json.dumps(form, separators=(",", ":"))
        back = _convert(json.loads(text), hint, strict=True)
        same = _same(value, back)
    except Exception as error:
        raise TypeError(f"{path}: {type(value).__name__} does not fit the annotation {_show(hint)}: {error}") from None
    if not same:
        raise TypeError(
            f"{path}: {value!r:.200} would arrive as {back!r:.200}; "
            f"the annotation {_show(hint)} does not carry it exactly"
        )
    return text


def from_text(text: str, hint: Any) -> Any:
    """Rebuild a value from what `to_text` made."""
    import json

    return _convert(json.loads(text), hint, strict=True)


def from_form(value: Any, hint: Any, *, strict: bool) -> Any:
    """Rebuild a parameter from a JSON value, or (not strict) from a string such as a CSV cell.

    Raises:
        TypeError: When the value does not fit the annotation.
    """
    import msgspec

    if isinstance(value, str) and hint is str:
        return value
    try:
        return _convert(value, hint, strict=strict)
    except msgspec.ValidationError as error:
        for form in () if strict or not isinstance(value, str) else _spellings(value):
            try:
                return _convert(form, hint, strict=strict)
            except msgspec.ValidationError:
                continue
        raise TypeError(f"{value!r:.200} does not fit the annotation {_show(hint)}: {error}") from None
    except NotImplementedError as error:
        raise TypeError(str(error)) from None
    except TypeError:
        return value  # an annotation that msgspec does not know says nothing about JSON: the value goes as it is


def _spellings(text: str) -> list[Any]:
    """Return what a cell may also mean: `.5`, `1.`, `007` or ` 7 ` a number, nothing None, `[1, 2]` an array."""
    text = text.strip()
    if not text:
        return [None]
    if "_" in text:
        return []  # a number for Python's source alone
    if text[0] in "[{":
        import json

        try:
            return [json.loads(text)]
        except (ValueError, RecursionError):
            return []
    forms: list[Any] = [text]
    for kind in (int, float):
        try:
            forms.append(repr(kind(text)))
        except ValueError:
            continue
    return forms


def _convert(form: Any, hint: Any, *, strict: bool) -> Any:
    import msgspec

    return msgspec.convert(form, hint, strict=strict, str_keys=True, dec_hook=_decode)


def _encode(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump):  # pydantic
        return dump(mode="json")
    if hasattr(value, "__fspath__"):
        return str(value)
    raise NotImplementedError(f"{type(value).__module__}.{type(value).__qualname__} has no JSON form")


def _decode(kind: type, form: Any) -> Any:
    validate = getattr(kind, "model_validate", None)
    if callable(validate):
        return validate(form)
    if hasattr(kind, "__fspath__"):
        return kind(form)
    raise NotImplementedError(f"{kind.__module__}.{kind.__qualname__} cannot be rebuilt from JSON")


def _same(left: Any, right: Any) -> bool:
    """Return equality in which NaN equals itself and types count."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left == right or (left != left and right != right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    names = getattr(left, "__struct_fields__", None) or getattr(left, "__dataclass_fields__", None)
    if names is not None:
        return all(_same(getattr(left, name), getattr(right, name)) for name in names)
    # Two moments an hour apart are equal when clocks are set back, but for this.
    return bool(left == right) and getattr(left, "fold", 0) == getattr(right, "fold", 0)


def _show(hint: Any) -> str:
    return getattr(hint, "__qualname__", None) or repr(hint)


def problem_of(value: Any, path: str) -> str | None:
    """Return `path: problem` when JSON cannot carry a value exactly."""
    found = _wire.find_inexact(value, path)
    return None if found is None else ": ".join(found)
