"""Servers of several kinds on a port that is given: `python small_servers.py KIND PORT`."""

from __future__ import annotations

import asyncio
import socketserver
import sys
from typing import Any


def main(kind: str, port: int) -> None:
    """Listen until this process is killed."""
    {"asyncio": with_asyncio, "uvicorn": with_uvicorn, "strict": strict}[kind](port)


def with_asyncio(port: int) -> None:
    async def serve() -> None:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


def with_uvicorn(port: int) -> None:
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"here"})

    uvicorn.run(app, host="127.0.0.1", port=port, lifespan="off", log_level="warning")


class Strict(socketserver.ThreadingTCPServer):
    """As such servers are unless told otherwise: it is bound without SO_REUSEADDR."""

    allow_reuse_address = False


def strict(port: int) -> None:
    with Strict(("127.0.0.1", port), socketserver.BaseRequestHandler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
