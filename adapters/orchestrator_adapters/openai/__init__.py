"""Job code for OpenAI's API and those like it: answers and embeddings, under the supervisor's limits and its cache."""

from __future__ import annotations

from orchestrator_adapters.openai import aio
from orchestrator_adapters.openai._calls import embed, generate

__all__ = ("aio", "embed", "generate")
