"""What the page has done in a browser: plain functions that are given a page, and know nothing of children."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Looked:
    """What was found at an address."""

    title: str
    links: int
    picture: bytes  # PNG


def look(page: Any, url: str) -> Looked:
    """Open an address, and take a picture."""
    page.goto(url)
    print("looking at", page.title())
    return Looked(page.title(), page.locator("a").count(), page.screenshot())
