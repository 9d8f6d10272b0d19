"""anyio imports its loop by name; loops of other packages come along only if the app imports them itself."""

from __future__ import annotations

hiddenimports = ["anyio._backends._asyncio"]
excludedimports = ["uvloop", "winloop", "trio", "pytest"]
