"""Find a pin on the site again: by its JSON answer or its search page, patiently, and sure of a no."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from orchestrator_adapters.publisher._errors import LookupFailed, RateLimited, SiteFailed, SiteUnreachable
from orchestrator_adapters.publisher._form import goto, raise_for_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from playwright.sync_api import Page

    from orchestrator_adapters.publisher._profile import Profile

# A site that is restarted is back by then; a pin of which nobody can say whether it is there costs a person's time.
PATIENCE = 60.0
# What was on its way to the site when its sender died is stored by then, or never.
SETTLE = 2.0
_HERE = ("127.0.0.1", "localhost", "::1")
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 3.0


class Lookup(Protocol):
    """Asks the site for the ids of a pin."""

    def ids(self, pin: Mapping[str, str]) -> list[str]:
        """Return the ids of what the site has of a pin, the first published first.

        Raises:
            SiteFailed: If the site does not answer as it should.
        """


def ask_api(profile: Profile, pin: Mapping[str, str]) -> list[str]:
    """Ask the JSON answer of a profile, without a browser."""
    url = _address(profile, "api", pin)
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    if profile.proxy is not None:
        proxy = urllib.request.ProxyHandler({"http": profile.proxy, "https": profile.proxy})
    else:
        # As browsers do it: the proxy of the environment, but never for this machine.
        proxy = urllib.request.ProxyHandler({} if urlsplit(url).hostname in _HERE else None)
    opener = urllib.request.build_opener(proxy)
    try:
        with opener.open(request, timeout=profile.timeout) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            raise_for_status(error.code, error.headers.get("Retry-After", ""), profile)
            raise LookupFailed(f"[lookup] api: {url} answers with status {error.code}") from None
    except (OSError, ValueError) as error:
        raise SiteUnreachable(f"cannot reach {profile.url}: {getattr(error, 'reason', None) or error}") from None
    return _ids_of(text, profile, url)


class PageLookup:
    """Asks through a page, and so as who is logged in there and through its proxy.

    Args:
        page: A page of the sync API; one that is shown pins, if the profile looks at a page of them.
        profile: Of the site.
    """

    def __init__(self, page: Page, profile: Profile) -> None:
        self._page = page
        self._profile = profile

    def ids(self, pin: Mapping[str, str]) -> list[str]:
        """Return the ids of what the site has of a pin."""
        from playwright.sync_api import Error as PlaywrightError
        from playwright.sync_api import TimeoutError as TooLate

        profile = self._profile
        if profile.get("lookup", "page") is not None:
            return self._ids_on_page(pin)
        url = _address(profile, "api", pin)
        try:
            answer = self._page.context.request.get(url, timeout=profile.timeout * 1e3)
        except TooLate:
            raise SiteFailed(f"{url} did not answer within {profile.timeout:g} s") from None
        except PlaywrightError as error:
            if not any(word in error.message for word in ("ECONNREFUSED", "ECONNRESET", "socket hang up", "ENOTFOUND")):
                raise
            raise SiteUnreachable(f"cannot reach {profile.url}: {error.message.splitlines()[0]}") from None
        raise_for_status(answer.status, answer.headers.get("retry-after", ""), profile)
        if not answer.ok:
            raise LookupFailed(f"[lookup] api: {url} answers with status {answer.status}")
        return _ids_of(answer.body(), profile, url)

    def _ids_on_page(self, pin: Mapping[str, str]) -> list[str]:
        from playwright.sync_api import TimeoutError as NotThere

        page, profile = self._page, self._profile
        url = _address(profile, "page", pin)
        response = goto(page, url, profile.timeout)
        if response is not None and not response.ok:
            raise_for_status(response.status, response.headers.get("retry-after", ""), profile)
            raise LookupFailed(f"[lookup] page: {url} answers with status {response.status}")
        ready = profile.get("lookup", "ready")
        if ready is not None:
            try:
                page.locator(ready).first.wait_for(state="attached", timeout=profile.timeout * 1e3)
            except NotThere:
                raise LookupFailed(f"[lookup] ready = {ready!r}: not on {url}") from None
        found: list[str | None] = page.locator(profile.get("lookup", "element")).evaluate_all(
            "(elements, name) => elements.map(element => element.getAttribute(name))",
            profile.get("lookup", "attribute"),
        )
        return [str(each) for each in found if each]


def patiently(ask: Callable[[], list[str]], sleep: Callable[[float], object], patience: float = PATIENCE) -> list[str]:
    """Ask until the site answers.

    Raises:
        SiteFailed: If it does not within `patience` seconds.
    """
    deadline, pause = time.monotonic() + patience, _FIRST_PAUSE
    while True:
        try:
            return ask()
        except SiteFailed as error:
            wait = error.retry_after if isinstance(error, RateLimited) else pause
            if time.monotonic() + wait > deadline:
                raise
            sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)


def surely(
    ask: Callable[[], list[str]], settle: float, sleep: Callable[[float], object], patience: float = PATIENCE
) -> list[str]:
    """Ask whether a pin is there that may just be being published: no is believed only after `settle` seconds."""
    found = patiently(ask, sleep, patience)
    deadline, pause = time.monotonic() + settle, _FIRST_PAUSE
    while not found and (left := deadline - time.monotonic()) > 0:
        sleep(min(left, pause))
        pause = min(2 * pause, _LONGEST_PAUSE)
        found = patiently(ask, sleep, patience)
    return found


def _address(profile: Profile, way: str, pin: Mapping[str, str]) -> str:
    names = {name: pin.get(name, "") for name in ("mark", "title", "board", "link")}
    return profile.address(profile.get("lookup", way), **names)


def _ids_of(text: bytes, profile: Profile, url: str) -> list[str]:
    try:
        answer: Any = json.loads(text)
        items = profile.get("lookup", "items")
        rows = answer if items is None else answer[items]
        return [str(row[profile.get("lookup", "id")]) for row in rows]
    except (ValueError, KeyError, TypeError, IndexError):
        raise LookupFailed(f"[lookup] api: {url} does not answer as [lookup] items and id say: {text[:80]!r}") from None
