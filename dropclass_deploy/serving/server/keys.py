"""The API key: one for the whole server, carried by every request but those of the health routes."""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dropclass_deploy.serving.server.refusals import RefusedRequestError, answer

OPEN = ("/v2/health/live", "/v2/health/ready")
"""Asked by load balancers, which have no key; they say one bit."""
_WANTED = "this server wants an API key: Authorization: Bearer KEY, or X-API-Key: KEY"


class KeyCheck:
    """ASGI middleware: 401 unless ``Authorization: Bearer KEY`` or ``X-API-Key: KEY`` is right."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._digest = app, _digest(key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or self._is_right(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        refusal = answer(RefusedRequestError(401, _WANTED))
        refusal.headers["WWW-Authenticate"] = "Bearer"
        await refusal(scope, receive, send)

    def _is_right(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # Digests have one length: the time says nothing of how much was right.
        return hmac.compare_digest(_digest(given), self._digest)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
