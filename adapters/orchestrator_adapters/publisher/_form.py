"""A site's pages through Playwright's sync API: log in, fill the form, publish, read the id of what was published."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator_adapters.publisher._errors import (
    FormChanged,
    LoginFailed,
    MissingImage,
    PinRefused,
    RateLimited,
    SiteFailed,
    SiteUnreachable,
    UnknownBoard,
)
from orchestrator_adapters.publisher._pins import marked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from playwright.sync_api import Locator, Page, Response

    from orchestrator_adapters.publisher._profile import Profile

# Between two looks at a page that has not answered: a person would not notice.
_LOOK = 100
# What a refusal that names no time is worth.
_DEFAULT_PAUSE = 5.0
# A list of boards that a script fills comes right behind the list.
_LATE_OPTIONS = 3.0
_NAMES = "options => options.filter(o => o.value !== '').map(o => o.textContent.trim())"
# The page that says why comes right behind its status.
_PAGE_OF_REFUSAL = 5.0
_REFUSED = 400
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
# Text of a page that goes into a message.
_MOST_TEXT = 300
_INTERRUPTED = "interrupted by another navigation"
# So often a page may be on its way elsewhere when it is to go somewhere.
_ATTEMPTS = 5
# What Chromium says when it could not reach the site itself; a proxy's troubles are the browser's own errors.
_UNREACHABLE = (
    "ERR_CONNECTION_REFUSED",
    "ERR_CONNECTION_RESET",
    "ERR_CONNECTION_CLOSED",
    "ERR_CONNECTION_TIMED_OUT",
    "ERR_ADDRESS_UNREACHABLE",
    "ERR_NAME_NOT_RESOLVED",
    "ERR_INTERNET_DISCONNECTED",
    "ERR_NETWORK_CHANGED",
    "ERR_EMPTY_RESPONSE",
    "ERR_TIMED_OUT",
)


class Form:
    """The form of a site on one page.

    Args:
        page: A page of the sync API.
        profile: Of the site.
        username: Who logs in; by default what the profile's environment variable has.
        password: As for the user name.

    Attributes:
        page: The page.
        logged_in: The cookies of a login that was made here.
    """

    def __init__(
        self, page: Page, profile: Profile, *, username: str | None = None, password: str | None = None
    ) -> None:
        self.page = page
        self._profile = profile
        self._username = username
        self._password = password
        self._answers: list[tuple[int, str]] = []
        self.logged_in: list[Any] | None = None
        page.on("response", self._answered)

    def close(self) -> None:
        """Listen to the page no more."""
        self.page.remove_listener("response", self._answered)

    def _answered(self, response: Response) -> None:
        # Calls from here would wait for themselves; what is read here is known already.
        if response.status < _REFUSED:
            return
        request = response.request
        kind = request.resource_type
        # A page of its own, or what a script sent: not a picture or a counter that is missing.
        if (kind == "document" and request.is_navigation_request()) or (
            kind in ("xhr", "fetch") and request.method != "GET"
        ):
            self._answers.append((response.status, response.headers.get("retry-after", "")))

    def _selector(self, section: str, key: str) -> str | None:
        value: str | None = self._profile.get(section, key)
        return value

    def _one(self, section: str, key: str) -> Locator:
        return self.page.locator(str(self._profile.get(section, key))).first

    # Pages

    def open(self) -> None:
        """Open the form, and log in first if the site asks for that.

        Raises:
            PublishError: If the form does not come.
        """
        for attempt in (1, 2):
            self._go(self._profile.get("form", "path"))
            wanted = self._one("form", "title")
            if not self._profile.has("login"):
                self._appears(wanted, "form", "title")
                return
            login = self._one("login", "username")
            self._appears(wanted.or_(login).first, "form", "title")
            if not login.is_visible():
                return
            if attempt == 2:
                raise LoginFailed(f"{self._profile.url} asks to log in again after a login that it took")
            self._log_in()

    def _log_in(self) -> None:
        profile = self._profile
        username = self._username or os.environ.get(profile.get("login", "username_variable"), "")
        password = self._password or os.environ.get(profile.get("login", "password_variable"), "")
        if not username or not password:
            names = " and ".join(profile.variables)
            raise LoginFailed(f"{profile.url} asks to log in; set {names} in the environment")
        login = self._one("login", "username")
        self._fill("login", "username", username)
        self._fill("login", "password", password)
        self._answers.clear()
        self._click("login", "submit")
        deadline = time.monotonic() + profile.timeout
        while True:
            if self._selector("login", "error") is not None:
                text = self._shown("login", "error")
                self._raise_for_failures()  # a page of an error may look the same
                if text is not None:
                    raise LoginFailed(f"{profile.url} refuses the login of {username!r}: {text}")
            self._raise_for_failures()
            if self._answers:
                raise LoginFailed(f"{profile.url} refuses the login of {username!r}: {self._reason('login')}")
            # While a page gives way to the next one nothing is visible: only a page that has come says something.
            if not login.is_visible() and self._has_come() and not login.is_visible():
                self.logged_in = list(self.page.context.cookies(profile.url))
                return
            if time.monotonic() > deadline:
                raise SiteFailed(f"the login did not end within {profile.timeout:g} s")
            self.page.wait_for_timeout(_LOOK)

    def _has_come(self) -> bool:
        from playwright.sync_api import TimeoutError as TooLate

        try:
            self.page.wait_for_load_state("domcontentloaded", timeout=self._profile.timeout * 1e3)
        except TooLate:
            return False
        if self._selector("login", "error") is None:
            return True
        return not self._answers and self._shown("login", "error") is None

    def look_at_fields(self) -> None:
        """Wait for every field of the open form that the profile names.

        Raises:
            FormChanged: If one does not come.
        """
        for name in ("title", "description", "board", "link", "image", "publish"):
            if self._selector("form", name) is not None:
                self._appears(self._one("form", name), "form", name, state="attached")

    def boards(self, wanted: str | None = None) -> list[str] | None:
        """Return the names of the boards that the open form offers; None if it has no list of boards.

        Args:
            wanted: A board; by default any will do. A list that has it not, yet, is given a little time.
        """
        if self._selector("form", "board") is None:
            return None
        self._appears(self._one("form", "board"), "form", "board")
        options = self._one("form", "board").locator("option")
        deadline = time.monotonic() + min(self._profile.timeout, _LATE_OPTIONS)
        while True:
            names: list[str] = options.evaluate_all(_NAMES)
            if (names if wanted is None else wanted in names) or time.monotonic() > deadline:
                return names
            self.page.wait_for_timeout(_LOOK)

    def fill(self, pin: Mapping[str, str]) -> None:
        """Fill in a pin.

        Raises:
            PublishError: If there is no such board or no image, or a field does not come.
        """
        values = marked(pin, self._profile)
        for name in ("title", "description", "link"):
            if values[name]:
                self._fill("form", name, values[name])
        if values["board"]:
            self._choose(values["board"])
        if values["image"]:
            if not os.path.isfile(values["image"]):
                raise MissingImage(f"the image {values['image']!r} is not there")
            with self._in_time("form", "image"):
                self._one("form", "image").set_input_files(values["image"], timeout=self._profile.timeout * 1e3)

    def _choose(self, board: str) -> None:
        boards = self.boards(board) or []
        if board not in boards:
            known = ", ".join(boards[:10]) + (", …" if len(boards) > 10 else "")
            raise UnknownBoard(f"there is no board {board!r}; there {'are ' + known if boards else 'is none'}")
        with self._in_time("form", "board"):
            self._one("form", "board").select_option(label=board, timeout=self._profile.timeout * 1e3)

    def publish(self) -> str:
        """Press the button, and return the id of the pin that the site shows then.

        Raises:
            RateLimited: It was not published, for there are too many requests.
            PinRefused: The site says why it does not take the pin.
            SiteFailed: Nobody knows whether it was published.
        """
        profile = self._profile
        published = self._one("verify", "element")
        self._answers.clear()
        self._click("form", "publish")
        deadline = time.monotonic() + profile.timeout
        while True:
            if published.count():
                found = published.get_attribute(profile.get("verify", "attribute"))
                if not found:
                    raise FormChanged(
                        f"[verify] attribute: the page of the pin has no {profile.get('verify', 'attribute')}"
                    )
                return found
            text = None if self._selector("form", "error") is None else self._shown("form", "error")
            self._raise_for_failures()
            if text is not None:
                raise PinRefused(f"the site does not take the pin: {text}")
            if self._answers:
                raise PinRefused(f"the site does not take the pin: {self._reason('form')}")
            if time.monotonic() > deadline:
                raise SiteFailed(f"the site did not say within {profile.timeout:g} s that the pin is published")
            self.page.wait_for_timeout(_LOOK)

    # Steps

    def _go(self, path: str) -> None:
        url = self._profile.address(path)
        response = goto(self.page, url, self._profile.timeout)
        if response is not None and response.status >= _REFUSED:
            raise_for_status(response.status, response.headers.get("retry-after", ""), self._profile)
            raise FormChanged(f"{url} answers with status {response.status}")
        self._answers.clear()

    @contextlib.contextmanager
    def _in_time(self, section: str, key: str) -> Iterator[None]:
        """Turn a wait that was in vain into what is wrong with the page."""
        from playwright.sync_api import TimeoutError as NotThere

        try:
            yield
        except NotThere:
            self._raise_for_failures()
            where = f"[{section}] {key} = {self._selector(section, key)!r}"
            raise FormChanged(f"{where}: not on {self.page.url} within {self._profile.timeout:g} s") from None

    def _appears(self, wanted: Locator, section: str, key: str, *, state: Any = "visible") -> None:
        with self._in_time(section, key):
            wanted.wait_for(state=state, timeout=self._profile.timeout * 1e3)

    def _fill(self, section: str, key: str, value: str) -> None:
        with self._in_time(section, key):
            self._one(section, key).fill(value, timeout=self._profile.timeout * 1e3)

    def _click(self, section: str, key: str) -> None:
        with self._in_time(section, key):
            # Whether the next page comes is looked at by whoever pressed it.
            self._one(section, key).click(timeout=self._profile.timeout * 1e3, no_wait_after=True)

    def _shown(self, section: str, key: str) -> str | None:
        """Return the text of an element if it is shown."""
        found = self._one(section, key)
        if not found.is_visible():
            return None
        text = " ".join((found.text_content() or "").split())
        return text[:_MOST_TEXT]

    def _reason(self, section: str) -> str:
        """Return why the site refuses: what its page says when it has come, else the status."""
        if self._selector(section, "error") is not None:
            deadline = time.monotonic() + _PAGE_OF_REFUSAL
            while time.monotonic() < deadline:
                text = self._shown(section, "error")
                if text is not None:
                    return text
                self.page.wait_for_timeout(_LOOK)
        return f"it answers with status {self._answers[0][0]}"

    def _raise_for_failures(self) -> None:
        """Raise for answers since the last click by which the site says nothing of what was asked."""
        for status, after in self._answers:
            raise_for_status(status, after, self._profile)


def raise_for_status(status: int, retry_after: str, profile: Profile) -> None:
    """Raise for an answer that says nothing of what was asked: too many requests, or an error of the server."""
    if status == _TOO_MANY_REQUESTS:
        try:
            pause = max(0.0, float(retry_after))
        except ValueError:
            pause = _DEFAULT_PAUSE  # none, or a date
        raise RateLimited(f"{profile.url} answers that there are too many requests (retry after {pause:g} s)", pause)
    if status >= _SERVER_ERROR:
        raise SiteFailed(f"{profile.url} answers with status {status}")


def goto(page: Page, url: str, timeout: float) -> Response | None:
    """Go to an address, and return the answer.

    Raises:
        SiteUnreachable: If there is no connection.
        SiteFailed: If it does not come in time.
    """
    from playwright.sync_api import Error as PlaywrightError
    from playwright.sync_api import TimeoutError as TooLate

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return page.goto(url, wait_until="domcontentloaded", timeout=timeout * 1e3)
        except TooLate:
            raise SiteFailed(f"{url} did not come within {timeout:g} s") from None
        except PlaywrightError as error:
            if _INTERRUPTED in error.message and attempt < _ATTEMPTS:
                # The page before was still on its way elsewhere, if only to the same address: let it arrive.
                with contextlib.suppress(PlaywrightError):
                    page.wait_for_load_state("domcontentloaded", timeout=timeout * 1e3)
                continue
            why = next((name for name in _UNREACHABLE if name in error.message), None)
            if why is None:
                raise
            parts = urlsplit(url)
            words = why.removeprefix("ERR_").replace("_", " ").lower()
            raise SiteUnreachable(f"cannot reach {parts.scheme}://{parts.netloc}: {words}") from None
    return None
