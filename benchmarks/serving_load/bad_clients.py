"""Clients that leave in the middle, that send a byte a second, and that send a bomb; others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from typing import Any

from serving_load import pictures
from serving_load.figures import spread_ms
from serving_load.plain_http import Address, Client, Connection, NoAnswerError, request_bytes, request_head
from serving_load.server_process import ServerProcess

_SOON_S = 0.005


def disconnect(server: ServerProcess, times: int) -> dict[str, Any]:
    """Clients that go after half of the body, or before the answer, politely or with a reset; what others get between."""
    body = pictures.encoded(256, 256)
    head, statuses = request_head(server.address, len(body)), Counter[str]()
    with Client(server.address) as client:
        for _ in range(times):
            for sent in (head[: len(head) // 2], head, head + body[: len(body) // 2], head + body):
                for reset in (False, True):
                    _leave_after(server.address, sent, reset=reset)
            statuses[str(client.post(body).status)] += 1
    return {"left": 8 * times, "others": dict(statuses), "running": server.running}


def _leave_after(address: Address, sent: bytes, *, reset: bool) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        # The server may have refused already.
        with contextlib.suppress(OSError):
            connection.sendall(sent)
        time.sleep(_SOON_S)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def slow_loris(server: ServerProcess, connections: int, allowed_s: float) -> dict[str, Any]:
    """Headers at a byte a second on so many connections, and normal requests meanwhile.

    Args:
        server: to be held up.
        connections: slow ones.
        allowed_s: in which the server must have closed them all.
    """
    return asyncio.run(_slow_loris(server.address, connections, allowed_s))


async def _slow_loris(address: Address, connections: int, allowed_s: float) -> dict[str, Any]:
    slow = [asyncio.create_task(_slow_client(address, allowed_s)) for _ in range(connections)]
    request, statuses, seconds = request_bytes(address, pictures.encoded(64, 64)), Counter[str](), []
    normal: Connection | None = None
    while not all(task.done() for task in slow):
        began = time.monotonic()
        try:
            if normal is None or not normal.usable:
                normal = await Connection.open(address)
            statuses[str((await normal.ask(request, allowed_s)).status)] += 1
        except (NoAnswerError, OSError):
            statuses["no answer"] += 1
            normal = None
        seconds.append(time.monotonic() - began)
        await asyncio.sleep(0.02)
    if normal is not None:
        await normal.ended()
    closed = [task.result() for task in slow]
    return {
        "connections": connections,
        "allowed_s": allowed_s,
        "left_open": closed.count(None),
        "closed_after_s_greatest": round(max((value for value in closed if value is not None), default=0.0), 3),
        "others": dict(statuses),
        "others_latency": spread_ms(seconds),
    }


async def _slow_client(address: Address, allowed_s: float) -> float | None:
    """After how many seconds the server closed the connection; None when it had not."""
    reader, writer = await asyncio.open_connection(*address)
    began, header = time.monotonic(), b"POST /v1/segment HTTP/1.1\r\nHost: slow\r\nX-Slow: "
    try:
        while time.monotonic() - began <= allowed_s:
            writer.write(header[:1] or b"a")
            header = header[1:]
            if await _ended_within(reader, 1.0):
                return time.monotonic() - began
        return None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _ended_within(reader: asyncio.StreamReader, seconds: float) -> bool:
    """Whether the other side closes the connection; an answer may come first."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            try:
                while await reader.read(1000):
                    pass
            except OSError:
                pass
            return True
    return False


class RssWatch:
    """The greatest resident memory of a server while the block runs, KiB."""

    def __init__(self, server: ServerProcess) -> None:
        self._server, self._over = server, threading.Event()
        self.before_kib = self.greatest_kib = server.rss_kib()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self.greatest_kib = max(self.greatest_kib, self._server.rss_kib())

    def __enter__(self) -> RssWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def bomb(server: ServerProcess, side: int, times: int) -> dict[str, Any]:
    """A small file that would decode to ``side`` × ``side`` pixels, sent some times; status, seconds and memory."""
    body, statuses, seconds = pictures.bomb(side), Counter[str](), []
    with Client(server.address) as client:
        # What the first request brings into memory is not the bomb's.
        client.post(pictures.encoded(256, 256))
        with RssWatch(server) as watch:
            for _ in range(times):
                began = time.monotonic()
                statuses[str(client.post(body).status)] += 1
                seconds.append(time.monotonic() - began)
        after = client.post(pictures.encoded(256, 256)).status
    return {
        "bytes": len(body),
        "pixels": side * side,
        "statuses": dict(statuses),
        "latency": spread_ms(seconds),
        "rss_rise_kib": round(watch.greatest_kib - watch.before_kib),
        "status_afterwards": after,
    }
