"""The pins of a board: what was published, by whom, and what was published twice."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

BOARDS = ("Gardens", "Kitchens", "Reading", "Travel", "Workshops")
PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}


class Refused(Exception):
    """A pin that the board does not take.

    Attributes:
        status: The HTTP status that goes with it.
        pin_id: The pin that is there already, if that is why.
    """

    def __init__(self, status: int, message: str, pin_id: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.pin_id = pin_id


@dataclass(frozen=True)
class Pin:
    """What somebody filled in and published; `at` is in seconds since 1970."""

    id: int
    title: str
    description: str
    board: str
    link: str
    user: str
    at: float
    image_kind: str
    image_bytes: int
    image_sha256: str

    def describe(self) -> dict[str, Any]:
        """Return the pin as the JSON API tells it."""
        return {**asdict(self), "url": f"/pin/{self.id}", "image": f"/pin/{self.id}/image"}

    @property
    def content(self) -> tuple[str, ...]:
        """All that the user gave: two pins with the same content are one that was published twice."""
        return self.title, self.description, self.board, self.link, self.image_sha256


class Pins:
    """What one board holds; safe from many threads.

    Args:
        boards: Names of the boards that pins can be put on.
        duplicates: `allow`, or `refuse` a title and image that are there already.
    """

    def __init__(self, boards: tuple[str, ...] = BOARDS, duplicates: str = "allow") -> None:
        self.boards = boards
        self.duplicates = duplicates
        self._lock = threading.Lock()
        self._pins: dict[int, Pin] = {}
        self._images: dict[int, bytes] = {}

    def publish(self, user: str, fields: dict[str, str], image: bytes) -> Pin:
        """Store a pin.

        Raises:
            Refused: Something is wrong with it, or it is there already and the board refuses that.
        """
        title = fields["title"].strip()
        if not title:
            raise Refused(422, "A pin needs a title.")
        if len(title) > 100:
            raise Refused(422, f"A title has at most 100 characters, and this one {len(title)}.")
        if len(fields["description"]) > 500:
            raise Refused(422, "A description has at most 500 characters.")
        if fields["board"] not in self.boards:
            raise Refused(422, f"There is no board {fields['board']!r}." if fields["board"] else "Choose a board.")
        if fields["link"] and not fields["link"].startswith(("http://", "https://")):
            raise Refused(422, "A link starts with http:// or https://.")
        kind = next((kind for start, kind in PICTURES.items() if image.startswith(start)), None)
        if kind is None:
            raise Refused(422, "Choose a picture: PNG, JPEG, GIF or WebP.")
        digest = hashlib.sha256(image).hexdigest()
        with self._lock:
            if self.duplicates == "refuse":
                for pin in self._pins.values():
                    if (pin.title, pin.image_sha256) == (title, digest):
                        message = f"There is a pin with this title and picture already: pin {pin.id}."
                        raise Refused(409, message, pin.id)
            pin = Pin(
                id=len(self._pins) + 1,
                title=title,
                description=fields["description"].strip(),
                board=fields["board"],
                link=fields["link"].strip(),
                user=user,
                at=time.time(),
                image_kind=kind,
                image_bytes=len(image),
                image_sha256=digest,
            )
            self._pins[pin.id] = pin
            self._images[pin.id] = image
        return pin

    def get(self, pin_id: int) -> Pin | None:
        """Return one pin."""
        with self._lock:
            return self._pins.get(pin_id)

    def image(self, pin_id: int) -> bytes:
        """Return what was uploaded with a pin."""
        with self._lock:
            return self._images[pin_id]

    def find(self, *, title: str = "", mark: str = "", board: str = "", text: str = "") -> list[Pin]:
        """Return pins, oldest first.

        Args:
            title: The whole title.
            mark: What the link or the description contains somewhere.
            board: The board's name.
            text: What title, description or link contain, whatever the case.
        """
        with self._lock:
            pins = list(self._pins.values())
        wanted = text.lower()
        return [
            pin
            for pin in pins
            if (not title or pin.title == title)
            and (not mark or mark in pin.link or mark in pin.description)
            and (not board or pin.board == board)
            and (not wanted or wanted in f"{pin.title}\n{pin.description}\n{pin.link}".lower())
        ]

    def twice(self) -> list[list[int]]:
        """Return the numbers of pins that have the same content, a list for each content."""
        pins = self.find()
        count = Counter(pin.content for pin in pins)
        return [[pin.id for pin in pins if pin.content == content] for content, n in count.items() if n > 1]

    def clear(self) -> None:
        """Forget all pins."""
        with self._lock:
            self._pins.clear()
            self._images.clear()
