"""What structlog uses if it is there is not put into an app for its sake."""

from __future__ import annotations

excludedimports = ["rich", "greenlet", "better_exceptions", "twisted", "zope"]
