"""The publisher for tests that let a site hold it up for longer than Playwright waits by itself."""

from __future__ import annotations

from typing import Any

from pins.publisher import Publisher


class PatientPublisher(Publisher):
    def _log_in(self, page: Any) -> None:
        page.set_default_timeout(300_000)
        super()._log_in(page)
