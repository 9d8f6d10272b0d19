"""JSON text of records and results: what two runs compare, what the journal keeps and the sink gets."""

from __future__ import annotations

import json
import math
from hashlib import blake2b
from typing import Any

import msgspec

from orchestrator_adapters.batch._values import Unfit, to_json_value


def _dumped(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # pydantic's, which this package does not import
    if callable(dump):
        return dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encode = msgspec.json.Encoder(enc_hook=_dumped).encode


def record_hash(content: Any, problem: str | None) -> bytes:
    """Return what tells one record from another; a bad row is another record than a good one of the same text."""
    text = _json(content)
    return blake2b(text if problem is None else b"bad row: " + text, digest_size=16).digest()


def result_text(value: Any) -> bytes:
    """Return what a handler returned as JSON text; typed values take the form that their annotation would read.

    Raises:
        Unfit: If it has no such form.
    """
    try:
        text = _encode(value)
    except (TypeError, ValueError, OverflowError):
        # A kind of value of its own, or text that is not Unicode.
        return _json(value) if _is_text_problem(value) else _encode(to_json_value(value)[0])
    if b"null" in text and value is not None:
        _check_finite(msgspec.to_builtins(value, enc_hook=_dumped))
    return text


def _check_finite(value: Any) -> None:
    """Refuse infinities and NaN, which msgspec writes as null."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Unfit(f"the record holds {value}, which JSON has no form for")
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            _check_finite(part)


def _is_text_problem(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _json(value: Any) -> bytes:
    try:
        return _encode(value)
    except (UnicodeEncodeError, OverflowError):
        # Lone surrogates: the standard library's dialect knows them.
        return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def json_text(value: Any) -> str:
    """Return JSON values as JSON text."""
    return _json(value).decode()
