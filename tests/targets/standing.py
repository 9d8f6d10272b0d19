"""Jobs that stand at a gate, apart from it: children import these a thousand times, and little else."""

from __future__ import annotations

import os
import socket


def stand(port: int, label: str = "") -> str:
    """Wait at the gate, as a sync job."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(f"{label} {os.getpid()}\n".encode())
        line.recv(1)
    return label


async def stand_async(port: int, label: str = "") -> str:
    """Wait at the gate, as an async job."""
    import asyncio

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{label} {os.getpid()}\n".encode())
        await reader.read(1)
    finally:
        writer.close()
    return label
