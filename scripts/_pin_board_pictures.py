"""Pictures for pins, made on the spot: PNG files of hills under a sky, each number another one, always the same."""

from __future__ import annotations

import colorsys
import math
import random
import struct
import zlib

Colour = tuple[float, float, float]


def picture(number: int, width: int = 320, height: int = 400) -> bytes:
    """Return the picture of a number as a PNG file of a few kilobytes."""
    chance = random.Random(f"picture {number}")
    hue = (number * 0.618) % 1.0  # steps of the golden ratio: neighbours never look alike
    top, low = _colour(hue, 0.35, 1.0), _colour(hue + 0.12, 0.55, 0.9)
    sun = (chance.uniform(0.2, 0.8) * width, chance.uniform(0.15, 0.4) * height, chance.uniform(0.07, 0.13) * height)
    hills = [
        (
            height * (0.5 + 0.16 * layer + chance.uniform(-0.05, 0.05)),
            chance.uniform(0.04, 0.09) * height,
            chance.uniform(0.8, 2.2) * 2 * math.pi / width,
            chance.uniform(0, 6.3),
            bytes(_bytes(_colour(hue + 0.45 + 0.05 * layer, 0.35 + 0.12 * layer, 0.75 - 0.2 * layer))),
        )
        for layer in range(3)
    ]
    edges = [[base + lift * math.sin(step * x + shift) for x in range(width)] for base, lift, step, shift, _ in hills]
    bright = bytes(_bytes(_colour(hue + 0.1, 0.12, 1.0)))
    rows = bytearray()
    for y in range(height):
        share = y / height
        row = bytearray(bytes(_bytes(tuple(a + (b - a) * share for a, b in zip(top, low, strict=True)))) * width)
        half = sun[2] ** 2 - (y - sun[1]) ** 2
        if half > 0:
            left, right = max(0, int(sun[0] - half**0.5)), min(width, int(sun[0] + half**0.5))
            row[left * 3 : right * 3] = bright * (right - left)
        for edge, hill in zip(edges, hills, strict=True):
            if y < hill[0] - hill[1]:
                continue  # above its highest place
            if y >= hill[0] + hill[1]:
                row[:] = hill[4] * width  # below its lowest
                continue
            for x in range(width):
                if y >= edge[x]:
                    row[x * 3 : x * 3 + 3] = hill[4]
        rows += b"\0" + row
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(bytes(rows), 6)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _colour(hue: float, saturation: float, value: float) -> Colour:
    return colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), max(value, 0.0))


def _bytes(colour: tuple[float, ...]) -> list[int]:
    return [round(255 * part) for part in colour]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
