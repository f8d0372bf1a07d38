"""Refusing at once what could not be queued: before its body is read, before there is a request to speak of.

Under overload most requests are refused. What a refusal costs is taken from those that are served: one made here takes a
fraction of one that goes through the routes, which say the same, only later. It is counted, but has no line in the log.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.state import ServerState

_SEGMENT, _MODELS, _INFER = "/v1/segment", "/v2/models/", "/infer"


class Shedding:
    """Asked for every request of a connection, by its method and its URL."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def __call__(self, method: bytes, url: bytes) -> RefusedRequestError | None:
        """429 for a model whose queue is full; None for all else: mistakes are the routes' to tell."""
        if method != b"POST":
            return None
        path, _, query = url.decode("latin-1").partition("?")
        model = self._model(path, query)
        if model is None or not model.full:
            return None
        refusal = model.refusal()
        self._state.metrics.refused(model, refusal.status)
        return refusal

    def _model(self, path: str, query: str) -> HostedModel | None:
        models = self._state.models
        if path == _SEGMENT:
            # Of several names the last one counts, as for the route.
            name = parse_qs(query).get("model", [""])[-1] if query else ""
            return models.get(name) if name else next(iter(models.values())) if len(models) == 1 else None
        if path.startswith(_MODELS) and path.endswith(_INFER):
            return models.get(path.removeprefix(_MODELS).removesuffix(_INFER).removesuffix("/versions/1"))
        return None
