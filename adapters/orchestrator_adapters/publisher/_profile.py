"""How a site takes pins, as a profile file says it: addresses, selectors, and how a pin is found again."""

from __future__ import annotations

import difflib
import os
import re
import string
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from orchestrator_adapters.publisher._errors import ProfileError

# Profiles that come with the package, by name.
SHIPPED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "profiles")
_KINDS = {str: "a string", float: "a number", bool: "true or false"}


class _Key:
    """What one key of a profile may be.

    Args:
        kind: `str`, `float` or `bool`.
        what: What it is, for who left it out.
        required: Whether its section needs it.
    """

    def __init__(self, kind: type, what: str, *, required: bool = False) -> None:
        self.kind = kind
        self.what = what
        self.required = required


def _selector(what: str, *, required: bool = False) -> _Key:
    return _Key(str, f"the selector of {what}", required=required)


_KEYS: dict[str, dict[str, _Key]] = {
    "site": {
        "url": _Key(str, "the address of the site, such as https://pins.example", required=True),
        "timeout": _Key(float, "seconds that the site has to show what is waited for"),
        "proxy": _Key(str, "the proxy through which the site is reached, http://user:password@host:port"),
    },
    "login": {
        "username": _selector("the field for the user name", required=True),
        "password": _selector("the field for the password", required=True),
        "submit": _selector("the button that logs in", required=True),
        "error": _selector("what shows that the site refuses them"),
        "username_variable": _Key(str, "the environment variable that has the user name", required=True),
        "password_variable": _Key(str, "the environment variable that has the password", required=True),
    },
    "form": {
        "path": _Key(str, "the address of the form, such as /new", required=True),
        "title": _selector("the field for the title", required=True),
        "description": _selector("the field for the description"),
        "board": _selector("the list of boards, a <select>"),
        "link": _selector("the field for the link"),
        "image": _selector("the file input for the image"),
        "publish": _selector("the button that publishes", required=True),
        "error": _selector("what shows why the site does not take a pin"),
    },
    "verify": {
        "element": _selector("what only the page of a published pin has", required=True),
        "attribute": _Key(str, "the attribute of that element which has the pin's id", required=True),
        "page": _Key(str, "the address of a published pin, such as /pin/{id}"),
    },
    "mark": {
        "field": _Key(str, "where the mark of a pin is put: link or description", required=True),
        "parameter": _Key(str, "the name of the query parameter of the link that has the mark"),
    },
    "lookup": {
        "api": _Key(str, "the address of a JSON answer that lists pins, such as /api/pins?mark={mark}"),
        "items": _Key(str, "the key of the list in that answer"),
        "id": _Key(str, "the key of the pin's id in each item"),
        "page": _Key(str, "the address of a page that lists pins, such as /search?q={mark}"),
        "element": _selector("each pin on that page"),
        "attribute": _Key(str, "the attribute of those elements which has the pin's id"),
        "ready": _selector("what that page has when it is complete, also with no pin on it"),
        "login": _Key(bool, "whether only those who are logged in may look"),
        "settle": _Key(float, "seconds until a pin that was just published is listed"),
    },
    "rate": {
        "pins": _Key(float, "so many pins may be published in `per` seconds", required=True),
        "per": _Key(float, "seconds"),
    },
}
_REQUIRED = ("site", "form", "verify")
_PLACES = ("link", "description")
_FIELDS = frozenset({"mark", "title", "board", "link"})


@dataclass(frozen=True)
class Profile:
    """A checked profile; made by `load_profile`, or of the same tables as a dictionary.

    Args:
        data: Sections and their keys, JSON values: what is handed to children.
        source: What messages call it.

    Raises:
        ProfileError: For the first thing that is wrong with it.
    """

    data: dict[str, dict[str, Any]]
    source: str = "profile"

    def __post_init__(self) -> None:
        for name in self.data:
            if name not in _KEYS:
                raise self._problem(f"has [{name}], which is no section{_closest(name, _KEYS)}")
        for name in _REQUIRED:
            if name not in self.data:
                raise self._problem(f"has no section [{name}]")
        for name, section in self.data.items():
            self._check_section(name, section)
        self._check_site()
        self._check_mark()
        self._check_lookup()
        self._check_template("verify", "page", frozenset({"id"}))
        if self.get("rate", "pins", 1.0) <= 0 or self.get("rate", "per", 1.0) <= 0:
            raise self._problem("[rate] pins and per must be greater than 0")

    def get(self, section: str, key: str, default: Any = None) -> Any:
        """Return a value of the profile, or the default."""
        return self.data.get(section, {}).get(key, default)

    def has(self, section: str) -> bool:
        """Return whether the profile has a section."""
        return section in self.data

    @property
    def url(self) -> str:
        """The address of the site."""
        return str(self.data["site"]["url"])

    @property
    def timeout(self) -> float:
        """Seconds that the site has to show what is waited for."""
        # Slow pages take ten; who waits longer than this would press the button once more.
        return float(self.get("site", "timeout", 30.0))

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the environment variables that have the user name and the password."""
        names = (self.get("login", "username_variable"), self.get("login", "password_variable"))
        return tuple(name for name in names if name is not None)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The one of them that nobody is to see: `Supervisor(secrets=profile.secrets)`."""
        return self.variables[1:]

    def address(self, path: str, **values: str) -> str:
        """Return the whole address of a path in which values stand for `{name}`."""
        for name, value in values.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return urljoin(self.url.rstrip("/") + "/", path.removeprefix("/") if "://" not in path else path)

    @property
    def proxy(self) -> str | None:
        """The proxy through which the site is reached."""
        found: str | None = self.get("site", "proxy")
        return found

    def with_site(self, **changes: str | None) -> Profile:
        """Return the same profile for a site at another `url`, or behind a `proxy`; None changes nothing."""
        given = {name: value for name, value in changes.items() if value is not None}
        return Profile({**self.data, "site": {**self.data["site"], **given}}, self.source)

    def _problem(self, text: str) -> ProfileError:
        return ProfileError(f"{self.source}: {text}")

    def _check_section(self, name: str, section: Any) -> None:
        if not isinstance(section, dict):
            raise self._problem(f"[{name}] must be a table, not {section!r:.80}")
        known = _KEYS[name]
        for key, value in section.items():
            if key not in known:
                raise self._problem(f"[{name}] has {key!r}, which is no key{_closest(key, known)}")
            kind = known[key].kind
            fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
            if not fits or (kind is not bool and isinstance(value, bool)):
                raise self._problem(f"[{name}] {key} must be {_KINDS[kind]}, not {value!r:.80}")
            if kind is str and not value.strip():
                raise self._problem(f"[{name}] {key} is empty; it is {known[key].what}")
            if kind is float and value < 0:
                raise self._problem(f"[{name}] {key} must be at least 0, not {value!r}")
        for key, wanted in known.items():
            if wanted.required and key not in section:
                raise self._problem(f"[{name}] {key} is missing: {wanted.what}")

    def _check_site(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable:
            raise self._problem(f"[site] url must start with http:// or https:// and name a host, not {self.url!r}")
        if self.timeout <= 0:
            raise self._problem("[site] timeout must be greater than 0")
        for name in self.variables:
            if not name.isidentifier():
                raise self._problem(f"[login] {name!r} is no name of an environment variable")

    def _check_mark(self) -> None:
        if not self.has("mark"):
            return
        field, parameter = self.get("mark", "field"), self.get("mark", "parameter")
        if field not in _PLACES:
            raise self._problem(f"[mark] field must be link or description, not {field!r}")
        if self.get("form", field) is None:
            raise self._problem(f"[mark] puts the mark into the {field}, and [form] has no {field}")
        if field == "link" and parameter is None:
            raise self._problem(f"[mark] parameter is missing: {_KEYS['mark']['parameter'].what}")
        if field != "link" and parameter is not None:
            raise self._problem("[mark] parameter is for field = 'link'")
        if parameter is not None and not re.fullmatch(r"[A-Za-z0-9_.~-]+", parameter):
            raise self._problem(f"[mark] parameter must be letters, digits, - and _, not {parameter!r}")

    def _check_lookup(self) -> None:
        if not self.has("lookup"):
            return
        ways = [way for way in ("api", "page") if self.get("lookup", way) is not None]
        if len(ways) != 1:
            raise self._problem("[lookup] needs one of api and page")
        (way,) = ways
        needed, others = (("id",), ("element", "attribute")) if way == "api" else (("element", "attribute"), ("id",))
        for key in needed:
            if self.get("lookup", key) is None:
                raise self._problem(f"[lookup] {key} is missing: {_KEYS['lookup'][key].what}")
        for key in (*others, *(("ready",) if way == "api" else ("items",))):
            if self.get("lookup", key) is not None:
                raise self._problem(f"[lookup] {key} has no meaning beside {way}")
        names = self._check_template("lookup", way, _FIELDS)
        if "mark" in names and not self.has("mark"):
            raise self._problem(f"[lookup] {way} looks for {{mark}}, and there is no section [mark] to say where it is")
        if not names & {"mark", "title"}:
            raise self._problem(f"[lookup] {way} must name {{mark}} or {{title}}, or it finds any pin")

    def _check_template(self, section: str, key: str, known: frozenset[str]) -> frozenset[str]:
        template = self.get(section, key)
        if template is None:
            return frozenset()
        try:
            names = frozenset(name for _, name, _, _ in string.Formatter().parse(template) if name is not None)
        except ValueError:
            raise self._problem(f"[{section}] {key} has an unfinished {{…}}: {template!r}") from None
        unknown = sorted(names - known)
        if unknown:
            choices = ", ".join(f"{{{name}}}" for name in sorted(known))
            raise self._problem(f"[{section}] {key} has {{{unknown[0]}}}; known is {choices}")
        return names

    @property
    def finds_by_title(self) -> bool:
        """Whether pins are found again by their titles, so that two pins must not have the same."""
        template = self.get("lookup", "api") or self.get("lookup", "page") or ""
        return self.has("lookup") and "{mark}" not in template


def load_profile(path: str | os.PathLike[str]) -> Profile:
    """Read a profile from a TOML file.

    Args:
        path: The file, or `local`, the name of the profile that comes with the package.

    Raises:
        ProfileError: If it cannot be read, or something is wrong in it: one sentence with the file and the key.
    """
    import tomllib

    name = os.fspath(path)
    file = name
    if not os.path.exists(file) and os.path.basename(name) == name:
        shipped = os.path.join(SHIPPED, name if name.endswith(".toml") else f"{name}.toml")
        file = shipped if os.path.exists(shipped) else name
    try:
        with open(file, "rb") as stream:
            data = tomllib.load(stream)
    except FileNotFoundError:
        raise ProfileError(f"{name}: there is no such profile; name a file, or local") from None
    except OSError as error:
        raise ProfileError(f"{name}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{name}: is not TOML: {error}") from None
    return Profile(data, name)


def _closest(name: str, known: dict[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
