"""Secret values in text, replaced by their names; shared by the child and its supervisor."""

from __future__ import annotations

from orchestrator import _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Mapping
    from typing import Any

# Shorter values are words that appear anywhere, and tell little; so do shorter pieces of longer ones.
SHORTEST = 6
# Where a text that was cut ends, and where its rest begins.
_ENDS = ("\n", "…")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Redactor:
    """Replaces each value by `[secret NAME]`, also where it is quoted: as JSON, by `repr`, in a URL; not otherwise.

    Of a value that was cut, at the end of a line that was too long say, the piece that is left is replaced too. Each
    line of a value that has several counts by itself.

    Args:
        secrets: Values by name; those that are too short are left alone.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        marks: dict[str, str] = {}
        patterns: dict[str, str] = {}
        for name, value in secrets.items():
            for plain in _parts(value):
                marks.setdefault(plain, f"[secret {name}]")
                if not _UNRESERVED.issuperset(plain.encode("utf-8", "surrogatepass")):
                    patterns.setdefault(plain, f"[secret {name}]")
        # The longest first: one secret may be a part of another.
        self._patterns = [(_pattern(plain), mark.replace("\\", r"\\")) for plain, mark in _longest_first(patterns)]
        self._marks = _longest_first(marks)
        for plain, mark in patterns.items():
            for form in (_ascii_json(plain), repr(plain)[1:-1]):
                marks.setdefault(form, mark)
        self._pieces = _longest_first(marks)
        self._heads = {form[:SHORTEST] for form in marks}
        self._tails = {form[-SHORTEST:] for form in marks}

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        for pattern, mark in self._patterns:  # they may hold others, which hold nothing that is quoted
            text = pattern.sub(mark, text)
        for form, mark in self._marks:
            if form in text:
                text = text.replace(form, mark)
        for head in self._heads:
            if head in text:
                text = self._without_heads(text)
                break
        for tail in self._tails:
            if tail in text:
                text = self._without_tails(text)
                break
        return text

    def value(self, value: Any) -> Any:
        """Return a JSON value whose strings have no secrets."""
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind is dict:
            return {self.text(key): self.value(item) for key, item in value.items()}
        if kind is list or kind is tuple:
            return [self.value(item) for item in value]
        return value

    def log(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Return a log frame without secrets."""
        found = {**frame, "text": self.text(frame["text"])}
        if "fields" in frame:
            found["fields"] = self.value(frame["fields"])
        return found

    def _without_heads(self, text: str) -> str:
        """Replace beginnings of secrets at the end of a line, or of what was cut."""
        for form, mark in self._pieces:
            at = text.find(form[:SHORTEST])
            while at >= 0:
                size = SHORTEST
                while size < len(form) and text[at + size : at + size + 1] == form[size]:
                    size += 1
                end = at + size
                if end == len(text) or text[end] in _ENDS:
                    text = f"{text[:at]}{mark}{text[end:]}"
                    end = at + len(mark)
                at = text.find(form[:SHORTEST], end)
        return text

    def _without_tails(self, text: str) -> str:
        """Replace ends of secrets at the beginning of a line, or of what was cut."""
        for form, mark in self._pieces:
            at = text.find(form[-SHORTEST:])
            while at >= 0:
                size = SHORTEST
                end = at + size
                while size < len(form) and at > 0 and text[at - 1] == form[-size - 1]:
                    size += 1
                    at -= 1
                if at == 0 or text[at - 1] == "\n":
                    text = f"{text[:at]}{mark}{text[end:]}"
                    end = at + len(mark)
                at = text.find(form[-SHORTEST:], end)
        return text


def too_short(value: str) -> bool:
    """Return whether a value is shown as it is."""
    return len(value) < SHORTEST


def _longest_first(marks: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(marks.items(), key=lambda item: -len(item[0]))


def _parts(value: str) -> Iterator[str]:
    """Yield the texts that a value may appear as, before anything is quoted."""
    lines = [line.strip() for line in value.splitlines()]
    for plain in dict.fromkeys([value, value.strip(), *lines]):
        if not too_short(plain):
            yield plain


def _ascii_json(text: str) -> str:
    return _wire.encode_json(text)[1:-1]


def _pattern(plain: str) -> re.Pattern[str]:
    """Return what a value looks like wherever it is quoted, and the quotation quoted, and so on."""
    import re

    return re.compile("".join(_letter(letter, re.escape(letter)) for letter in plain))


# Escapes of escapes double their backslashes: five times over, and no more, so that a search stays quick.
_SOME, _ANY = r"\\{1,32}", r"\\{0,32}"
_CONTROLS = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}


def _letter(letter: str, itself: str) -> str:
    octets = letter.encode("utf-8", "surrogatepass")
    if octets[0] in _UNRESERVED:
        return itself
    code = ord(letter)
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    escapes = ["".join(f"{_SOME}u{units[at : at + 4]}" for at in range(0, len(units), 4))]  # JSON
    escapes.append("".join(f"%{octet:02x}" for octet in octets))  # URLs
    escapes.append("".join(f"{_SOME}x{octet:02x}" for octet in octets))  # bytes
    escapes.append(f"{_SOME}x{code:02x}" if code < 256 else f"{_SOME}U{code:08x}")  # ascii()
    if letter in _CONTROLS:
        escapes.append(_SOME + _CONTROLS[letter])
    if letter == " ":
        escapes.append(r"\+")
    plain = _SOME if letter == "\\" else f"{_ANY}{itself}" if letter in "\"'/" else itself
    return f"(?:{plain}|(?i:{'|'.join(dict.fromkeys(escapes))}))"
