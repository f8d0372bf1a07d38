"""Refusing at once what could not be queued: before its body is read, before a route is looked for.

Under overload most requests are refused. What a refusal costs is taken from those that are served: an answer made here
takes a fraction of one that goes through the routes.
"""

from __future__ import annotations

import json
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.record import record_of
from dropclass_deploy.serving.server.state import ServerState

_SEGMENT, _MODELS, _INFER = "/v1/segment", "/v2/models/", "/infer"


class Shedding:
    """ASGI middleware: 429 for a model whose queue is full; the routes say the same, only later."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = self._model(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if model is None or not model.full:
            await self._app(scope, receive, send)
            return
        record_of(scope).model = model
        refusal = model.refusal()
        body = json.dumps({"error": refusal.message}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(refusal.retry_after_s).encode()),
        ]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _model(self, scope: Scope) -> HostedModel | None:
        """The model that a request is for, where the path says so; mistakes are the routes' to tell."""
        path: str = scope["path"]
        models = self._state.models
        if path == _SEGMENT:
            if len(models) == 1 and not scope["query_string"]:
                return next(iter(models.values()))
            # Of several the last one counts, as for the route.
            name = parse_qs(scope["query_string"].decode("latin-1")).get("model", [""])[-1]
            return models.get(name) if name else next(iter(models.values())) if len(models) == 1 else None
        if path.startswith(_MODELS) and path.endswith(_INFER):
            return models.get(path.removeprefix(_MODELS).removesuffix(_INFER).removesuffix("/versions/1"))
        return None
