"""Connections that cannot be held for ever: a limit on how long a request's headers may take to arrive.

uvicorn limits how long an idle connection stays open between requests, not how slowly a request may trickle in.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class GuardedProtocol(H11Protocol):
    """uvicorn's h11 protocol; ``header_timeout_s`` is set by ``guarded``."""

    header_timeout_s = 10.0
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection owes a request."""
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        """Look whether the headers are complete by now."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._start()
        else:
            self._stop()

    def on_response_complete(self) -> None:
        """Answered: a client that goes on sending the rest of a body that nobody wants has a while for it."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._start()
        elif self.conn.their_state is not h11.IDLE:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is owed any more."""
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self.header_timeout_s, self._give_up)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _give_up(self) -> None:
        self._clock = None
        self.transport.close()


def guarded(header_timeout_s: float) -> type[GuardedProtocol]:
    """The protocol with this limit."""
    return type("GuardedProtocol", (GuardedProtocol,), {"header_timeout_s": header_timeout_s})
