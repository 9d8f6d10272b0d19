"""A model server of this machine that speaks the Gemini and OpenAI REST APIs and holds its clients to its own quotas.

It needs nothing but the standard library. In a program: `with ModelServer(quotas=[Quota("requests", 50, 1)]) as server`
and `server.url`; as a process of its own: `python _llm_server.py --config '{"quotas": [["requests", 50, 1]]}'`, which
prints its address as one line of JSON and ends with its standard input. `GET /stats` tells what it counted,
`GET /requests` every request with its time, `POST /configure` changes it while it runs.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import _llm_faults as faults
from _llm_gemini import GEMINI
from _llm_openai import OPENAI
from _llm_protocol import Call, Protocol, Reply
from _llm_quota import Quota, Window
from _llm_replies import answer, count_tokens, vector

KEY = "local-key-0123456789abcdef"


class ModelServer:
    """The server; a context manager that serves from threads of this process until it is left.

    Args:
        quotas: What it holds all its clients to, `Quota`s or lists of their fields.
        key: The API key that it asks for.
        seed: Of answers and of `storm`.
        latency: Seconds before each answer.
        storm: Share of the requests for which something goes wrong, by the name of a fault: `{"minute=0.5": 0.1}`.
        dimensions: Length of the vectors.
        port: Where it listens, on 127.0.0.1; 0 for any free port.
    """

    def __init__(
        self,
        *,
        quotas: list[Quota] | list[list[Any]] = [],  # noqa: B006 - never changed
        key: str = KEY,
        seed: int = 0,
        latency: float = 0.0,
        storm: dict[str, float] | None = None,
        dimensions: int = 16,
        port: int = 0,
    ) -> None:
        self.key = key
        self.seed = seed
        self.latency = latency
        self.storm = storm or {}
        self.dimensions = dimensions
        self.windows: list[Window] = []
        self.set_quotas(quotas)
        self.requests: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._came: Counter[str] = Counter()
        self._open = self._most_open = 0
        self._refusals: list[tuple[float, float]] = []  # when each was sent, and until when it binds
        self._closing = threading.Event()
        self._http = _Http(self, port)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="model server")

    @property
    def url(self) -> str:
        """The address without a path: what google-genai calls `base_url`; OpenAI's ends with `/v1`."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections and threads."""
        self._closing.set()
        self._http.shutdown()
        self._http.hang_up()
        self._http.server_close()
        self._thread.join()

    def set_quotas(self, quotas: list[Quota] | list[list[Any]]) -> None:
        """Hold clients to these from now on; what was counted is forgotten."""
        self.windows = [Window(quota if isinstance(quota, Quota) else Quota(*quota)) for quota in quotas]

    def configure(self, changes: dict[str, Any]) -> None:
        """Change any of `quotas`, `key`, `seed`, `latency`, `storm`, `dimensions`."""
        with self._lock:
            for name, value in changes.items():
                if name == "quotas":
                    self.set_quotas(value)
                elif name in ("key", "seed", "latency", "storm", "dimensions"):
                    setattr(self, name, value)
                else:
                    raise ValueError(f"there is no option {name!r}")

    def stats(self) -> dict[str, Any]:
        """Return what was counted so far, as JSON values.

        `peak` of a quota is the most that arrived in any of its windows, `early` the requests that came before the
        time that an earlier refusal had named, and tokens are those that replies told of.
        """
        with self._lock:
            done = list(self.requests)
            prompts = Counter(request["prompt"] for request in done if request["answered"])
            return {
                "requests": len(done),
                "answered": sum(request["answered"] for request in done),
                "refused": sum(request["status"] == 429 for request in done),
                "statuses": {str(status): n for status, n in Counter(request["status"] for request in done).items()},
                "faults": dict(Counter(request["fault"] for request in done if request["fault"])),
                "endpoints": dict(Counter(request["endpoint"] for request in done)),
                "bad_keys": sum(request["bad_key"] for request in done),
                "prompt_tokens": sum(request["prompt_tokens"] for request in done),
                "output_tokens": sum(request["output_tokens"] for request in done),
                "distinct": len(prompts),
                "most_for_one": max(prompts.values(), default=0),
                "early": sum(request["early"] for request in done),
                "open": self._open,
                "most_open": self._most_open,
                "connections": self._http.accepted,
                "quotas": [window.describe() for window in self.windows],
            }

    def serve(self, protocol: Protocol, call: Call, key: str | None) -> Reply:
        """Count a request, and answer or refuse it."""
        now = time.monotonic()
        record = {
            "at": now,
            "protocol": protocol.name,
            "endpoint": call.endpoint,
            "model": call.model,
            "prompt": call.prompt,
            "number": 0,
            "status": 0,
            "fault": "",
            "answered": False,
            "bad_key": key != self.key,
            "early": False,
            "prompt_tokens": 0,
            "output_tokens": 0,
            "seconds": 0.0,
        }
        with self._lock:
            self._came[call.prompt] += 1
            record["number"] = self._came[call.prompt]
            # A refusal binds those who come after it was sent.
            self._refusals = [refusal for refusal in self._refusals if refusal[1] > now]
            record["early"] = any(sent < now for sent, _ in self._refusals)
            self.requests.append(record)
            self._open += 1
            self._most_open = max(self._most_open, self._open)
        try:
            reply = self._reply(protocol, call, record, now)
        finally:
            with self._lock:
                self._open -= 1
        record["status"] = reply.status
        record["seconds"] = time.monotonic() - now
        return reply

    def _reply(self, protocol: Protocol, call: Call, record: dict[str, Any], now: float) -> Reply:
        if record["bad_key"]:
            return protocol.bad_key()
        tokens = count_tokens(call.prompt)
        if call.endpoint == "count":  # asked for nothing of the model
            return protocol.counted(tokens)
        # Google counts each text of a batch.
        requests = len(call.texts) if protocol is GEMINI and call.texts else 1
        fault = self._refusal(requests, tokens, now) or faults.marked(call.prompt, record["number"])
        if fault is None and self.storm:
            fault = faults.stormy(self.storm, call.prompt, record["number"], self.seed)
        record["fault"] = fault.name if fault else ""
        if fault and fault.name in faults.QUOTA_FAULTS:
            return self._refused(protocol, fault, call)
        if fault and fault.name in faults.STATUS_FAULTS:
            return protocol.failed(faults.STATUS_FAULTS[fault.name])
        if fault and fault.name == "echo":
            return protocol.failed(400, f"the key {self.key} may not do this")
        # A marked wait stands for whatever takes a model long; a wait that ends early with the server is no answer.
        self._closing.wait(self.latency + (fault.seconds or 5.0 if fault and fault.name == "slow" else 0.0))
        if fault and fault.name == "close":
            return Reply(0, b"", closes=True)
        if fault and fault.name == "garbage":
            return Reply(200, b"<html>502 Bad Gateway</html>")
        cuts = fault is not None and fault.name == "cut"
        record["prompt_tokens"] = 0 if cuts else tokens
        if call.endpoint == "embed":
            record["answered"] = True
            return protocol.embedded(call, [vector(text, call.dimensions or self.dimensions) for text in call.texts])
        text = self._text(call, fault)
        record["output_tokens"] = 0 if cuts else count_tokens(text)
        record["answered"] = fault is None or fault.name == "slow"
        return protocol.generated(call, text, fault.name if fault else "", tokens)._replace(cuts=cuts)

    def _text(self, call: Call, fault: faults.Fault | None) -> str:
        value = answer(call.prompt, call.schema, self.seed)
        text = value if isinstance(value, str) and call.schema is None else json.dumps(value)
        if fault and fault.name == "truncated":
            return text[: len(text) // 2]
        if fault and fault.name == "invalid":
            return '{"unexpected": true}' if call.schema else text
        return "" if fault and fault.name in ("safety", "empty") else text

    def _refusal(self, requests: int, tokens: int, now: float) -> faults.Fault | None:
        """Take the request's place in all windows, or none of them and say what to refuse it with."""
        with self._lock:
            amounts = [requests if window.quota.metric == "requests" else tokens for window in self.windows]
            waits = [window.wait(now, amount) for window, amount in zip(self.windows, amounts, strict=True)]
            full = max(waits, default=0.0)
            for window, amount, wait in zip(self.windows, amounts, waits, strict=True):
                window.arrive(now, amount)
                window.refused += wait > 0
                if not full:
                    window.admit(now, amount)
            if not full:
                return None
            if self.windows[waits.index(full)].quota.is_daily:
                return faults.Fault("day")
            return faults.Fault("minute", round(full + 0.001, 3))

    def _refused(self, protocol: Protocol, fault: faults.Fault, call: Call) -> Reply:
        limit = min((window.quota.amount for window in self.windows), default=15)
        reply = protocol.refused(fault, call.model, limit)
        if fault.name in ("minute", "contradictory", "suffix", "header"):
            now = time.monotonic()
            with self._lock:
                self._refusals.append((now, now + (1.0 if fault.seconds is None else fault.seconds)))
        return reply


class _Http(ThreadingHTTPServer):
    """Threads that end with the server, however long their clients keep connections open."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(self, owner: ModelServer, port: int) -> None:
        self.owner = owner
        self.accepted = 0
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.accepted += 1
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is gone already

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may be killed at any moment
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    """One client's connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # header and body in one packet
    server: _Http

    def do_GET(self) -> None:
        owner = self.server.owner
        if self.path == "/stats":
            self._send(Reply.of(200, owner.stats()))
        elif self.path == "/requests":
            self._send(Reply.of(200, owner.requests))
        else:
            self._send(
                Reply.of(404, {"error": {"code": 404, "message": f"no {self.path} here", "status": "NOT_FOUND"}})
            )

    def do_POST(self) -> None:
        owner = self.server.owner
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        try:
            content = json.loads(body or b"{}")
            if address.path == "/configure":
                owner.configure(content)
                self._send(Reply.of(200, {}))
                return
            for protocol in (GEMINI, OPENAI):
                call = protocol.read(address.path, content)
                if call is not None:
                    self._send(owner.serve(protocol, call, protocol.key(self.headers, parse_qs(address.query))))
                    return
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"{type(error).__name__}: {error}"
            self._send(Reply.of(400, {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}))
            return
        self._send(Reply.of(404, {"error": {"code": 404, "message": f"no {self.path} here", "status": "NOT_FOUND"}}))

    def _send(self, reply: Reply) -> None:
        if reply.closes:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) // 2] if reply.cuts else reply.body)
        if reply.cuts:
            self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: what came is in `/requests`."""


def main() -> int:
    """Serve until the standard input ends."""
    parser = argparse.ArgumentParser(prog="_llm_server.py", description=__doc__)
    parser.add_argument("--config", type=json.loads, default={}, metavar="JSON", help="options of ModelServer")
    with ModelServer(**parser.parse_args().config) as server:
        print(json.dumps({"url": server.url}), flush=True)
        try:
            sys.stdin.read()
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
