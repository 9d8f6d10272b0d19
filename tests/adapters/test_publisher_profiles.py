"""A profile says how a site takes pins: what is wrong in one is told with its file and its key."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from orchestrator_adapters.publisher import Profile, ProfileError, load_profile

LOCAL = load_profile("local")


def changed(section: str, key: str | None = None, value: Any = None) -> Profile:
    """Return the local profile with one value changed, or without it."""
    data: dict[str, Any] = copy.deepcopy(LOCAL.data)
    if key is None:
        data.pop(section) if value is None else data.update({section: value})
    elif value is None:
        data[section].pop(key)
    else:
        data.setdefault(section, {})[key] = value
    return Profile(data, "mine.toml")


def test_the_shipped_profile_is_found_by_its_name_and_by_its_path() -> None:
    assert LOCAL.url == "http://127.0.0.1:8123"
    assert LOCAL.variables == ("PIN_BOARD_USERNAME", "PIN_BOARD_PASSWORD")
    assert LOCAL.secrets == ("PIN_BOARD_PASSWORD",)
    assert load_profile("local.toml").data == LOCAL.data
    import orchestrator_adapters.publisher as package

    assert load_profile(Path(str(package.__file__)).parent / "profiles" / "local.toml").data == LOCAL.data


def test_addresses_hold_what_they_are_asked_for() -> None:
    assert LOCAL.address("/api/pins?mark={mark}", mark="a b&c=/") == (
        "http://127.0.0.1:8123/api/pins?mark=a%20b%26c%3D%2F"
    )
    below = LOCAL.with_site(url="https://pins.example/app/", proxy=None)
    assert below.address("/new") == "https://pins.example/app/new"
    assert below.address("https://api.pins.example/find") == "https://api.pins.example/find"
    assert below.proxy is None
    assert below.with_site(proxy="http://proxy:3128").proxy == "http://proxy:3128"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("form", "titel", "#t"), "[form] has 'titel', which is no key; did you mean 'title'?"),
        (("from", None, {"title": "#t"}), "has [from], which is no section; did you mean 'form'?"),
        (("form", "title"), "[form] title is missing: the selector of the field for the title"),
        (("verify",), "has no section [verify]"),
        (("form", "title", 3), "[form] title must be a string, not 3"),
        (("form", "title", " "), "[form] title is empty; it is the selector of the field for the title"),
        (("site", "url", "pins.example"), "[site] url must start with http:// or https:// and name a host"),
        (("site", "url", "http://"), "[site] url must start with"),
        (("site", "url", "http://host:port"), "[site] url must start with"),
        (("site", "timeout", True), "[site] timeout must be a number, not True"),
        (("site", "timeout", 0), "[site] timeout must be greater than 0"),
        (("lookup", "settle", -1), "[lookup] settle must be at least 0, not -1"),
        (("lookup", "login", "yes"), "[lookup] login must be true or false, not 'yes'"),
        (("login", "username_variable", "MY-NAME"), "[login] 'MY-NAME' is no name of an environment variable"),
        (("login", "password_variable"), "[login] password_variable is missing"),
        (("form", None, "x"), "[form] must be a table, not 'x'"),
        (("mark", "field", "board"), "[mark] field must be link or description, not 'board'"),
        (("mark", "parameter"), "[mark] parameter is missing"),
        (("mark", "parameter", "a&b"), "[mark] parameter must be letters"),
        (("mark", "field", "description"), "[mark] parameter is for field = 'link'"),
        (("mark",), "[lookup] api looks for {mark}, and there is no section [mark]"),
        (("form", "link"), "[mark] puts the mark into the link, and [form] has no link"),
        (("lookup", "page", "/search?q={mark}"), "[lookup] needs one of api and page"),
        (("lookup", "api"), "[lookup] needs one of api and page"),
        (("lookup", "id"), "[lookup] id is missing"),
        (("lookup", "ready", "#x"), "[lookup] ready has no meaning beside api"),
        (("lookup", "api", "/api/pins"), "[lookup] api must name {mark} or {title}, or it finds any pin"),
        (("lookup", "api", "/api?x={marc}"), "[lookup] api has {marc}; known is {board}, {link}, {mark}, {title}"),
        (("lookup", "api", "/api?x={mark"), "[lookup] api has an unfinished {…}"),
        (("verify", "page", "/pin/{key}"), "[verify] page has {key}; known is {id}"),
        (("rate", None, {"per": 60}), "[rate] pins is missing"),
        (("rate", None, {"pins": 0}), "[rate] pins and per must be greater than 0"),
    ],
)
def test_a_mistake_is_told_with_its_place(change: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(ProfileError) as caught:
        changed(*change)
    assert str(caught.value).startswith("mine.toml: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "there is no such profile"), (b"[site\n", "is not TOML"), (b"\xff\xfe", "is not TOML")],
)
def test_a_file_that_is_no_profile(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProfileError, match=problem) as caught:
        load_profile(path)
    assert str(caught.value).startswith(str(path))


def test_a_folder_is_no_profile(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path)


def test_a_profile_without_login_mark_and_lookup_will_do() -> None:
    data = {name: LOCAL.data[name] for name in ("site", "form", "verify")}
    profile = Profile(data)
    assert profile.variables == profile.secrets == ()
    assert not profile.finds_by_title
    by_title = Profile({**data, "lookup": {"api": "/api/pins?title={title}", "items": "pins", "id": "id"}})
    assert by_title.finds_by_title
