"""Why a pin was not published, as exceptions with a failure class, and what is wrong with a profile or a table.

```text
PublishError            publish           one pin; the others go on
├── LoginFailed         login             the site refuses the username or the password
├── FormChanged         form              the page is not what the profile says
├── UnknownBoard        board             there is no such board
├── MissingImage        image             the file is not there
├── PinRefused          refused           the site says why it does not take this pin
├── LookupFailed        lookup            the site does not answer as the profile's [lookup] says
├── UnknownResult       unknown           nobody can say whether the pin was published
└── SiteFailed          site              a server error, or no answer in time: worth another attempt
    ├── SiteUnreachable unreachable       no connection
    └── RateLimited     rate_limited      too many requests
```
"""

from __future__ import annotations

from orchestrator.exceptions import OrchestratorError


class ProfileError(OrchestratorError):
    """Raised for a profile that cannot be used; says which file and which key."""


class PinsError(OrchestratorError):
    """Raised for a table of pins that cannot be read at all; a bad row is no reason."""


class PublishError(Exception):
    """Raised when one pin was not published.

    Attributes:
        failure_class: What kind of reason it is, in one word: part of the outcome.
    """

    failure_class = "publish"


class LoginFailed(PublishError):
    """Raised when the site refuses the username or the password, or none is given."""

    failure_class = "login"


class FormChanged(PublishError):
    """Raised when a page does not have what the profile says."""

    failure_class = "form"


class UnknownBoard(PublishError):
    """Raised when the form offers no such board."""

    failure_class = "board"


class MissingImage(PublishError):
    """Raised when the image of a pin is not there, or cannot be read."""

    failure_class = "image"


class PinRefused(PublishError):
    """Raised when the site says that it does not take a pin."""

    failure_class = "refused"


class LookupFailed(PublishError):
    """Raised when the site does not answer as the profile's `[lookup]` says."""

    failure_class = "lookup"


class UnknownResult(PublishError):
    """Raised when nobody can say whether a pin was published."""

    failure_class = "unknown"


class SiteFailed(PublishError):
    """Raised for a server error, or when no answer came in time."""

    failure_class = "site"


class SiteUnreachable(SiteFailed):
    """Raised when no connection to the site can be made."""

    failure_class = "unreachable"


class RateLimited(SiteFailed):
    """Raised when the site answers that there are too many requests.

    Attributes:
        code: 429, the status: by it a permit sees that its limit has to pause.
        retry_after: Seconds for which the site wants to be left alone.
    """

    failure_class = "rate_limited"
    code = 429

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
