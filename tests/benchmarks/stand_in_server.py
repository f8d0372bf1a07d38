"""A small server in the place of ours, which can also be told to do wrong: the tools have to notice.

    python stand_in_server.py [ARTIFACT] [--port 0] [--set NAME=VALUE]…

STAND_IN_FAULT names what it does wrong:
leaks, hangs_up, queues_for_ever, no_retry_after, ends_at_once, patient, swallows_bombs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

FAULT = os.environ.get("STAND_IN_FAULT", "")
INFER_S = float(os.environ.get("STAND_IN_INFER_S", "0.002"))
DELAY_S = 0.1


class StandIn:
    def __init__(self, settings: dict[str, float]) -> None:
        self.max_batch = int(settings.get("max_batch", 4))
        self.queue_size = int(settings.get("queue_size", self.max_batch))
        self.header_timeout_s = settings.get("header_timeout_s", 10.0)
        self.queue: list[asyncio.Future[None]] = []
        self.there = asyncio.Event()
        self.leak: list[bytes] = []
        self.taken = self.images = self.runs = self.open_requests = 0
        self.draining = False

    async def work(self) -> None:
        while True:
            await self.there.wait()
            batch, self.queue = self.queue[: self.max_batch], self.queue[self.max_batch :]
            if not self.queue:
                self.there.clear()
            await asyncio.sleep(INFER_S)
            self.images, self.runs = self.images + len(batch), self.runs + 1
            for future in batch:
                future.set_result(None)

    async def segment(self, body: bytes) -> tuple[int, bytes]:
        self.taken += 1
        if FAULT == "leaks":
            self.leak.append(os.urandom(100_000))
        try:
            Image.MAX_IMAGE_PIXELS = None
            image = Image.open(BytesIO(body))
            if FAULT == "swallows_bombs":
                image.convert("L")
            if image.width * image.height > 2**24:
                return 413, b"{}"
            image.load()
        except (OSError, SyntaxError, ValueError):
            return 400, b"{}"
        if len(self.queue) >= (1000 if FAULT == "queues_for_ever" else self.queue_size):
            return 429, b"{}"
        future = asyncio.get_running_loop().create_future()
        self.queue.append(future)
        self.there.set()
        await future
        return 200, b"mask"

    async def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        if target == "/v2/health/ready":
            return (503 if self.draining else 200), b""
        if target == "/metrics":
            lines = (
                f"# HELP {name} of a test\n# TYPE {name} counter\n" + f'{name}{{model="a"}} {value}\n'
                for name, value in (("nv_inference_count", self.images), ("nv_inference_exec_count", self.runs))
            )
            return 200, "".join(lines).encode()
        status, answer = await self.segment(body)
        sys.stdout.write(json.dumps({"path": target.partition("?")[0], "status": status}) + "\n")
        sys.stdout.flush()
        return status, answer

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(None if FAULT == "patient" else self.header_timeout_s):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.open_requests += 1
        try:
            line, *fields = head.rstrip().split("\r\n")
            headers = {field.split(":")[0].lower(): field.split(":")[1].strip() for field in fields}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            status, content = await self.answer(line.split()[0], line.split()[1], body)
            if FAULT == "hangs_up" and content == b"mask" and self.taken % 10 == 0:
                raise ConnectionResetError
            retry = "" if FAULT == "no_retry_after" or status not in (429, 503) else "Retry-After: 1\r\n"
            last = "Connection: close\r\n" if self.draining else ""
            writer.write(
                f"HTTP/1.1 {status} x\r\n{retry}{last}Content-Length: {len(content)}\r\n\r\n".encode() + content
            )
            await writer.drain()
        finally:
            self.open_requests -= 1

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                await self.serve_one(reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            writer.close()

    async def run(self) -> None:
        worker = asyncio.create_task(self.work())
        server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        end = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
        port = server.sockets[0].getsockname()[1]
        sys.stderr.write(f"serving stand-in on http://127.0.0.1:{port}\n")
        sys.stderr.flush()
        await end.wait()
        if FAULT == "ends_at_once":
            os._exit(7)
        self.draining = True
        await asyncio.sleep(DELAY_S)
        server.close()
        while self.open_requests:
            await asyncio.sleep(0.01)
        worker.cancel()


def settings_of(words: Sequence[str]) -> dict[str, float]:
    pairs = (word.split("=") for word in words if "=" in word)
    return {name: float(value) for name, value in pairs}


if __name__ == "__main__":
    time.sleep(float(os.environ.get("STAND_IN_START_S", "0")))
    asyncio.run(StandIn(settings_of(sys.argv[1:])).run())
