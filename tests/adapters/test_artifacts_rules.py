"""What is recorded and kept of an attempt, by Playwright Test's modes, and which old evidence goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestrator_adapters.playwright import ArtifactPolicy
from orchestrator_adapters.playwright._retention import MODES, Kept, keeps, outdated, pictures, records, too_much

from orchestrator.exceptions import ConfigurationError

# Of each mode: is attempt 1, 2, 3 recorded; is it kept when it fails; is it kept when it succeeds.
TABLE = {
    "off": ("...", "...", "..."),
    "on": ("123", "123", "123"),
    "retain-on-failure": ("123", "123", "..."),
    "on-first-retry": (".2.", ".2.", ".2."),
    "on-all-retries": (".23", ".23", ".23"),
    "retain-on-first-failure": ("1..", "1..", "..."),
    "retain-on-failure-and-retries": ("123", "123", ".23"),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_are_those_of_playwright_test(mode: str) -> None:
    recorded, failed, succeeded = TABLE[mode]
    for attempt in (1, 2, 3):
        assert records(mode, attempt) == (str(attempt) in recorded)
        assert keeps(mode, attempt, failed=True) == (str(attempt) in failed)
        assert keeps(mode, attempt, failed=False) == (str(attempt) in succeeded)


def test_pictures_are_taken_by_their_own_modes() -> None:
    assert not pictures("off", 1, failed=True)
    assert pictures("on", 1, failed=False)
    assert pictures("only-on-failure", 2, failed=True)
    assert not pictures("only-on-failure", 1, failed=False)
    assert pictures("on-first-failure", 1, failed=True)
    assert not pictures("on-first-failure", 2, failed=True)
    assert not pictures("on-first-failure", 1, failed=False)


def test_the_video_goes_first_then_the_trace_and_small_things_never() -> None:
    sizes = {"video": 60, "trace": 30, "rest": 20}
    assert too_much(sizes, 110) == []
    assert too_much(sizes, 100) == ["video"]
    assert too_much(sizes, 49) == ["video", "trace"]
    assert too_much(sizes, 1) == ["video", "trace"]
    assert too_much({"trace": 30, "rest": 20}, 25) == ["trace"]


def test_the_oldest_of_earlier_runs_goes_first_and_of_this_run_nothing() -> None:
    def kept(name: str, ended: float, *, spared: bool = False) -> Kept:
        return Kept(path=name, ended=ended, size=10, spared=spared)

    everything = [kept("new", 90), kept("mine", 1, spared=True), kept("old", 50), kept("older", 20)]
    assert outdated(everything, now=100, most=100, max_age=1000) == ([], 40)
    assert outdated(everything, now=100, most=25, max_age=1000) == (["older", "old"], 20)
    assert outdated(everything, now=100, most=100, max_age=60) == (["older"], 30)
    assert outdated(everything, now=100, most=1, max_age=1000) == (["older", "old", "new"], 10)


def test_the_default_keeps_evidence_of_failures_and_no_video() -> None:
    policy = ArtifactPolicy()
    assert (policy.trace, policy.screenshot, policy.console) == (
        "retain-on-failure",
        "only-on-failure",
        "retain-on-failure",
    )
    assert policy.video == "off"
    assert not policy.leaves_nothing


def test_short_forms() -> None:
    assert ArtifactPolicy.parse("off").leaves_nothing
    on = ArtifactPolicy.parse("on")
    assert (on.trace, on.screenshot, on.console, on.video) == ("on", "on", "on", "off")
    assert ArtifactPolicy.parse("on-first-retry") == ArtifactPolicy(trace="on-first-retry")
    policy = ArtifactPolicy(video="on")
    assert ArtifactPolicy.parse(policy) is policy


def test_a_policy_survives_the_way_to_the_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    policy = ArtifactPolicy(folder="evidence", live=0.5, max_mb_per_job=3)
    options = policy.to_json()
    assert options["folder"] == str(tmp_path / "evidence")
    again = ArtifactPolicy.from_json({**options, "of_a_later_version": 1})
    assert again.to_json() == options


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"trace": "always"}, "artifacts.trace"),
        ({"video": "only-on-failure"}, "artifacts.video"),
        ({"screenshot": "retain-on-failure"}, "artifacts.screenshot"),
        ({"console": "on-first-retry"}, "artifacts.console"),
        ({"folder": ""}, "artifacts.folder"),
        ({"max_mb_per_job": 0}, "artifacts.max_mb_per_job"),
        ({"max_total_mb": float("inf")}, "artifacts.max_total_mb"),
        ({"max_age_days": True}, "artifacts.max_age_days"),
        ({"live": -1}, "artifacts.live"),
    ],
)
def test_mistakes_are_told_with_their_field(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ArtifactPolicy(**arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_an_unknown_short_form_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="retain-on-failure"):
        ArtifactPolicy.parse("sometimes")
