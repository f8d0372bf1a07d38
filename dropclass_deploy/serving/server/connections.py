"""Connections that cannot be held for ever, nor in any number, nor with headers of any size.

uvicorn limits how long an idle connection stays open between requests; how slowly a request may trickle in, how long its
headers may get and how many connections there are is said here.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 65_536
"""Of a request's line and headers."""


@dataclass(frozen=True)
class ConnectionLimits:
    """For all connections of a server.

    Attributes:
        header_timeout_s: for a request's line and headers to arrive.
        connections: open at once; beyond, 503.
    """

    header_timeout_s: float
    connections: int


class _Gathering:
    """A transport that sends what is written in one turn of the event loop in one piece.

    uvicorn writes an answer's head and its body separately; each would be a call to the system, and a packet.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits, which ``guarded`` sets."""

    limits = ConnectionLimits(10.0, 256)
    _clock: asyncio.TimerHandle | None = None
    _in_head = _in_body = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection owes a request."""
        super().connection_made(cast(asyncio.Transport, _Gathering(transport, self.loop)))
        if len(self.connections) > self.limits.connections:
            self.app = _too_many_connections
        self._start()

    def data_received(self, data: bytes) -> None:
        """Look whether the headers are complete by now."""
        super().data_received(data)
        if not self._in_head:
            if not self._in_body and (self.cycle is None or self.cycle.response_complete):
                # Line ends before a request: uvicorn has just stopped its own clock for them.
                self._start()
            return
        self._head_bytes += len(data)
        self._start()
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers are too long.")

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """What was owed is there."""
        self._in_head, self._in_body = False, True
        self._stop()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body, too."""
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Answered: a client that goes on sending a body that nobody wants has a while for the rest of it."""
        super().on_response_complete()
        if self._in_body:
            self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is owed any more."""
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self.limits.header_timeout_s, self._give_up)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _give_up(self) -> None:
        self._clock = None
        self.transport.close()


def guarded(limits: ConnectionLimits) -> type[GuardedProtocol]:
    """The protocol with these limits."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})


_TOO_MANY = json.dumps({"error": "too many connections; try again later"}).encode()


async def _too_many_connections(_scope: Scope, _receive: Receive, send: Send) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_TOO_MANY)).encode()),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _TOO_MANY})
