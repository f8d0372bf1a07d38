"""Connections that cannot be held for ever, nor in any number, nor with headers of any size.

uvicorn limits how long an idle connection stays open between requests. How slowly a request may trickle in, how long its
headers may get, how slowly its answer may be taken and how many connections there are is said here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dropclass_deploy.serving.server.keys import OPEN
from dropclass_deploy.serving.server.refusals import RefusedRequestError, answer

HEAD_BYTES = 65_536
"""Of a request's line and headers; and of what may stand between the pieces of a body (trailers, chunk extensions)."""


@dataclass(frozen=True)
class ConnectionLimits:
    """For all connections of a server.

    Attributes:
        header_timeout_s: for a request's line and headers to arrive.
        send_timeout_s: for an answer to be taken.
        connections: open at once; beyond, 503.
        shed: from a request's method and URL to why it is refused at once, or None.
    """

    header_timeout_s: float
    send_timeout_s: float
    connections: int
    shed: Callable[[bytes, bytes], RefusedRequestError | None]


class _Gathering:
    """A transport that sends what is written in one turn of the event loop in one piece, and is closed in the end.

    uvicorn writes an answer's head and its body separately; each would be a call to the system, and a packet. A transport
    that is closed waits for its buffer to be taken, for ever: here for so long.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, send_timeout_s: float) -> None:
        self._transport, self._loop, self._send_timeout_s = transport, loop, send_timeout_s
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(self._send_timeout_s, self._transport.abort)

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits, which ``guarded`` sets."""

    limits: ConnectionLimits
    _owed: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None
    _in_head = _in_body = False
    _head_bytes = 0
    _between = 0
    _body_came = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection owes a request."""
        gathering = _Gathering(transport, self.loop, self.limits.send_timeout_s)
        super().connection_made(cast(asyncio.Transport, gathering))
        if len(self.connections) > self.limits.connections:
            refusal = RefusedRequestError(503, "too many connections; try again later", 1)
            self.app = cast(Any, _but_health(answer(refusal, closing=True), cast(ASGIApp, self.app)))
        self._start()

    def data_received(self, data: bytes) -> None:
        """Look whether the headers are complete by now, and whether what came was of any use."""
        began_before, self._body_came = self._in_head, False
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            # Of the piece in which a head begins the beginning is not known: the parser counts it when it is complete.
            self._head_bytes += len(data) if began_before else 0
            self._start()
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("The headers are too long.")
        elif self._in_body:
            self._between = 0 if self._body_came else self._between + len(data)
            if self._between > HEAD_BYTES:
                self.transport.abort()
        elif self.cycle is None or self.cycle.response_complete:
            # Line ends before a request: uvicorn has just stopped its own clock for them.
            self._start()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._head_bytes, self._between = True, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers after a body are nobody's, and are not kept."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """What was owed is there."""
        self._in_head, self._in_body = False, True
        self._stop()
        usual, refusal = self.app, self._refusal()
        self.app = usual if refusal is None else cast(Any, refusal)
        super().on_headers_complete()
        self.app = usual

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._body_came = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body, too."""
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Answered: a client that goes on sending a body that nobody wants has a while for the rest of it."""
        super().on_response_complete()
        if self._in_body and self.cycle.response_complete:
            self._start()

    def pause_writing(self) -> None:
        """The client takes its answer more slowly than it is made."""
        super().pause_writing()
        self._sending = self.loop.call_later(self.limits.send_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken most of it."""
        super().resume_writing()
        if self._sending is not None:
            self._sending.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is owed any more."""
        self._stop()
        super().connection_lost(exc)

    def _refusal(self) -> ASGIApp | None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_BYTES:
            message = f"the headers are too long; expected at most {HEAD_BYTES} bytes"
            return answer(RefusedRequestError(431, message), closing=True)
        names = {name for name, _ in self.headers}
        if self.parser.should_upgrade() and names & {b"content-length", b"transfer-encoding"}:
            # The parser takes what follows for another protocol's.
            message = "no upgrade is offered; send the request without the header Upgrade"
            return answer(RefusedRequestError(400, message), closing=True)
        refusal = self.limits.shed(self.parser.get_method(), self.url)
        return None if refusal is None else answer(refusal)

    def _start(self) -> None:
        if self._owed is None:
            self._owed = self.loop.call_later(self.limits.header_timeout_s, self._give_up)

    def _stop(self) -> None:
        if self._owed is not None:
            self._owed.cancel()
            self._owed = None

    def _give_up(self) -> None:
        self._owed = None
        self.transport.close()


def guarded(limits: ConnectionLimits) -> type[GuardedProtocol]:
    """The protocol with these limits."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})


def _but_health(refusal: ASGIApp, usual: ASGIApp) -> ASGIApp:
    """No to all but the health routes, when somebody can answer them."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        allowed = scope["type"] != "http" or scope["path"] in OPEN
        await (usual if allowed else refusal)(scope, receive, send)

    return application
