"""A module whose import waits at a gate."""

from __future__ import annotations

import os

from standing import stand

stand(int(os.environ["IMPORT_GATE"]), "importing")

VALUE = 5


def value() -> int:
    return VALUE
