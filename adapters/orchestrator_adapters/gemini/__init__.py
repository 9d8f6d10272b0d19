"""Job code for the Gemini API: answers and embeddings, under the supervisor's limits and through its cache."""

from __future__ import annotations

from orchestrator_adapters.gemini import aio
from orchestrator_adapters.gemini._calls import embed, generate

__all__ = ("aio", "embed", "generate")
