"""Publish pins to a board through its web form, each one once: a plain class, jobs, and a command (lazy names)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator_adapters.publisher._errors import (
        FormChanged,
        LoginFailed,
        LookupFailed,
        MissingImage,
        PinRefused,
        PinsError,
        ProfileError,
        PublishError,
        RateLimited,
        SiteFailed,
        SiteUnreachable,
        UnknownBoard,
        UnknownResult,
    )
    from orchestrator_adapters.publisher._jobs import is_published, publish_job, publish_pin
    from orchestrator_adapters.publisher._pins import Pin, PinProblem, read_pins
    from orchestrator_adapters.publisher._profile import Profile, load_profile
    from orchestrator_adapters.publisher._publisher import Publisher

__all__ = (
    "FormChanged",
    "LoginFailed",
    "LookupFailed",
    "MissingImage",
    "Pin",
    "PinProblem",
    "PinRefused",
    "PinsError",
    "Profile",
    "ProfileError",
    "PublishError",
    "Publisher",
    "RateLimited",
    "SiteFailed",
    "SiteUnreachable",
    "UnknownBoard",
    "UnknownResult",
    "is_published",
    "load_profile",
    "publish_job",
    "publish_pin",
    "read_pins",
)

# A child that publishes needs no parser of tables, and `--help` of the command line no browser.
_HOMES = {
    **dict.fromkeys(("is_published", "publish_job", "publish_pin"), "_jobs"),
    **dict.fromkeys(("Pin", "PinProblem", "read_pins"), "_pins"),
    **dict.fromkeys(("Profile", "load_profile"), "_profile"),
    "Publisher": "_publisher",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'orchestrator_adapters.publisher' has no attribute {name!r}")
    from importlib import import_module

    home = _HOMES.get(name, "_errors")
    value = getattr(import_module(f"orchestrator_adapters.publisher.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
