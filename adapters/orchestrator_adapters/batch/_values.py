"""Turn a user's value into a JSON value that means the same, or say which part of it cannot be one: pure."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec


class Unfit(Exception):
    """Raised when a value cannot be JSON; the message names the part and what it is."""


def to_json_value(value: Any) -> tuple[Any, int]:
    """Return a value as dictionaries, lists, strings, numbers, booleans and None, and the length of its JSON text.

    What JSON has no form for (dataclasses, Structs, pydantic models, dates, UUIDs, decimals, enums) takes the form from
    which a handler's annotation rebuilds it. Everything else is refused, for it would arrive as something else.

    Raises:
        Unfit: If a part of it has no such form.
    """
    try:
        if find_unfit(value, "") is not None:
            value = msgspec.to_builtins(value, enc_hook=_to_builtins, order="deterministic")
            unfit = find_unfit(value, "")
            if unfit is not None:
                raise Unfit(unfit)
        return value, len(msgspec.json.encode(value))
    except RecursionError:
        raise Unfit("the record is nested too deeply, or contains itself") from None
    except UnicodeEncodeError:
        raise Unfit("the record has text that is not Unicode (a lone surrogate)") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise Unfit(f"the record is not JSON: {error}") from None


def decode_result(text: bytes) -> Any:
    """Return the value of a JSON text that a sink gets; lone surrogates, which msgspec does not know, included."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)


def _to_builtins(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # pydantic's, which this package does not import
    if callable(dump):
        return dump(mode="json")
    item = getattr(value, "item", None)  # a scalar of NumPy
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    raise TypeError(f"it holds a {type(value).__module__}.{type(value).__qualname__}")


def find_unfit(value: Any, path: str) -> str | None:
    """Return what is not JSON in a value, or None."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return None
    if kind is float:
        if math.isfinite(value):
            return None
        return f"{path or 'the record'} is {value}, which JSON has no form for"
    if kind is dict:
        for key, part in value.items():
            if type(key) is not str:
                return f"{path or 'the record'} has the key {key!r}, which is not a string"
            problem = find_unfit(part, f"{path}.{key}" if path else key)
            if problem is not None:
                return problem
        return None
    if kind is list or kind is tuple:
        for index, part in enumerate(value):
            problem = find_unfit(part, f"{path}[{index}]")
            if problem is not None:
                return problem
        return None
    return f"{path or 'the record'} is a {kind.__module__}.{kind.__qualname__}, which JSON has no form for"
