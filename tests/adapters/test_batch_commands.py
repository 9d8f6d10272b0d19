"""The pure parts of the batch's commands: which command goes on, how a run is told, whose secrets children get."""

from __future__ import annotations

import pytest
from orchestrator_adapters.batch import BatchError
from orchestrator_adapters.batch._batch import all_secrets
from orchestrator_adapters.batch._command import command_again
from orchestrator_adapters.batch._runs import RunState


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (["/bin/python", "/bin/orchestrator", "batch", "run", "--name", "a b"], "orchestrator batch run --name 'a b'"),
        (["python", "-m", "orchestrator", "batch", "run", "--fresh", "-i", "-"], "orchestrator batch run -i -"),
        (["python", "-m", "orchestrator", "batch", "run", "--name", "batch"], "orchestrator batch run --name batch"),
    ],
)
def test_the_command_that_goes_on_forgets_nothing(words: list[str], again: str) -> None:
    assert command_again(words) == again


def test_how_a_run_is_told() -> None:
    failed = {"crash": 1, "permanent": 2000}
    done = RunState(name="one", state="unfinished", total=10_000, succeeded=5000, failed=failed, command="go on")
    assert done.lines() == [
        "one: unfinished, 7,001/10,000 (70.0%) - 5,000 successful, 2,001 failed (1 crash, 2,000 permanent)",
        "  go on",
    ]
    assert (done.as_json()["pending"], done.as_json()["failed"]) == (2999, 2001)
    running = RunState(name="one", state="running", detail="in process 7")
    assert running.lines() == ["one: running in process 7, 0/? - 0 successful, 0 failed"]
    assert RunState(name="one", state="unreadable", detail="it is damaged").lines() == ["one: it is damaged"]


def test_secrets_of_the_call_and_of_the_params(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMED", "from the environment")
    assert all_secrets(["GIVEN", "NAMED"], ["NAMED"]) == ("NAMED", "GIVEN")
    assert all_secrets({"GIVEN": "x"}, ["NAMED"]) == {"NAMED": "from the environment", "GIVEN": "x"}
    assert all_secrets({"NAMED": "x"}, ["NAMED"]) == {"NAMED": "x"}
    assert all_secrets((), ()) == ()
    with pytest.raises(BatchError, match="MISSING_SECRET is not set"):
        all_secrets({"GIVEN": "x"}, ["MISSING_SECRET"])
