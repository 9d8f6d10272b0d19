"""How a report looks: one style sheet, for light and dark screens and for paper."""

from __future__ import annotations

# Of each status: the sign that is shown with the colour, for whoever cannot tell colours apart.
SIGNS = {
    "succeeded": "✓",
    "failed": "✕",
    "crashed": "☠",
    "timed_out": "◔",
    "cancelled": "⊘",
    "quarantined": "☠",
    "expired": "◌",
    "indeterminate": "?",
}


def sign(status: str) -> str:
    """Return the sign of a status, as text: some systems would draw a coloured picture instead."""
    return SIGNS.get(status, "·") + "\ufe0e"


def signed(status: str) -> str:
    """Return a status with its sign, for people."""
    return f"{sign(status)} {status.replace('_', ' ')}"


STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f7f7f5; --card: #ffffff; --ink: #1d2023; --soft: #5b6168; --line: #dddfe2; --link: #0b5cad;
  --succeeded: #1a7f46; --failed: #c0332b; --crashed: #7a1fa2; --timed_out: #a35a00; --cancelled: #5b6168;
  --quarantined: #7a1fa2; --expired: #a35a00; --indeterminate: #8a6d00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171a; --card: #1d2125; --ink: #e8eaed; --soft: #a5acb4; --line: #363c43; --link: #7db8f5;
    --succeeded: #4cc27f; --failed: #ff7b72; --crashed: #d19ae8; --timed_out: #f0a850; --cancelled: #a5acb4;
    --quarantined: #d19ae8; --expired: #f0a850; --indeterminate: #e0c35a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main, header { max-width: 76rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: .95rem; margin: 1rem 0 .35rem; }
p { margin: .25rem 0; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 3px; }
.soft { color: var(--soft); }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--card); padding: .5rem 1rem; }
.figures { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.25rem 0 0; padding: 0; list-style: none; }
.figures li { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .45rem .9rem; }
.figures b { display: block; font-size: 1.35rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: .85rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { text-align: left; padding: .4rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .85rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td { white-space: nowrap; }
td.label { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 16rem; }
tr:last-child > td { border-bottom: 0; }
.status { white-space: nowrap; font-weight: 600; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .grid { stroke: var(--line); }
svg .lane { fill: var(--ink); }
svg a rect:hover { opacity: .75; }
svg .mark { fill: var(--card); font-weight: 700; text-anchor: middle; pointer-events: none; }
svg .died { stroke: var(--ink); stroke-width: 2; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: .6rem 0 0; padding: 0; list-style: none; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: 0 0 .75rem; }
article:target { outline: 3px solid var(--link); }
summary { padding: .6rem 1rem; cursor: pointer; overflow-wrap: anywhere; }
summary .soft { margin-left: .6rem; }
.inside { padding: 0 1rem 1rem; }
.attempt { border-left: 4px solid var(--line); padding-left: .9rem; margin-top: 1rem; }
pre { background: var(--ground); border: 1px solid var(--line); border-radius: 6px; padding: .75rem; margin: .25rem 0;
  overflow: auto; max-height: 28rem; font: 12.5px/1.45 ui-monospace, monospace; }
.pictures { display: flex; flex-wrap: wrap; gap: .75rem; margin: .5rem 0 0; }
figure { margin: 0; }
figure img { display: block; max-width: min(30rem, 100%); border: 1px solid var(--line); border-radius: 6px; }
figcaption { color: var(--soft); font-size: .85rem; }
.files { margin: .35rem 0; padding-left: 1.1rem; }
footer { max-width: 76rem; margin: 2.5rem auto; padding: 0 1.25rem; color: var(--soft); font-size: .85rem; }
@media print { body { background: none; } pre { max-height: none; } article { break-inside: avoid; } }
""" + "".join(
    f".is-{status} {{ color: var(--{status}); }} rect.is-{status} {{ fill: var(--{status}); }} "
    f".attempt.is-{status} {{ color: inherit; border-color: var(--{status}); }}\n"
    for status in SIGNS
)
