"""What calls of language models have in common, whoever serves them: how a call can fail (lazy public names)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator_adapters.llm._errors import (
        Blocked,
        InvalidAnswer,
        ModelError,
        QuotaExhausted,
        Refused,
        Throttled,
        Unavailable,
    )

__all__ = ("Blocked", "InvalidAnswer", "ModelError", "QuotaExhausted", "Refused", "Throttled", "Unavailable")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'orchestrator_adapters.llm' has no attribute {name!r}")
    from orchestrator_adapters.llm import _errors

    return getattr(_errors, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
