"""The pin board as a web application: login with a session cookie, a form, pages of pins, and a JSON API."""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import _pin_board_pages as pages
from _pin_board_pins import Refused
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from _pin_board_faults import Faults
    from _pin_board_pins import Pins
    from starlette.requests import Request

COOKIE = "pin_board_session"
A_DAY = 86_400
FIELDS = ("title", "description", "board", "link")
# More is no picture for a board, and would only fill the memory.
MOST_IMAGE_BYTES = 8 * 2**20

Page = Callable[["Request"], Awaitable[Response]]


class Site:
    """The application's state and pages.

    Args:
        pins: What the board holds.
        faults: What goes wrong.
        users: Passwords by user name.
    """

    def __init__(self, pins: Pins, faults: Faults, users: dict[str, str]) -> None:
        self.pins = pins
        self.faults = faults
        self.users = users
        self.sessions: dict[str, str] = {}

    def application(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/", self._page(self.home)),
                Route("/board/{name}", self._page(self.board)),
                Route("/search", self._page(self.search)),
                Route("/login", self._page(self.login), methods=["GET", "POST"]),
                Route("/logout", self.logout, methods=["POST"]),
                Route("/new", self._page(self.form)),
                Route("/new", self.publish, methods=["POST"]),
                Route("/pin/{id:int}", self._page(self.pin)),
                Route("/pin/{id:int}/image", self.image),
                Route("/api/pins", self.api_pins),
                Route("/api/pins/{id:int}", self.api_pin),
                Route("/api/stats", self.api_stats),
                Route("/api/reset", self.api_reset, methods=["POST"]),
                Route("/api/configure", self.api_configure, methods=["POST"]),
                Route("/healthz", self.healthz),
            ],
        )

    def stats(self) -> dict[str, Any]:
        """Return what was counted, as JSON values; `twice` lists pins with the very same content."""
        names = "pages errors lost_answers rate_limited refused duplicates published logins bad_logins gone".split()
        return {
            **{name: self.faults.count[name] for name in names},
            "pins": len(self.pins.find()),
            "twice": self.pins.twice(),
            "sessions": len(self.sessions),
        }

    def reset(self) -> None:
        """Forget pins, sessions and counts."""
        self.pins.clear()
        self.sessions.clear()
        self.faults.count.clear()

    def _page(self, serve: Page) -> Page:
        async def page(request: Request) -> Response:
            self.faults.count["pages"] += 1
            await self.faults.dawdle()
            if self.faults.fails():
                return self._failed()
            return await serve(request)

        return page

    async def home(self, request: Request) -> Response:
        """Show all pins, newest first."""
        return self._pins(request, "All pins", self.pins.find())

    async def board(self, request: Request) -> Response:
        """Show the pins of a board."""
        name = request.path_params["name"]
        if name not in self.pins.boards:
            return _html(pages.problem("Not here", f"There is no board {name!r}.", self._user(request)), 404)
        return self._pins(request, name, self.pins.find(board=name), board=name)

    async def search(self, request: Request) -> Response:
        """Show the pins that contain a text."""
        query = request.query_params.get("q", "")
        found = self.pins.find(text=query)
        title = f"{len(found)} {'pin' if len(found) == 1 else 'pins'} for “{query}”"
        return self._pins(request, title, found, query=query)

    async def pin(self, request: Request) -> Response:
        """Show one pin."""
        found = self.pins.get(request.path_params["id"])
        if found is None:
            return _html(pages.problem("Not here", "There is no such pin.", self._user(request)), 404)
        return _html(pages.pin(found, self._user(request)))

    async def image(self, request: Request) -> Response:
        """Send the picture of a pin."""
        found = self.pins.get(request.path_params["id"])
        if found is None:
            return Response(status_code=404)
        return Response(self.pins.image(found.id), media_type=found.image_kind)

    async def login(self, request: Request) -> Response:
        """Ask who somebody is, or let them in."""
        if request.method == "GET":
            return _html(pages.login(_local(request.query_params.get("next", "/"))))
        async with request.form() as given:
            username, password, target = (str(given.get(name, "")) for name in ("username", "password", "next"))
        if not password or self.users.get(username) != password:
            self.faults.count["bad_logins"] += 1
            return _html(pages.login(_local(target), error="Wrong user name or password.", username=username), 401)
        self.faults.count["logins"] += 1
        token = secrets.token_urlsafe(24)
        self.sessions[token] = username
        response = RedirectResponse(_local(target), 303)
        response.set_cookie(COOKIE, token, max_age=A_DAY, httponly=True, samesite="lax")
        return response

    async def logout(self, request: Request) -> Response:
        """End a session."""
        self.sessions.pop(request.cookies.get(COOKIE, ""), None)
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE)
        return response

    async def form(self, request: Request) -> Response:
        """Show the form of a new pin to those who are logged in."""
        user = self._user(request)
        return _to_login() if user is None else self._form(user, dict.fromkeys(FIELDS, ""))

    async def publish(self, request: Request) -> Response:
        """Take a pin, or say why not."""
        count = self.faults.count
        count["pages"] += 1
        user = self._user(request)
        if user is None:
            return _to_login()
        async with request.form() as given:
            fields = {name: str(given.get(name, "")) for name in FIELDS}
            upload = given.get("image")
            image = await upload.read(MOST_IMAGE_BYTES + 1) if isinstance(upload, UploadFile) else b""
        wait = self.faults.wait_of()
        if wait is not None:
            count["rate_limited"] += 1
            seconds = math.ceil(wait)
            message = f"Too many pins at a time. Come again in {seconds} s."
            return _html(pages.problem("Slow down", message, user), 429, {"Retry-After": str(seconds)})
        await self.faults.dawdle()
        await self.faults.held("before", request.is_disconnected)
        if self.faults.fails(publishes=True):
            return self._failed()
        if len(image) > MOST_IMAGE_BYTES:
            return self._form(user, fields, 413, "A picture has at most 8 MB.")
        # Nothing is stored for a client that is gone: somebody may look for the pin already, and must not miss it.
        if await request.is_disconnected():
            count["gone"] += 1
            return Response(status_code=400)
        try:
            pin = self.pins.publish(user, fields, image)
        except Refused as refused:
            count["duplicates" if refused.status == 409 else "refused"] += 1
            return self._form(user, fields, refused.status, str(refused), refused.pin_id)
        count["published"] += 1
        await self.faults.held("after", request.is_disconnected)
        if self.faults.loses_answer():
            count["lost_answers"] += 1
            return self._failed()
        return RedirectResponse(f"/pin/{pin.id}", 303)

    async def api_pins(self, request: Request) -> Response:
        """Tell the pins with a title, a mark or a board, oldest first."""
        asked = request.query_params
        found = self.pins.find(title=asked.get("title", ""), mark=asked.get("mark", ""), board=asked.get("board", ""))
        return JSONResponse({"count": len(found), "pins": [pin.describe() for pin in found]})

    async def api_pin(self, request: Request) -> Response:
        """Tell one pin."""
        found = self.pins.get(request.path_params["id"])
        return JSONResponse({"error": "there is no such pin"}, 404) if found is None else JSONResponse(found.describe())

    async def api_stats(self, request: Request) -> Response:
        """Tell what was counted."""
        return JSONResponse(self.stats())

    async def api_reset(self, request: Request) -> Response:
        """Forget everything."""
        self.reset()
        return JSONResponse({})

    async def api_configure(self, request: Request) -> Response:
        """Change what goes wrong."""
        try:
            self.faults.configure(**await request.json())
        except (ValueError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({})

    async def healthz(self, request: Request) -> Response:
        """Say that the server answers."""
        return JSONResponse({"status": "ok"})

    def _user(self, request: Request) -> str | None:
        return self.sessions.get(request.cookies.get(COOKIE, ""))

    def _pins(self, request: Request, title: str, found: list[Any], **shown: str) -> Response:
        return _html(pages.pins(title, found[::-1], self.pins.boards, self._user(request), **shown))

    def _form(
        self, user: str, given: dict[str, str], status: int = 200, error: str = "", there: int | None = None
    ) -> Response:
        delays = self.faults.delays(len(FIELDS) + 1)
        return _html(pages.form(user, self.pins.boards, delays, given, error=error, there=there), status)

    def _failed(self) -> Response:
        self.faults.count["errors"] += 1
        return _html(pages.problem("Something went wrong", "The server had an error. Try again."), 500)


def _html(text: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # A form that comes out of the browser's cache would be that of an earlier visit.
    return HTMLResponse(text, status, {"Cache-Control": "no-store", **(headers or {})})


def _to_login() -> Response:
    return RedirectResponse(f"/login?next={quote('/new')}", 303)


def _local(target: str) -> str:
    # Never to another site, whatever the address says.
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) else "/"
