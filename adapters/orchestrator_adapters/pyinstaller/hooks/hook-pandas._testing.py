"""pandas has help for its own tests, which looks for pytest."""

from __future__ import annotations

excludedimports = ["pytest"]
