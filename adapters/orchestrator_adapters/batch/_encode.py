"""JSON text of records and results: what two runs compare, what the journal keeps and the sink gets."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

import msgspec

from orchestrator_adapters.batch._values import to_json_value

_encode = msgspec.json.Encoder(order="deterministic").encode
_encode_as_is = msgspec.json.Encoder().encode


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
        text = _encode(value) if type(value) is set else _encode_as_is(value)
    except (TypeError, ValueError, OverflowError):
        # A pydantic model, or text that is not Unicode.
        if _is_text_problem(value):
            return _json(value)
        return _encode_as_is(to_json_value(value)[0])
    # msgspec writes infinities and NaN as null.
    if b"null" in text and value is not None:
        return _encode_as_is(to_json_value(value)[0])
    return text


def _is_text_problem(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _json(value: Any) -> bytes:
    try:
        return _encode_as_is(value)
    except (UnicodeEncodeError, OverflowError):
        # Lone surrogates: the standard library's dialect knows them.
        return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def json_text(value: Any) -> str:
    """Return JSON values as JSON text."""
    return _json(value).decode()
