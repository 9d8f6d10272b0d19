"""Which browser a job wants, and how a fresh context of it is set up."""

from __future__ import annotations

import difflib
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from orchestrator.exceptions import ConfigurationError

__all__ = ("BrowserOptions",)

Engine = Literal["chromium", "firefox", "webkit"]
Mode = Literal["launch", "persistent", "cdp"]
Dialogs = Literal["dismiss", "accept", "leave"]
Login = Literal["copy", "share", "none"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "engine": ("chromium", "firefox", "webkit"),
    "mode": ("launch", "persistent", "cdp"),
    "dialogs": ("dismiss", "accept", "leave"),
    "login": ("copy", "share", "none"),
}
# What `new_context` takes; when Playwright has more by now, it is asked.
_OF_CONTEXTS = frozenset(
    """
    base_url bypass_csp client_certificates color_scheme contrast device_scale_factor extra_http_headers forced_colors
    geolocation has_touch http_credentials ignore_https_errors is_mobile java_script_enabled locale no_viewport offline
    permissions record_har_content record_har_mode record_har_omit_content record_har_path record_har_url_filter
    record_video_dir record_video_size reduced_motion screen service_workers strict_selectors timezone_id user_agent
    viewport
    """.split()
)
# Of a context's options, those that have a place of their own here.
_ELSEWHERE = {"proxy": "proxy", "storage_state": "storage_state", "accept_downloads": "downloads"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserOptions:
    """Which browser a job wants, and how its context is set up.

    Args:
        engine: `"chromium"`, `"firefox"` or `"webkit"`; the last two only as Playwright installs them.
        executable: The browser's program. By default `ORCHESTRATOR_BROWSER` of the environment, else what Playwright
            installed, else `chromium`, `chromium-browser`, `google-chrome` or `google-chrome-stable` on PATH.
        channel: A branded browser that Playwright finds itself, such as `"chrome"` or `"msedge"`.
        headless: Whether to do without a window.
        args: Further arguments of the browser.
        mode: `"launch"` keeps one browser for the child's life and gives each job a fresh context of it;
            `"persistent"` opens the profile `user_data_dir` for the job and closes it after it; `"cdp"` attaches to
            the running browser at `endpoint`, which is never closed.
        endpoint: `http://127.0.0.1:9222` or `ws://…`, for `"cdp"`.
        login: For `"cdp"`, what the job's context knows of the running browser's: `"copy"` gives it a copy of cookies
            and local storage, so that the job is logged in and the browser's own cookies stay as they are; `"share"`
            opens a new tab in the browser's own context; `"none"` starts empty.
        user_data_dir: The profile's folder, for `"persistent"`. One browser at a time may have it open.
        proxy: `"http://user:password@host:port"`, or a mapping with `server` and, if need be, `username`, `password`
            and `bypass`.
        context: Further options of `browser.new_context`, as JSON values: `{"locale": "de-DE"}`.
        storage_state: The login that the context starts with: the name under which `save_state` kept it, or the path
            of a file.
        states: Folder of named states.
        downloads: Whether what the job downloads is kept, as artefacts.
        dialogs: What happens to `alert`, `confirm` and `prompt`: `"dismiss"` or `"accept"` them, or `"leave"` them
            open for the job to handle.
        recycle_after: The browser is replaced after so many jobs,
        recycle_age: … or so many seconds,
        recycle_memory: … or when it has so many megabytes; each between two jobs.
        sandbox: Whether Chromium's sandbox is used; by default unless the child runs as root, which Chromium refuses.
        launch_timeout: Seconds that a browser may take to start, or a running one to answer.
    """

    engine: Engine = "chromium"
    executable: str | os.PathLike[str] | None = None
    channel: str | None = None
    headless: bool = True
    args: Sequence[str] = ()
    mode: Mode = "launch"
    endpoint: str | None = None
    login: Login = "copy"
    user_data_dir: str | os.PathLike[str] | None = None
    proxy: str | Mapping[str, str] | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    storage_state: str | os.PathLike[str] | None = None
    states: str | os.PathLike[str] = "states"
    downloads: bool = True
    dialogs: Dialogs = "dismiss"
    # A browser that serves for ever grows and slows down; one start in 200 jobs costs a thousandth of their time.
    recycle_after: int = 200
    recycle_age: float = 1800.0
    recycle_memory: float = 1500.0
    sandbox: bool | None = None
    # Twenty times what a start takes on a machine that does nothing else.
    launch_timeout: float = 60.0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise _wrong(name, f"must be {', '.join(choices[:-1])} or {choices[-1]}, not {getattr(self, name)!r}")
        for name in ("executable", "user_data_dir", "states"):
            path = getattr(self, name)
            if path is not None:
                _check_text(name, path)
                # Absolute, for the child may be in another folder; a bare name of a program is looked up on PATH.
                if name != "executable" or os.path.dirname(os.fspath(path)):
                    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
                object.__setattr__(self, name, os.fspath(path))
        if isinstance(self.args, str) or any(not isinstance(each, str) for each in self.args):
            raise _wrong("args", "must be a list of strings")
        object.__setattr__(self, "args", tuple(self.args))
        self._check_mode()
        if self.proxy is not None:
            object.__setattr__(self, "proxy", _proxy(self.proxy))
        self._check_context()
        if self.storage_state is not None:
            object.__setattr__(self, "storage_state", _state(self.storage_state))
        for name in ("recycle_after", "recycle_age", "recycle_memory", "launch_timeout"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
                raise _wrong(name, f"must be a number greater than 0, not {number!r}")

    def _check_mode(self) -> None:
        for mode, name in (("cdp", "endpoint"), ("persistent", "user_data_dir")):
            given = getattr(self, name) is not None
            if given != (self.mode == mode):
                needs = f"is needed for mode={mode!r}" if not given else f"is for mode={mode!r}, not {self.mode!r}"
                raise _wrong(name, needs)
        if self.endpoint is not None and urlsplit(self.endpoint).scheme not in ("http", "https", "ws", "wss"):
            raise _wrong("endpoint", f"must be an http:// or ws:// address, not {self.endpoint!r}")
        if self.mode == "cdp" and self.engine != "chromium":
            raise _wrong("engine", f"only chromium can be attached to, not {self.engine}")
        if self.login == "share" and (self.storage_state is not None or self.proxy is not None or self.context):
            problem = (
                "'share' uses the browser's own context, which cannot get a storage_state, proxy or context options"
            )
            raise _wrong("login", problem)
        if self.mode == "persistent" and self.storage_state is not None:
            raise _wrong("storage_state", "a persistent profile has a login of its own")

    def _check_context(self) -> None:
        if not isinstance(self.context, Mapping) or any(not isinstance(key, str) for key in self.context):
            raise _wrong("context", "must be a mapping with strings as keys")
        for name, place in _ELSEWHERE.items():
            if name in self.context:
                raise _wrong(f"context.{name}", f"is given as BrowserOptions({place}=…)")
        for name, value in self.context.items():
            if name not in _OF_CONTEXTS and not _is_newer(name):
                raise _wrong(f"context.{name}", f"is no option of new_context{_like(name)}")
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise _wrong(f"context.{name}", f"must be a JSON value: {error}") from None
        object.__setattr__(self, "context", dict(self.context))

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, as JSON values."""
        plain = asdict(self)
        plain["args"] = list(self.args)
        usual = asdict(_USUAL)
        usual["args"] = []
        return {name: value for name, value in plain.items() if value != usual[name] or name == "states"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BrowserOptions:
        """Return the options that `to_json` gave."""
        return cls(**values)

    def launch_key(self) -> str:
        """Return what two jobs must have in common to share a browser."""
        return json.dumps(
            [
                self.mode,
                self.engine,
                self.executable,
                self.channel,
                self.headless,
                list(self.args),
                self.endpoint,
                self.sandbox,
            ]
        )


def _wrong(name: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"browser.{name}", problem)


def _is_newer(name: str) -> bool:
    """Return whether the Playwright that is installed knows an option that was not there when this was written."""
    try:
        from playwright.sync_api import Browser
    except ImportError:
        return False
    return name in inspect.signature(Browser.new_context).parameters and name != "self"


def _like(name: str) -> str:
    near = difflib.get_close_matches(name, _OF_CONTEXTS, n=1)
    return f"; do you mean {near[0]!r}?" if near else ""


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise _wrong(name, f"must be a path, not {value!r}")


def _state(value: str | os.PathLike[str]) -> str:
    """Return a name as it is, and a path as an absolute one."""
    _check_text("storage_state", value)
    text = os.fspath(value)
    if isinstance(value, str) and not os.path.dirname(text) and not text.endswith(".json"):
        return text
    return os.path.abspath(os.path.expanduser(text))


def _proxy(value: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(value, Mapping):
        unknown = set(value) - {"server", "username", "password", "bypass"}
        if unknown or "server" not in value or any(not isinstance(each, str) for each in value.values()):
            raise _wrong("proxy", "must have the strings server and, if need be, username, password and bypass")
        return dict(value)
    if not isinstance(value, str):
        raise _wrong("proxy", f"must be an address or a mapping, not {type(value).__name__}")
    address = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _wrong("proxy", f"{error}") from None
    if not host or parts.scheme not in ("http", "https", "socks4", "socks5"):
        raise _wrong("proxy", "must be an address such as http://host:3128 or socks5://host:1080")
    place = f"[{host}]" if ":" in host else host
    found = {"server": f"{parts.scheme}://{place}" + (f":{port}" if port else "")}
    if parts.username is not None:
        found["username"] = unquote(parts.username)
        found["password"] = unquote(parts.password or "")
    return found


_USUAL = BrowserOptions()
