"""The same functions for async jobs: `await aio.generate(…)`."""

from __future__ import annotations

from orchestrator_adapters.openai._calls import embed_async as embed
from orchestrator_adapters.openai._calls import generate_async as generate

__all__ = ("embed", "generate")
