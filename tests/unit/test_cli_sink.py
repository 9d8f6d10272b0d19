"""Output that a slow, stuck or vanished reader never turns against the event loop."""

import os

import anyio

from orchestrator.cli import _sink
from orchestrator.cli._sink import Sink, SinkStream


async def test_all_is_written_in_order() -> None:
    reading, writing = os.pipe()
    sink = Sink(writing)
    for number in range(1_000):
        sink.write(b"%d\n" % number)
    await sink.aclose()
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        assert stream.read() == b"".join(b"%d\n" % number for number in range(1_000))


async def test_full_buffer_makes_the_producer_wait_until_somebody_reads() -> None:
    reading, writing = os.pipe()
    sink = Sink(writing)
    sink.write(b"x" * (2 * _sink.HIGH_WATER))
    assert sink.is_full
    read = 0

    async def read_all() -> None:
        nonlocal read
        while read < 2 * _sink.HIGH_WATER:
            read += len(await anyio.to_thread.run_sync(os.read, reading, 1 << 16))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_all)
            await sink.ready()
            assert not sink.is_full
            assert read > 0
    await sink.aclose()
    os.close(reading)
    os.close(writing)


async def test_vanished_reader_is_told_once_and_nobody_waits() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    failed = anyio.Event()
    errors: list[OSError] = []

    def on_error(error: OSError) -> None:
        errors.append(error)
        failed.set()

    sink = Sink(writing, on_error)
    sink.write(b"x")
    with anyio.fail_after(10):
        await failed.wait()
        sink.write(b"y" * (2 * _sink.HIGH_WATER))
        await sink.ready()
        await sink.aclose()
    os.close(writing)
    assert [type(error) for error in errors] == [BrokenPipeError]


async def test_a_terminal_that_is_too_slow_loses_lines_and_says_how_many() -> None:
    reading, writing = os.pipe()
    sink = Sink(writing)
    stream = SinkStream(sink, writing)
    stream.write("x" * _sink.DROP_WATER + "\n")
    stream.write("lost\nlost too\n")
    received = bytearray()

    async def read_all() -> None:
        while chunk := await anyio.to_thread.run_sync(os.read, reading, 1 << 16):
            received.extend(chunk)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_all)
            await sink.ready()
            stream.write("é\n")
            await sink.aclose()
            os.close(writing)
    os.close(reading)
    assert received.endswith("... 2 lines dropped: the terminal is too slow\né\n".encode())
