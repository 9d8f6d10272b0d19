"""msgspec's C code imports a module of its own; what it only knows how to encode comes with the app that uses it."""

from __future__ import annotations

hiddenimports = ["msgspec._utils"]
excludedimports = ["attrs", "attr", "yaml", "tomli", "tomli_w"]
