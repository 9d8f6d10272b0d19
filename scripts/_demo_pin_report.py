"""What the demo shows of its pins at the end: whether each is on the board once, and a page with pictures of all."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from _demo_browser import BrowserKill
    from orchestrator_adapters.publisher import Pin

    from orchestrator import Outcome


@dataclass
class PinReport:
    """What came of the pins.

    Args:
        pins: What was to be published.
        outcomes: What came of each; a job's key is its pin's title.
        kill: What was done to one browser.
        url: Of the board, which serves still.
    """

    pins: Sequence[Pin]
    outcomes: Sequence[Outcome]
    kill: BrowserKill
    url: str
    figures: dict[str, int] = field(default_factory=dict)

    def checks(self) -> list[tuple[bool, str]]:
        """Ask the board what it has; returns what must hold, each with a sentence."""
        counted = self._ask("/api/stats")
        found = {pin.title: self._ask("/api/pins", mark=pin.mark)["pins"] for pin in self.pins}
        missing = [title for title, there in found.items() if not there]
        twice = [title for title, there in found.items() if len(there) > 1]
        strangers = counted["pins"] - sum(map(len, found.values()))
        once = not (missing or twice or strangers or counted["twice"])
        said = "each exactly once"
        if not once:
            said = f"{len(missing)} missing {missing[:3]}, {len(twice)} more than once {twice[:3]}, {strangers} unknown"
        checks = [(once, f"{len(self.pins)} pins in, {counted['pins']} on the board, {said}")]
        bad = [f"{outcome.key}: {outcome.status}" for outcome in self.outcomes if not outcome.succeeded]
        wrong = [
            outcome.key
            for outcome in self.outcomes
            if outcome.succeeded and [outcome.value["id"]] != [str(pin["id"]) for pin in found[str(outcome.key)]]
        ]
        right = not (bad or wrong) and len(self.outcomes) == len(self.pins)
        told = "every outcome names the pin that the board has"
        if not right:
            told = f"{len(self.outcomes)} outcomes, {len(bad)} without success {bad[:3]}, {len(wrong)} name another pin"
        checks += [(right, told), *self._checks_of_the_kill()]
        told = (
            f"errors of the board: {counted['errors']}, {counted['lost_answers']} of them after it had stored the pin"
        )
        checks.append((True, told))
        self.figures = {
            "pins on the board": counted["pins"],
            "published twice": len(twice),
            "browsers killed on purpose": int(self.kill.pid is not None),
            "errors of the board": counted["errors"],
        }
        return checks

    def _checks_of_the_kill(self) -> list[tuple[bool, str]]:
        kill = self.kill
        if kill.pid is None:
            return [(False, "no browser was killed: the run was over too soon; try more pins")]
        told = f"browser {kill.pid} of child {kill.child} ({kill.worker}) was killed, pins published by then: {kill.at}"
        checks = [(True, told)]
        again = [outcome for outcome in self.outcomes if outcome.attempts > 1]
        for outcome in again:
            said = f"{outcome.key}: attempted again, {outcome.status} at attempt {outcome.attempts}"
            checks.append((outcome.succeeded, said))
        if not again:
            checks.append((True, "its child had another browser at once: no job had to be attempted again"))
        return checks

    def write(self, path: Path, title: str) -> Path:
        """Write the page, of what was found by `checks`, and return its whole path."""
        from orchestrator_adapters.playwright import write_report

        return write_report(path, self.outcomes, title=title, figures=self.figures)

    def _ask(self, path: str, **asked: str) -> Any:
        # Whatever proxy the environment names: the board is on this machine.
        with build_opener(ProxyHandler({})).open(f"{self.url}{path}?{urlencode(asked)}", timeout=30) as answer:
            return json.load(answer)
