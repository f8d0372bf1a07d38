"""A request's body, read under limits: bytes, pieces, seconds, and bytes held by all requests together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import Request

from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import ServerSettings

HELD = "dropclass.held"
"""Key of an ASGI scope: what gives a request's share of the budget back."""


class Budget:
    """Bytes of the bodies being held; used in the event loop's thread only.

    Attributes:
        limit: the most.
        held: now.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    def take(self, size: int) -> None:
        """Raises RefusedRequestError when so many bytes are not left."""
        if self.held + size > self.limit:
            raise RefusedRequestError(503, "the server holds too many bytes of other requests; try again later", 1)
        self.held += size

    def give_back(self, size: int) -> None:
        """The opposite of ``take``."""
        self.held -= size


async def read_body(request: Request, settings: ServerSettings, budget: Budget) -> bytes:
    """The whole body.

    Raises:
        RefusedRequestError: 400, 408, 413 or 503, see the settings.
        ClientDisconnect: when the client is gone.
    """
    _check_length(request.headers.get("content-length"), settings.max_body_bytes)
    held = [0]
    request.scope[HELD] = _giver_back(budget, held)
    body, pieces = bytearray(), 0
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for piece in request.stream():
                pieces += 1
                if len(body) + len(piece) > settings.max_body_bytes:
                    raise _too_large(settings.max_body_bytes)
                if pieces > settings.max_chunks:
                    raise RefusedRequestError(413, f"the body came in more than {settings.max_chunks} pieces")
                budget.take(len(piece))
                held[0] += len(piece)
                body += piece
    except TimeoutError as error:
        message = f"the body did not arrive within {settings.body_timeout_s:g} s"
        raise RefusedRequestError(408, message) from error
    return bytes(body)


def _check_length(given: str | None, limit: int) -> None:
    """Refuse what is announced to be too large before it is read."""
    if given is None:
        return
    # The HTTP parser has refused what is no number; a reader of other parsers' requests does not rely on it.
    if not (given.isascii() and given.isdecimal()):
        raise RefusedRequestError(400, "Content-Length is no number")
    if len(given) > 15 or int(given) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> RefusedRequestError:
    return RefusedRequestError(413, f"the body is too large; expected at most {limit} bytes")


def _giver_back(budget: Budget, held: list[int]) -> Callable[[], None]:
    def give_back() -> None:
        budget.give_back(held[0])
        held[0] = 0

    return give_back
