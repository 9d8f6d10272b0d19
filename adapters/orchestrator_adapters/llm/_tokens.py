"""How many tokens a text will be, before the provider says."""

from __future__ import annotations

from typing import Any

# Measured by nobody but good enough: what was estimated is put right by what the reply reports.
_ASCII_PER_TOKEN = 4  # English prose; the rule of thumb that Google and OpenAI give
_OTHERS_PER_TOKEN = 1.5  # other scripts take more tokens a character


def estimate_tokens(content: Any) -> int:
    """Return about how many tokens a prompt has: the texts in it, however deep they lie in lists and messages."""
    return sum(_text(text) for text in _texts(content)) or 1


def _text(text: str) -> int:
    ascii_characters = len(text.encode("ascii", "ignore"))
    return round(ascii_characters / _ASCII_PER_TOKEN + (len(text) - ascii_characters) / _OTHERS_PER_TOKEN + 0.5)


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    if isinstance(content, dict):
        content = list(content.values())
    elif hasattr(content, "parts") or hasattr(content, "text"):  # google-genai's Content and Part
        content = [getattr(content, "parts", None), getattr(content, "text", None)]
    if isinstance(content, list | tuple):
        return [text for inner in content for text in _texts(inner)]
    return []
