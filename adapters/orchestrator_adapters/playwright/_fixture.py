"""What a browser job's fixture names: gives the target its page, context or browser, by the kind of the target."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.child import Call
    from orchestrator_adapters.playwright._async_attempt import AsyncAttempt
    from orchestrator_adapters.playwright._sync_attempt import SyncAttempt


def fixture(call: Call) -> SyncAttempt | AsyncAttempt:
    """Return what stands around one attempt."""
    if call.is_async:
        from orchestrator_adapters.playwright._async_attempt import AsyncAttempt

        return AsyncAttempt(call)
    from orchestrator_adapters.playwright._sync_attempt import SyncAttempt

    return SyncAttempt(call)
