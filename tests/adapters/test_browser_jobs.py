"""What a BrowserJob and its options accept, refuse, and send to the child."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from orchestrator_adapters.playwright import ArtifactPolicy, BrowserJob, BrowserOptions
from orchestrator_adapters.playwright._first import first_parameter

from orchestrator import Fixture, Job
from orchestrator.exceptions import ConfigurationError, TargetError


def facts(page: Any, url: str) -> None:
    raise AssertionError("nobody calls this")


class Shop:
    def buy(self, context: Any, what: str) -> None:
        raise AssertionError("nobody calls this")


def test_job_is_a_job_that_replace_and_equality_know() -> None:
    job = BrowserJob(facts, args=("http://x",), timeout=5, key="k", browser=BrowserOptions(headless=False))
    assert isinstance(job, Job) and job.fixture is not None
    assert job.fixture.flavour == "sync-browser" and job.fixture.options["browser"]["headless"] is False
    other = dataclasses.replace(job, args=("http://y",))
    assert isinstance(other, BrowserJob) and other.args == ("http://y",) and other.fixture == job.fixture
    visible = dataclasses.replace(job, browser=None)
    assert visible.fixture is not None and "headless" not in visible.fixture.options["browser"]
    assert job == dataclasses.replace(other, args=job.args)


def test_what_is_sent_is_json_and_comes_back() -> None:
    options = BrowserOptions(
        mode="cdp",
        endpoint="http://127.0.0.1:9222",
        args=["--mute-audio"],
        proxy="http://ada:s%3Acret@[::1]:3128",
        context={"locale": "de-DE"},
        storage_state="ada",
        login="none",
    )
    sent = json.loads(json.dumps(options.to_json()))
    assert BrowserOptions.from_json(sent) == options
    assert sent["proxy"] == {"server": "http://[::1]:3128", "username": "ada", "password": "s:cret"}
    assert set(BrowserOptions().to_json()) == {"states"}


def test_paths_are_absolute_and_names_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = BrowserOptions(storage_state="login/ada.json", executable="chromium", states="kept")
    assert options.storage_state == str(tmp_path / "login" / "ada.json")
    assert (options.executable, options.states) == ("chromium", str(tmp_path / "kept"))
    assert BrowserOptions(storage_state="ada").storage_state == "ada"
    assert BrowserOptions(executable="./chrome").executable == str(tmp_path / "chrome")
    job = BrowserJob(facts)
    assert job.fixture is not None and job.fixture.options["folder"] == str(tmp_path / "artifacts")


def test_artifacts_are_off_unless_asked_for() -> None:
    assert "artifacts" not in _options(BrowserJob(facts))
    assert _options(BrowserJob(facts, artifacts="on"))["artifacts"]["trace"] == "on"
    policy = ArtifactPolicy(video="on")
    assert _options(BrowserJob(facts, artifacts=policy))["artifacts"] == policy.to_json()
    with pytest.raises(ConfigurationError, match="artifacts"):
        BrowserJob(facts, artifacts="sometimes")


def _options(job: BrowserJob) -> dict[str, Any]:
    assert job.fixture is not None
    return dict(job.fixture.options)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"mode": "cdp"}, "endpoint"),
        ({"endpoint": "http://127.0.0.1:1"}, "endpoint"),
        ({"mode": "cdp", "endpoint": "127.0.0.1:9222"}, "endpoint"),
        ({"mode": "cdp", "endpoint": "http://h:1", "engine": "firefox"}, "engine"),
        ({"mode": "cdp", "endpoint": "http://h:1", "login": "share", "proxy": "h:1"}, "login"),
        ({"mode": "persistent"}, "user_data_dir"),
        ({"user_data_dir": "p"}, "user_data_dir"),
        ({"mode": "persistent", "user_data_dir": "p", "storage_state": "ada"}, "storage_state"),
        ({"mode": "attach"}, "mode"),
        ({"engine": "chrome"}, "engine"),
        ({"dialogs": "ask"}, "dialogs"),
        ({"args": "--mute-audio"}, "args"),
        ({"proxy": "ftp://h"}, "proxy"),
        ({"proxy": {"username": "ada"}}, "proxy"),
        ({"proxy": 3128}, "proxy"),
        ({"proxy": "http://h:port"}, "proxy"),
        ({"context": {"proxy": {}}}, "context.proxy"),
        ({"context": {"locals": "de"}}, "context.locals"),
        ({"context": {"geolocation": {1, 2}}}, "context.geolocation"),
        ({"context": []}, "context"),
        ({"recycle_after": 0}, "recycle_after"),
        ({"launch_timeout": 0}, "launch_timeout"),
        ({"storage_state": ""}, "storage_state"),
        ({"executable": 3}, "executable"),
    ],
)
def test_wrong_options_name_their_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BrowserOptions(**options)
    assert caught.value.field == f"browser.{field}"


def test_a_near_miss_of_an_option_is_told() -> None:
    with pytest.raises(ConfigurationError, match="do you mean 'viewport'"):
        BrowserOptions(context={"viewprot": {"width": 1, "height": 1}})


@pytest.mark.parametrize("name", ["url", "self", "pages"])
def test_first_parameter_says_what_the_job_gets(name: str) -> None:
    function: Any = eval(f"lambda {name}: None")
    with pytest.raises(TargetError, match="name it page, context or browser"):
        BrowserJob(function)


def test_targets_without_a_place_for_the_page() -> None:
    for function in (lambda: None, lambda *, page: None, lambda **page: None):
        with pytest.raises(TargetError):
            BrowserJob(function)
    assert first_parameter(Shop().buy) == ("context", "")
    assert first_parameter(Shop.buy, skip=1) == ("context", "")
    assert BrowserJob("shop:Shop.buy", init={}).fixture is not None  # found out in the child


def test_a_profile_is_one_context() -> None:
    with pytest.raises(TargetError, match="take page or context"):
        BrowserJob(lambda browser: None, browser=BrowserOptions(mode="persistent", user_data_dir="p"))


def test_what_is_no_option_of_a_browser_job() -> None:
    with pytest.raises(ConfigurationError, match="brings its own"):
        BrowserJob(facts, fixture=Fixture("a.b:c"))
    with pytest.raises(ConfigurationError, match="BrowserOptions"):
        BrowserJob(facts, browser={"headless": True})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"job\.timeout"):
        BrowserJob(facts, timeout=0)


def test_two_jobs_share_a_browser_when_they_want_the_same() -> None:
    plain = BrowserOptions()
    assert plain.launch_key() == BrowserOptions(proxy="h:1", context={"locale": "de"}, storage_state="a").launch_key()
    for other in (BrowserOptions(headless=False), BrowserOptions(args=["-x"]), BrowserOptions(executable=os.sep + "x")):
        assert other.launch_key() != plain.launch_key()
