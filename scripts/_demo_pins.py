"""The pins that the demo publishes: a table and its pictures, made on the spot."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from _pin_board_pictures import picture
from _pin_board_pins import BOARDS

if TYPE_CHECKING:
    from pathlib import Path

PLACES = (
    "Ash Hill, Birch Lake, Cedar Pass, Dune Bay, Elm Ridge, Fern Valley, Gorse Point, Heather Moor, Iris Meadow, "
    "Juniper Slope, Kelp Shore, Larch Bend, Maple Gap, Nettle Down, Oak Hollow, Pine Crest, Quince Yard, Reed Marsh, "
    "Sorrel Field, Thyme Bank, Umber Cliff, Violet Combe, Willow Ford, Yarrow Heath"
).split(", ")
HOURS = ("at dawn", "at noon", "in the evening")


def make_pins(folder: Path, number: int) -> Path:
    """Write `pins.csv` and a picture for each pin into a folder; returns the table's path."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    table = folder / "pins.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["title", "description", "board", "link", "image"])
        for index in range(number):
            place = PLACES[index % len(PLACES)]
            title = f"{place} {HOURS[index // len(PLACES) % len(HOURS)]}"
            if index >= len(PLACES) * len(HOURS):
                title += f", {index + 1}"
            name = f"{index + 1:03}.png"
            (images / name).write_bytes(picture(index))
            text = f"The view of {place}, drawn by hills that are sines."
            link = f"https://example.com/views/{index + 1}"
            rows.writerow([title, text, BOARDS[index % len(BOARDS)], link, f"images/{name}"])
    return table
