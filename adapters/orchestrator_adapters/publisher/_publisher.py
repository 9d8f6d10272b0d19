"""A publisher as a plain class that starts its own Playwright: for a command line, a script, or as a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator import child
from orchestrator_adapters.publisher._browser import OwnBrowser, is_gone
from orchestrator_adapters.publisher._errors import PublishError, SiteFailed, UnknownResult
from orchestrator_adapters.publisher._form import Form
from orchestrator_adapters.publisher._pins import row_of
from orchestrator_adapters.publisher._profile import Profile, load_profile
from orchestrator_adapters.publisher._publishing import Publication, inspect

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from orchestrator_adapters.publisher._pins import Pin

# A browser that dies more often than this over one pin dies of that pin.
_BROWSERS_PER_PIN = 3
# So many pins in a row that the site has only errors for, and it is not the pins.
_HOPELESS = 3


class Publisher:
    """Publishes pins on one site, one after the other, with a browser of its own.

    ```python
    publisher = Publisher("local", username="ada", password="…")
    publisher.publish([{"title": "A shed", "board": "Gardens", "link": "https://…", "image": "shed.jpg"}])
    ```

    As a job: `Job("orchestrator_adapters.publisher:Publisher.publish", init={"profile": "local"}, args=(pins,))`.

    Args:
        profile: Of the site: a file, the name of one that comes with the package, or what `load_profile` returned.
        username: Who logs in; by default what the profile's environment variable has.
        password: As for the user name.
        url: The address of the site, instead of the profile's.
        headless: Whether to do without a window.
        executable: The browser's program; found by itself if it is left out.
        proxy: `http://user:password@host:port`, instead of the profile's.
        user_data_dir: A browser profile to open, with the logins that it has.
        dry_run: Do everything but press the button.
        limit: As a job, name of a limit of the supervisor under which pins are published.

    Raises:
        ProfileError: If the profile cannot be used.
    """

    def __init__(
        self,
        profile: str | os.PathLike[str] | Profile | dict[str, Any],
        *,
        username: str | None = None,
        password: str | None = None,
        url: str | None = None,
        headless: bool = True,
        executable: str | None = None,
        proxy: str | None = None,
        user_data_dir: str | None = None,
        dry_run: bool = False,
        limit: str | None = None,
    ) -> None:
        if isinstance(profile, dict):
            profile = Profile(profile)
        elif not isinstance(profile, Profile):
            profile = load_profile(profile)
        self.profile = profile.with_site(url=url, proxy=proxy)
        self._username = username
        self._password = password
        self._dry_run = dry_run
        self._limit = limit
        self._browser = OwnBrowser(
            executable=executable, headless=headless, proxy=self.profile.proxy, user_data_dir=user_data_dir
        )

    def publish(
        self,
        pins: Iterable[Pin | Mapping[str, str]],
        progress_callback: Callable[[int, int, str], object] | None = None,
    ) -> list[dict[str, Any]]:
        """Publish pins, each one once, and return what became of each, in their order.

        A pin that the site has already, by its mark, is found and not published again.

        Args:
            pins: Pins, or mappings with `title` and, as far as the site wants them, `description`, `board`, `link`,
                `image` (a path) and `id`.
            progress_callback: Called after each pin with the number done, the number of all, and the pin's title.

        Returns:
            For each pin a dictionary with `key`, `title`, `status` (`published`, `found`, `rehearsed` or `failed`),
            `id`, `url`, and of a failed one `error` and `failure_class`.

        Raises:
            LoginFailed: If the site refuses the login; no pin could be published.
            SiteUnreachable: If the site cannot be reached.
            FormChanged: If its form is not what the profile says.
            LookupFailed: If it does not answer as the profile says when it is asked for a pin.
            LaunchFailed: If there is no browser.
        """
        rows = [row_of(pin) for pin in pins]
        results: list[dict[str, Any]] = []
        hopeless: str | None = None
        failures = 0
        with self._browser:
            self._check()
            for number, row in enumerate(rows, 1):
                if hopeless is None:
                    result = self._publish(row)
                else:
                    result = {"status": "failed", "id": None, "url": None, "error": hopeless, "failure_class": "site"}
                results.append({"key": row["key"], "title": row["title"], **result})
                failures = failures + 1 if result.get("failure_class") in ("site", "unreachable") else 0
                if failures >= _HOPELESS and hopeless is None:
                    hopeless = f"not tried, for the site has only errors: {result['error']}"
                child.progress(number, len(rows), row["title"])
                if progress_callback is not None:
                    progress_callback(number, len(rows), row["title"])
        return results

    def _check(self) -> None:
        form = self._form()
        try:
            inspect(form, self.profile)
        except SiteFailed as error:
            if error.failure_class == "unreachable":
                raise
            # It may be over soon; each pin has patience of its own.
        finally:
            form.close()

    def _form(self) -> Form:
        return Form(self._browser.page(), self.profile, username=self._username, password=self._password)

    def _publish(self, row: dict[str, str]) -> dict[str, Any]:
        """Publish one pin, with as many browsers as it takes."""
        pressed = False
        for attempt in range(1, _BROWSERS_PER_PIN + 1):
            form = self._form()
            publication = Publication(form, row, self.profile, limit=self._limit, again=pressed)
            try:
                try:
                    return publication.rehearse() if self._dry_run else publication.publish()
                finally:
                    form.close()
            except PublishError as error:
                return _failed(error)
            except Exception as error:
                if not is_gone(error):
                    raise
                self._browser.close()
                pressed = pressed or publication.pressed
                if publication.pressed and not self.profile.has("lookup"):
                    return _failed(UnknownResult("the browser died while the pin was being published"))
                if attempt == _BROWSERS_PER_PIN:
                    return _failed(PublishError(f"the browser died {attempt} times"))
        raise AssertionError("unreachable")


def _failed(error: PublishError) -> dict[str, Any]:
    return {
        "status": "failed",
        "id": None,
        "url": None,
        "error": str(error),
        "failure_class": error.failure_class,
    }
