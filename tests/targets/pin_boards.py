"""The local pin board of scripts/, for tests and for targets that children import."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.append(str(SCRIPTS))

from _pin_board import PASSWORD, USERNAME, PinBoard  # noqa: E402 - where it is was said above
from _pin_board_pictures import picture  # noqa: E402

__all__ = ("PASSWORD", "USERNAME", "PinBoard", "picture")
