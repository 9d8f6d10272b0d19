"""The app's window: a web view with the page in it where the system has one, else a small one beside the browser."""

from __future__ import annotations

import contextlib
import html
import logging
import os
import queue
import shutil
import subprocess
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

KINDS = ("web", "tk", "none")
_SAYS = {
    "ready": "The page is ready.",
    "unhealthy": "The page does not answer.",
    "backoff": "The page ended, and is started again soon.",
    "failed": "The page cannot be started.",
    "stopped": "The page is stopped.",
}


class Window(Protocol):
    """What shows the service; `show` and `close` may be called from any thread."""

    def run(self) -> None:
        """Show it, on the main thread, until it is closed."""

    def show(self) -> None:
        """Bring it to the front."""

    def close(self) -> None:
        """Have `run` return."""


def open_window(title: str, service: Any, kind: str | None = None) -> Window:
    """Return the first kind of window that works here."""
    makers: dict[str, Callable[[str, Any], Window]] = {"web": WebWindow, "tk": TkWindow, "none": NoWindow}
    for name in (kind,) if kind else KINDS:
        try:
            window = makers[name](title, service)
        except Exception as error:  # each toolkit has errors of its own for "not here"
            log.info("no window of kind %s: %s: %s", name, type(error).__name__, error)
            if kind:
                raise
        else:
            log.info("window of kind %s", name)
            return window
    raise RuntimeError("no window")  # the last kind needs nothing


def follow(service: Any, tell: Callable[[str, str], None]) -> None:
    """Tell, on a thread, of each state of the service and of the reason for it."""

    def listen() -> None:
        tell(service.state, service.reason)
        for event in service.events():
            if event.kind == "state":
                log.info("the page is %s %s", event.state, event.reason)
                tell(event.state, event.reason)

    threading.Thread(target=listen, name="states", daemon=True).start()


def restart(service: Any) -> None:
    """Restart the page, on a thread: that takes as long as the page takes to end."""
    threading.Thread(target=service.restart, name="restart", daemon=True).start()


def open_browser(url: str) -> None:
    """Open the system's browser, on a thread."""

    def run() -> None:
        opener = shutil.which("xdg-open") if sys.platform == "linux" else None
        if opener is None:
            webbrowser.open(url)
            return
        # A frozen app's loader has its own libraries searched first. A browser must find those of the system.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("_PYI_")}
        original = environment.pop("LD_LIBRARY_PATH_ORIG", None)
        if getattr(sys, "frozen", False):
            environment.pop("LD_LIBRARY_PATH", None)
        if original is not None:
            environment["LD_LIBRARY_PATH"] = original
        subprocess.run([opener, url], env=environment, start_new_session=True, check=False, close_fds=True)

    log.info("opening %s", url)
    threading.Thread(target=run, name="browser", daemon=True).start()


class WebWindow:
    """The page itself, in a web view of the system: WebView2, WebKit, or what pywebview finds."""

    def __init__(self, title: str, service: Any) -> None:
        import webview  # type: ignore[import-not-found, unused-ignore]
        from webview.guilib import initialize  # type: ignore[import-not-found, unused-ignore]

        initialize()  # raises where the system has no web view
        self._webview = webview
        self._service = service
        notice = _notice("The page is being started.")
        self._window = webview.create_window(title, html=notice, js_api=Buttons(service), width=1100, height=800)
        self._is_page = False
        self._is_closed = False

    def run(self) -> None:
        self._window.events.shown += lambda *_: follow(self._service, self._tell)
        self._webview.start()
        self._is_closed = True

    def show(self) -> None:
        log.info("coming to the front")
        self._window.restore()
        self._window.show()

    def close(self) -> None:
        self._window.destroy()

    def _tell(self, state: str, reason: str) -> None:
        if self._is_closed:
            return
        if state == "ready" and not self._is_page:
            self._is_page = True
            self._window.events.loaded.wait(10)  # pywebview stumbles over a page that is left before it has come
            self._window.load_url(self._service.url)
        # A page that is there connects again by itself, for the address stays the same.
        elif state in ("failed", "stopped"):
            self._is_page = False
            button = "<button onclick='pywebview.api.restart()'>Start it again</button>"
            self._window.load_html(_notice(f"{_SAYS[state]} {reason}", button))


class Buttons:
    """What buttons in a web view may call."""

    def __init__(self, service: Any) -> None:
        self._service = service

    def restart(self) -> None:
        """Start the page again."""
        restart(self._service)


def _notice(text: str, more: str = "") -> str:
    return f"<body style='font: 16px sans-serif; margin: 3rem'><p>{html.escape(text)}</p>{more}</body>"


class TkWindow:
    """A small window with the state of the page, which the system's browser shows."""

    def __init__(self, title: str, service: Any) -> None:
        import tkinter
        from tkinter import ttk

        self._root = tkinter.Tk(className=title)
        self._root.title(title)
        self._service = service
        self._opened = False
        # Tk belongs to the main thread; others leave here what it is to do.
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        frame = ttk.Frame(self._root, padding=20)
        frame.grid()
        self._state = ttk.Label(frame, text="The page is being started.", width=52, wraplength=420)
        self._state.grid(columnspan=3, sticky="w", pady=(0, 14))
        self._open = ttk.Button(frame, text="Open", state="disabled", command=lambda: open_browser(service.url))
        self._open.grid(row=1, column=0, sticky="w")
        ttk.Button(frame, text="Restart", command=lambda: restart(service)).grid(row=1, column=1)
        ttk.Button(frame, text="Quit", command=self._root.quit).grid(row=1, column=2, sticky="e")
        self._root.resizable(False, False)
        self._root.protocol("WM_DELETE_WINDOW", self._root.quit)

    def run(self) -> None:
        follow(self._service, lambda state, reason: self._calls.put(lambda: self._tell(state, reason)))
        self._work_off()
        self._root.mainloop()
        self._root.destroy()

    def show(self) -> None:
        self._calls.put(self._show)

    def close(self) -> None:
        self._calls.put(self._root.quit)

    def _work_off(self) -> None:
        # Of all that Tk offers only its timers reach the main thread safely from others.
        self._root.after(100, self._work_off)
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()()

    def _show(self) -> None:
        log.info("coming to the front")
        self._root.deiconify()
        self._root.lift()
        self._root.focus_force()

    def _tell(self, state: str, reason: str) -> None:
        text = _SAYS.get(state, "The page is being started." if state != "stopping" else "The page is being stopped.")
        self._state["text"] = f"{text}\n{self._service.url if state == 'ready' else reason}"
        self._open["state"] = "normal" if state == "ready" else "disabled"
        if state == "ready" and not self._opened:
            self._opened = True
            open_browser(self._service.url)


class NoWindow:
    """Where there is no display: the browser is opened if there is one, and a signal ends the app."""

    def __init__(self, title: str, service: Any) -> None:
        self._service = service
        self._closed = threading.Event()
        self._opened = False

    def run(self) -> None:
        follow(self._service, self._tell)
        self._closed.wait()

    def show(self) -> None:
        log.info("coming to the front")
        open_browser(self._service.url)

    def close(self) -> None:
        self._closed.set()

    def _tell(self, state: str, reason: str) -> None:
        if state == "ready" and not self._opened:
            self._opened = True
            open_browser(self._service.url)
