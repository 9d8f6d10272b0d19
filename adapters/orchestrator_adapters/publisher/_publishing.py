"""Publish one pin on an open page: look first, bracket the button, and look again when the answer is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from orchestrator import child
from orchestrator_adapters.publisher._errors import FormChanged, PinRefused, RateLimited, SiteFailed, UnknownResult
from orchestrator_adapters.publisher._lookup import SETTLE, PageLookup, patiently, surely

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator_adapters.publisher._form import Form
    from orchestrator_adapters.publisher._profile import Profile

# How often one attempt asks a site that has errors, with these pauses: what lasts longer is for the retry policy.
_TRIES = 4
_FIRST_PAUSE = 0.3
_LONGEST_PAUSE = 3.0
# What no pin has.
_NOTHING = "0" * 16
# A site that wants to be left alone longer than this is left to whoever runs the job.
_LONGEST_REFUSAL = 600.0


def inspect(form: Form, profile: Profile) -> list[str] | None:
    """Look at all that publishing will need, once; returns the boards that the form offers.

    Raises:
        PublishError: If the site does not let us in, or is not what the profile says.
    """
    form.open()
    form.look_at_fields()
    boards = form.boards()
    if profile.has("lookup"):
        PageLookup(form.page, profile).ids(dict.fromkeys(("mark", "title", "board", "link"), _NOTHING))
    return boards


class Publication:
    """One pin on its way to the site.

    Args:
        form: Of the site, on a page.
        pin: What to publish, as `Pin.as_json` gives it.
        profile: Of the site.
        limit: Name of the supervisor's limit under which pins are published.
        again: An earlier browser died when the button was pressed: the pin may be being published at this moment.

    Attributes:
        pressed: The button may have been pressed.
    """

    def __init__(
        self,
        form: Form,
        pin: Mapping[str, str],
        profile: Profile,
        *,
        limit: str | None = None,
        again: bool = False,
    ) -> None:
        self._form = form
        self._pin = pin
        self._profile = profile
        self._limit = limit
        self._again = again
        self.pressed = False
        self._lookup = PageLookup(form.page, profile) if profile.has("lookup") else None

    def rehearse(self) -> dict[str, Any]:
        """Do everything but press the button.

        Raises:
            PublishError: If the pin could not be published.
        """
        if found := self._there():
            return self._result("found", found)
        self._trying(self._prepare)
        return self._result("rehearsed", None)

    def publish(self) -> dict[str, Any]:
        """Publish the pin, unless the site has it already.

        Raises:
            PublishError: If it is not published; with `SiteFailed` nobody knows.
        """
        if found := self._there():
            return self._found(found)
        effect = None
        tries, deadline = 0, time.monotonic() + _LONGEST_REFUSAL
        while True:
            tries += 1
            try:
                self._trying(self._prepare)
                if effect is None:
                    effect = child.effect_begin(self._pin["key"])
                    if effect.done:
                        return self._concluded(effect.ref)
                return self._done(self._press())
            except RateLimited as error:
                if effect is None or time.monotonic() + error.retry_after > deadline:
                    raise
                # Not published, that is certain; and how often others were in front of us says nothing.
                tries -= 1
                self._leave_alone(error)
            except PinRefused as error:
                if found := self._there():
                    return self._done(found)  # it is refused because it is there: the answer to it was lost
                # Concluded too: nobody need look it up to know that it was not published.
                child.effect_done(self._pin["key"], {"refused": str(error)})
                raise
            except SiteFailed as error:
                if effect is None:
                    raise  # the form did not come, with all patience
                if found := self._surely_there(error):
                    child.log(f"the answer was lost, and the pin is there: {error}", "warning")
                    return self._done(found)
                if tries == _TRIES:
                    raise
                child.log(f"not published, trying again: {error}", "warning")

    # Steps

    def _prepare(self) -> None:
        self._form.open()
        self._form.fill(self._pin)

    def _press(self) -> str:
        self.pressed = True
        if self._limit is None:
            return self._form.publish()
        # Left by RateLimited it pauses the limit, and so every child.
        with child.permit(self._limit):
            return self._form.publish()

    def _leave_alone(self, error: RateLimited) -> None:
        """Wait as long as the site wants: at the limit, where everybody waits, or here."""
        child.log(str(error), "warning")
        if self._limit is None:
            self._sleep(error.retry_after)

    def _trying(self, step: Callable[[], None]) -> None:
        """Do what may be done again and again, until the site has no error."""
        pause, deadline = _FIRST_PAUSE, time.monotonic() + _LONGEST_REFUSAL
        tries = 0
        while True:
            tries += 1
            try:
                return step()
            except RateLimited as error:
                if time.monotonic() + error.retry_after > deadline:
                    raise
                tries -= 1
                if self._limit is not None:
                    with child.permit(self._limit) as permit:
                        permit.throttled(error.retry_after)  # for everybody
                child.log(str(error), "warning")
                self._sleep(error.retry_after)
            except (SiteFailed, FormChanged) as error:
                # A page that lacks something may be one that came by halves; it had all the time to come whole.
                if tries == (_TRIES if isinstance(error, SiteFailed) else 2):
                    raise
                child.log(f"trying again: {error}", "warning")
                self._sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            # In the page, so that Playwright goes on with what else it does.
            self._form.page.wait_for_timeout(min(left, 1.0) * 1e3)

    def _there(self) -> str | None:
        """Return the id of the pin if the site has it."""
        if self._lookup is None:
            return None
        ids = self._look_surely() if self._again else patiently(self._ids, self._sleep)
        return ids[0] if ids else None

    def _look_surely(self) -> list[str]:
        return surely(self._ids, float(self._profile.get("lookup", "settle", SETTLE)), self._sleep)

    def _surely_there(self, error: SiteFailed) -> str | None:
        if self._lookup is None:
            raise UnknownResult(
                f"{error}; whether the pin was published, the profile has no [lookup] to see"
            ) from error
        ids = self._look_surely()
        return ids[0] if ids else None

    def _ids(self) -> list[str]:
        assert self._lookup is not None
        if self._profile.get("lookup", "login"):
            self._form.open()
        return self._lookup.ids(self._pin)

    def _done(self, found: str) -> dict[str, Any]:
        child.effect_done(self._pin["key"], {"id": found})
        return self._result("published", found)

    def _found(self, found: str) -> dict[str, Any]:
        """Return that the site has the pin: of this very job, if an earlier attempt had pressed the button."""
        if child.effect_begin(self._pin["key"]).done:
            return self._result("published", found)
        if self._again:
            return self._done(found)
        child.effect_done(self._pin["key"], {"id": found})
        return self._result("found", found)

    def _concluded(self, ref: Any) -> dict[str, Any]:
        """Return, or raise, what an earlier attempt of this job came to."""
        known = ref if isinstance(ref, dict) else {}
        if "refused" in known:
            raise PinRefused(known["refused"])
        found = known.get("id") or self._there()
        return self._result("published", found)

    def _result(self, status: str, found: str | None) -> dict[str, Any]:
        page = self._profile.get("verify", "page")
        url = self._profile.address(page, id=found) if page is not None and found is not None else None
        return {"status": status, "id": found, "url": url}
