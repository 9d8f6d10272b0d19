"""A pin is a job: published once whatever dies, whatever answer is lost; every outcome says what really is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from orchestrator_adapters.publisher import Pin, Profile, publish_job
from pin_boards import PASSWORD, PinBoard
from pin_tables import ACCOUNT, children_of, each_once, make_pins, process_of, profile_of

from orchestrator import Job, Limit, RetryPolicy, Supervisor, callback

pytestmark = pytest.mark.usefixtures("browser_path")


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def board() -> Iterator[PinBoard]:
    with PinBoard() as made:
        yield made


def opened(profile: Profile, **options: Any) -> Supervisor:
    limits = [Limit("publish", concurrency=4)]
    return Supervisor(**{"workers": 1, "secrets": profile.secrets, "limits": limits, **options})


def values(outcomes: list[Any]) -> list[Any]:
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    return [outcome.value for outcome in outcomes]


async def test_pins_are_published_found_and_rehearsed(board: PinBoard, tmp_path: Path) -> None:
    profile = profile_of(board)
    pins = make_pins(tmp_path, 3)
    async with opened(profile, workers=2) as supervisor:
        rehearsed = await supervisor.run(publish_job(pins[0], profile, dry_run=True))
        assert rehearsed == {"status": "rehearsed", "id": None, "url": None}
        assert board.pins() == []
        async with supervisor.map(publish_job(pin, profile, limit="publish") for pin in pins) as outcomes:
            found = {outcome.key: outcome.value async for outcome in outcomes}
        again = await supervisor.run(publish_job(pins[1], profile))
        rehearsed = await supervisor.run(publish_job(pins[1], profile, dry_run=True))
    ids = each_once(board, pins)
    assert found == {key: {"status": "published", "id": ids[key], "url": f"{board.url}/pin/{ids[key]}"} for key in ids}
    assert again["status"] == rehearsed["status"] == "found"
    assert again["id"] == ids[pins[1].key]
    assert board.stats()["logins"] <= 2, "a child logs in once, not for every pin"


async def test_lost_answers_and_errors_of_the_site_are_seen_through(board: PinBoard, tmp_path: Path) -> None:
    profile = profile_of(board)
    pins = make_pins(tmp_path, 3)
    async with opened(profile) as supervisor:
        board.configure(lose_next=1)
        lost = await supervisor.run(publish_job(pins[0], profile))
        board.configure(fail_next=1)
        failed = await supervisor.run(publish_job(pins[1], profile))
        board.end_sessions()
        logged_out = await supervisor.run(publish_job(pins[2], profile))
    ids = each_once(board, pins)
    assert [each["status"] for each in (lost, failed, logged_out)] == ["published"] * 3
    assert [each["id"] for each in (lost, failed, logged_out)] == [ids[pin.key] for pin in pins]
    counted = board.stats()
    assert (counted["lost_answers"], counted["errors"], counted["logins"]) == (1, 2, 2)


@pytest.mark.parametrize(
    ("held", "victim"),
    [
        ("after", "child"),
        pytest.param("before", "child", marks=pytest.mark.browser),
        pytest.param("after", "browser", marks=pytest.mark.browser),
        pytest.param("before", "browser", marks=pytest.mark.browser),
        pytest.param("after", "driver", marks=pytest.mark.browser),
        pytest.param("after", "page", marks=pytest.mark.browser),
    ],
)
async def test_what_dies_while_the_answer_is_awaited(board: PinBoard, tmp_path: Path, held: str, victim: str) -> None:
    profile = profile_of(board)
    pins = make_pins(tmp_path, 2)
    board.configure(hold=held)
    async with opened(profile) as supervisor:
        handle = await supervisor.submit(publish_job(pins[0], profile))
        await asyncio.to_thread(board.wait_until_held)
        (child,) = children_of(supervisor)
        process = process_of(child, victim)
        assert process is not None
        process.kill()
        board.configure(hold=None)
        outcome = await handle.outcome()
        following = await (await supervisor.submit(publish_job(pins[1], profile))).outcome()
    first, second = values([outcome, following])
    ids = each_once(board, pins)
    assert (first["id"], second["id"]) == (ids[pins[0].key], ids[pins[1].key])
    assert first["status"] == second["status"] == "published"
    # The process of a page may be one that the browser keeps for the next page.
    assert outcome.attempts == 2 or (victim == "page" and outcome.attempts == 1)


@pytest.mark.browser
async def test_a_search_page_tells_too_where_there_is_no_api(board: PinBoard, tmp_path: Path) -> None:
    data = profile_of(board).data
    look = {"page": "/search?q={mark}", "element": "[data-pin]", "attribute": "data-pin", "ready": "main h1"}
    profile = Profile({**data, "lookup": look})
    (pin,) = make_pins(tmp_path, 1)
    board.configure(hold="after")
    async with opened(profile) as supervisor:
        handle = await supervisor.submit(publish_job(pin, profile))
        await asyncio.to_thread(board.wait_until_held)
        (child,) = children_of(supervisor)
        child.kill()
        board.configure(hold=None)
        outcome = await handle.outcome()
    (value,) = values([outcome])
    assert value["id"] == each_once(board, [pin])[pin.key]


@pytest.mark.browser
async def test_without_a_lookup_nobody_knows_and_nobody_tries_again(board: PinBoard, tmp_path: Path) -> None:
    data = {name: section for name, section in profile_of(board).data.items() if name != "lookup"}
    profile = Profile(data)
    pins = make_pins(tmp_path, 2)
    async with opened(profile) as supervisor:
        fine = await (await supervisor.submit(publish_job(pins[0], profile))).outcome()
        board.configure(lose_next=1)
        lost = await (await supervisor.submit(publish_job(pins[1], profile))).outcome()
    assert fine.value["status"] == "published"
    assert lost.status == "indeterminate"
    assert "answers with status 500" in str(lost.error)
    assert len(board.pins()) == 2, "the second one once"


async def test_refusals_are_errors_of_that_pin_alone(board: PinBoard, tmp_path: Path) -> None:
    profile = profile_of(board)
    (good,) = make_pins(tmp_path, 1)
    link, image = good.link, good.image_path
    bad = [
        Pin("x" * 101, board="Gardens", link=link, image=image),
        Pin("Nowhere", board="Nowhere", link=link, image=image),
        Pin("Gone", board="Gardens", link=link, image=str(tmp_path / "gone.png")),
    ]
    async with opened(profile) as supervisor:
        handles = [await supervisor.submit(publish_job(pin, profile)) for pin in (*bad, good)]
        outcomes = [await handle.outcome() for handle in handles]
    assert [outcome.failure_class for outcome in outcomes] == ["refused", "board", "image", None]
    assert [outcome.attempts for outcome in outcomes] == [1, 1, 1, 1]
    told = [str(outcome.error) for outcome in outcomes[:3]]
    assert "A title has at most 100 characters" in told[0]
    assert "there is no board 'Nowhere'; there are Gardens, Kitchens, Reading, Travel, Workshops" in told[1]
    assert "gone.png' is not there" in told[2]
    each_once(board, [good])


@pytest.mark.browser
async def test_a_duplicate_that_is_ours_is_published_and_another_is_refused(tmp_path: Path) -> None:
    first, second = make_pins(tmp_path, 2)
    same = Pin(first.title, "other words", first.board, "https://elsewhere.example", first.image_path)
    with PinBoard(duplicates="refuse") as board:
        profile = profile_of(board)
        async with opened(profile) as supervisor:
            outcomes = [
                await (await supervisor.submit(publish_job(pin, profile))).outcome() for pin in (first, same, second)
            ]
        assert [str(outcome.status) for outcome in outcomes] == ["succeeded", "failed", "succeeded"]
        assert outcomes[1].failure_class == "refused"
        assert "There is a pin with this title and picture already" in str(outcomes[1].error)
        each_once(board, [first, second])


async def test_a_site_that_wants_to_be_left_alone_pauses_every_child(board: PinBoard, tmp_path: Path) -> None:
    profile = profile_of(board)
    pins = make_pins(tmp_path, 4)
    board.configure(limit_next=3)
    async with opened(profile, workers=2) as supervisor:
        async with supervisor.map(publish_job(pin, profile, limit="publish") for pin in pins) as outcomes:
            found = [outcome async for outcome in outcomes]
        (limit,) = supervisor.statistics().limits
    assert {value["status"] for value in values(found)} == {"published"}
    assert {outcome.attempts for outcome in found} == {1}
    each_once(board, pins)
    assert board.stats()["rate_limited"] == limit.throttled == 3


async def test_a_wrong_password_is_told_without_it(
    board: PinBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIN_BOARD_PASSWORD", f"not-{PASSWORD}")
    profile = profile_of(board)
    (pin,) = make_pins(tmp_path, 1)
    async with opened(profile) as supervisor:
        outcome = await (await supervisor.submit(publish_job(pin, profile))).outcome()
    assert outcome.failure_class == "login"
    assert "refuses the login of 'ada': Wrong user name or password." in str(outcome.error)
    assert outcome.attempts == 1
    assert PASSWORD not in str(outcome.error)


async def publish_by_the_class(board: PinBoard, pins: list[Pin], victim: str, **job: Any) -> Any:
    """Run the plain class as a job, and kill something of it while its first pin is being published."""
    profile = profile_of(board)
    calls: list[list[Any]] = []
    board.configure(hold="after")
    async with Supervisor(workers=1, params={"publisher": profile.data}) as supervisor:
        target = "orchestrator_adapters.publisher:Publisher.publish"
        rows = [pin.as_json() for pin in pins]
        kwargs = {"progress_callback": callback(lambda *call: calls.append(list(call)))}
        handle = await supervisor.submit(
            Job(target, init={"profile": profile.data}, args=(rows,), kwargs=kwargs, **job)
        )
        await asyncio.to_thread(board.wait_until_held)
        (child,) = children_of(supervisor)
        process = process_of(child, victim)
        assert process is not None
        process.kill()
        board.configure(hold=None)
        outcome = await handle.outcome()
    assert calls == [[number, len(pins), pin.title] for number, pin in enumerate(pins, 1)]
    (found,) = values([outcome])
    ids = each_once(board, pins)
    assert [(row["key"], row["title"], row["id"]) for row in found] == [
        (pin.key, pin.title, ids[pin.key]) for pin in pins
    ]
    assert {row["status"] for row in found} == {"published"}
    return outcome


async def test_the_plain_class_outlives_its_browser(board: PinBoard, tmp_path: Path) -> None:
    outcome = await publish_by_the_class(board, make_pins(tmp_path, 2), "browser")
    assert outcome.attempts == 1


@pytest.mark.browser
async def test_the_plain_class_is_reconciled_when_its_child_dies(board: PinBoard, tmp_path: Path) -> None:
    retry = RetryPolicy(attempts=3, on="crash", backoff=0.1)
    job: dict[str, Any] = {"effects": "external", "reconcile": "orchestrator_adapters.publisher:is_published"}
    outcome = await publish_by_the_class(board, make_pins(tmp_path, 2), "child", retry=retry, **job)
    assert outcome.attempts == 2
