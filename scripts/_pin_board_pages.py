"""The pages of the pin board: plain HTML with its style and script within, light and dark."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _pin_board_pins import Pin

STYLE = """
:root { color-scheme: light dark; --paper: #faf8f5; --card: #fff; --ink: #24211d; --soft: #77706a; --line: #e4dfd8;
  --accent: #b3261e; --accent-ink: #fff; --wrong: #fdecea; }
@media (prefers-color-scheme: dark) { :root { --paper: #191715; --card: #242120; --ink: #eee9e3; --soft: #a39b93;
  --line: #3a3532; --accent: #ff8a7a; --accent-ink: #2b0a06; --wrong: #45201c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
a { color: inherit; }
header { display: flex; flex-wrap: wrap; gap: .75rem 1.25rem; align-items: center; padding: .9rem 1.5rem;
  background: var(--card); border-bottom: 1px solid var(--line); }
header .name { font-weight: 700; font-size: 1.15rem; text-decoration: none; }
header .name::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .5em;
  border-radius: 50% 50% 50% 0; transform: rotate(-45deg); background: var(--accent); }
header form.search { flex: 1; min-width: 10rem; }
header .user { color: var(--soft); }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem; }
main.narrow { max-width: 34rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 1rem; }
nav.boards { display: flex; flex-wrap: wrap; gap: .5rem; margin-bottom: 1.25rem; }
nav.boards a { padding: .2rem .8rem; border: 1px solid var(--line); border-radius: 2rem; text-decoration: none; }
nav.boards a[aria-current] { background: var(--ink); color: var(--paper); border-color: var(--ink); }
.pins { columns: 4 13rem; column-gap: 1rem; }
article.card { break-inside: avoid; margin: 0 0 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .9rem; overflow: hidden; }
article.card img, .pin img { display: block; width: 100%; height: auto; }
article.card a { text-decoration: none; }
article.card h2 { font-size: 1rem; margin: .6rem .9rem 0; }
article.card p { margin: 0 .9rem .7rem; color: var(--soft); font-size: .875rem; }
.box { background: var(--card); border: 1px solid var(--line); border-radius: .9rem; padding: 1.5rem; }
.pin { padding: 0; overflow: hidden; } .pin .text { padding: 1.25rem 1.5rem; }
label { display: block; font-weight: 600; margin: 0 0 .3rem; }
.field { margin-bottom: 1.1rem; }
input, textarea, select { width: 100%; padding: .55rem .7rem; font: inherit; color: inherit; background: var(--paper);
  border: 1px solid var(--line); border-radius: .5rem; }
input:focus-visible, textarea:focus-visible, select:focus-visible, a:focus-visible, button:focus-visible {
  outline: 3px solid var(--accent); outline-offset: 1px; }
button, a.button { display: inline-block; padding: .55rem 1.3rem; font: inherit; font-weight: 600; cursor: pointer;
  color: var(--accent-ink); background: var(--accent); border: 0; border-radius: 2rem; text-decoration: none; }
button:disabled { opacity: .45; cursor: default; }
button.plain { color: inherit; background: none; padding: 0; font-weight: 400; text-decoration: underline; }
.error { background: var(--wrong); border-left: 4px solid var(--accent); border-radius: .4rem; padding: .6rem .9rem;
  margin: 0 0 1.1rem; }
.note { color: var(--soft); }
"""

# The fields are made by the page's script, some time after it is there, as forms of real sites are.
SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("pin-form"), button = document.getElementById("publish");
const make = (name, attributes, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const fields = {
  title: () => make("input", {maxlength: 200, required: "", autocomplete: "off", value: data.given.title}),
  description: () => make("textarea", {rows: 3}, data.given.description),
  board: () => {
    const select = make("select", {required: ""}, make("option", {value: ""}, "Choose a board"));
    for (const name of data.boards) select.append(make("option", {value: name}, name));
    select.value = data.boards.includes(data.given.board) ? data.given.board : "";
    return select;
  },
  link: () => make("input", {autocomplete: "off", placeholder: "https://…", value: data.given.link}),
  image: () => make("input", {type: "file", accept: "image/*"}),
};
let missing = Object.keys(fields).length;
Object.entries(fields).forEach(([name, field], index) => setTimeout(() => {
  const element = field();
  element.id = element.name = name;
  const label = make("label", {for: name}, name[0].toUpperCase() + name.slice(1));
  form.insertBefore(make("div", {class: "field"}, label, element), document.getElementById("end"));
  if (--missing === 0) { button.disabled = false; document.getElementById("waiting").remove(); }
}, data.delays[index]));
form.addEventListener("submit", () => setTimeout(() => { button.disabled = true; }));
"""


def page(title: str, body: str, *, user: str | None = None, query: str = "", narrow: bool = False) -> str:
    """Return a page with the head and the bar that all have."""
    account = '<a href="/login">Log in</a>'
    if user is not None:
        account = (
            f'<a class="button" href="/new">New pin</a><span class="user">{escape(user)}</span>'
            '<form method="post" action="/logout"><button class="plain" id="logout">Log out</button></form>'
        )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · Pin board</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<a class="name" href="/">Pin board</a>
<form class="search" action="/search" role="search">
<input name="q" aria-label="Search pins" placeholder="Search pins" value="{escape(query)}">
</form>
{account}
</header>
<main{' class="narrow"' if narrow else ""}>
{body}
</main>
</body>
</html>
"""


def login(target: str, *, error: str = "", username: str = "") -> str:
    """Return the page that asks who you are, and goes on to `target`."""
    return page(
        "Log in",
        f"""<h1>Log in</h1>
<form class="box" method="post" action="/login">
{_error(error)}
<input type="hidden" name="next" value="{escape(target)}">
<div class="field"><label for="username">User name</label>
<input id="username" name="username" autocomplete="username" required value="{escape(username)}"></div>
<div class="field"><label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required></div>
<button id="login">Log in</button>
</form>""",
        narrow=True,
    )


def form(
    user: str, boards: Iterable[str], delays: list[int], given: dict[str, str], *, error: str = "", there: int | None
) -> str:
    """Return the page with the form of a new pin; its fields appear after `delays` milliseconds."""
    data = json.dumps({"boards": list(boards), "delays": delays, "given": given}).replace("<", "\\u003c")
    return page(
        "New pin",
        f"""<h1>New pin</h1>
<form class="box" id="pin-form" method="post" action="/new" enctype="multipart/form-data">
{_error(error, there)}
<p class="note" id="waiting">Loading the form …</p>
<div id="end"><button id="publish" disabled>Publish</button></div>
</form>
<script type="application/json" id="data">{data}</script>
<script>{SCRIPT}</script>""",
        user=user,
        narrow=True,
    )


def pin(found: Pin, user: str | None) -> str:
    """Return the page of one pin."""
    link = ""
    if found.link:
        link = f'<p><a href="{escape(found.link)}" rel="nofollow noopener">{escape(found.link)}</a></p>'
    return page(
        found.title,
        f"""<article class="box pin" data-pin-id="{found.id}">
<img src="/pin/{found.id}/image" alt="">
<div class="text"><h1>{escape(found.title)}</h1>
<p>{escape(found.description)}</p>{link}
<p class="note">Pin {found.id} on <a href="{_board(found.board)}">{escape(found.board)}</a>,
published by {escape(found.user)}</p></div>
</article>""",
        user=user,
        narrow=True,
    )


def pins(
    title: str, found: list[Pin], boards: Iterable[str], user: str | None, *, board: str = "", query: str = ""
) -> str:
    """Return a page of many pins."""
    tabs = [("/", "All", ""), *((_board(name), name, name) for name in boards)]
    links = "".join(
        f'<a href="{address}"{" aria-current=page" if name == board and not query else ""}>{escape(label)}</a>'
        for address, label, name in tabs
    )
    cards = "".join(
        f'<article class="card" data-pin="{each.id}"><a href="/pin/{each.id}">'
        f'<img src="/pin/{each.id}/image" alt="" loading="lazy"><h2>{escape(each.title)}</h2>'
        f"<p>{escape(each.board)}</p></a></article>"
        for each in found
    )
    shown = f'<div class="pins">{cards}</div>' if found else '<p class="note" id="nothing">No pins here yet.</p>'
    body = f'<h1>{escape(title)}</h1><nav class="boards" aria-label="Boards">{links}</nav>{shown}'
    return page(title, body, user=user, query=query)


def problem(title: str, message: str, user: str | None = None) -> str:
    """Return a page that says what went wrong."""
    return page(title, f'<h1>{escape(title)}</h1><p class="error">{escape(message)}</p>', user=user, narrow=True)


def _error(message: str, there: int | None = None) -> str:
    if not message:
        return ""
    link = "" if there is None else f' <a data-duplicate-of="{there}" href="/pin/{there}">See it</a>'
    return f'<p class="error" role="alert">{escape(message)}{link}</p>'


def _board(name: str) -> str:
    from urllib.parse import quote

    return f"/board/{quote(name)}"
