"""The routes below ``/v2``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from dropclass_deploy.serving.server.hosting import NAME, HostedModel
from dropclass_deploy.serving.server.inference import segment
from dropclass_deploy.serving.server.record import record_of
from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import ServerSettings
from dropclass_deploy.serving.server.state import state_of
from dropclass_deploy.serving.server.v2.descriptions import index_entry, model_config, model_metadata, server_metadata
from dropclass_deploy.serving.server.v2.encodings import decompressed
from dropclass_deploy.serving.server.v2.json_text import parse_json
from dropclass_deploy.serving.server.v2.reply import encode_reply
from dropclass_deploy.serving.server.v2.schema import shown
from dropclass_deploy.serving.server.v2.tensors import read_request

_NAMED = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_INFER_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"type": "object"},
            "example": {
                "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": "3,072 values"}],
                "outputs": [{"name": "mask"}],
            },
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
# An index request says one thing; this is plenty.
_INDEX_BYTES = 65_536


def router() -> APIRouter:
    """All routes; the app that includes them has its server as ``app.state.server``."""
    routes = APIRouter(tags=["Open Inference Protocol V2"])
    routes.add_api_route("/v2", metadata, summary="The server")
    routes.add_api_route("/v2/health/live", live, summary="Does the process answer?")
    routes.add_api_route("/v2/health/ready", ready, summary="Do all models answer?")
    routes.add_api_route("/v2/repository/index", index, methods=["POST"], summary="The models and their states")
    for action in ("load", "unload"):
        path = f"/v2/repository/models/{{name}}/{action}"
        routes.add_api_route(path, chosen_at_start, methods=["POST"], include_in_schema=False)
    # Documented once: the versioned paths say the same.
    for model, in_schema in (("/v2/models/{name}", True), ("/v2/models/{name}/versions/{version}", False)):
        described_as: dict[str, Any] = {"include_in_schema": in_schema, "openapi_extra": {"parameters": [_NAMED]}}
        routes.add_api_route(model, described, summary="A model's tensors", **described_as)
        routes.add_api_route(f"{model}/ready", model_ready, summary="Does this model answer?", **described_as)
        routes.add_api_route(f"{model}/config", configured, summary="A model in Triton's words", **described_as)
        described_as["openapi_extra"] = {"parameters": [_NAMED], "requestBody": _INFER_BODY}
        routes.add_api_route(f"{model}/infer", infer, methods=["POST"], summary="Masks of a batch", **described_as)
    return routes


async def metadata() -> dict[str, Any]:
    """Name, version and extensions of this server."""
    return server_metadata()


async def live() -> dict[str, Any]:
    """200 as long as the server answers at all."""
    return {"live": True}


async def ready(request: Request) -> dict[str, Any]:
    """200 when every model answers and the server is not about to stop, else 503."""
    server = state_of(request)
    _check_not_draining(request)
    for model in server.models.values():
        _check_ready(model)
    return {"ready": True}


async def index(request: Request) -> list[dict[str, Any]]:
    """The models and their states; with ``{"ready": true}`` those that are ready."""
    server = state_of(request)
    encoding = request.headers.getlist("content-encoding")
    only_ready = _only_ready(await server.body(request), encoding, server.settings)
    return [index_entry(model) for model in server.models.values() if model.ready or not only_ready]


async def chosen_at_start() -> None:
    """Always refused."""
    raise RefusedRequestError(
        400, "models are chosen when the server starts; they are neither loaded nor unloaded later"
    )


async def described(request: Request) -> dict[str, Any]:
    """The model's tensors."""
    return model_metadata(_model(request))


async def configured(request: Request) -> dict[str, Any]:
    """The model's configuration in Triton's words."""
    return model_config(_model(request))


async def model_ready(request: Request) -> dict[str, Any]:
    """200 when this model answers and the server is not about to stop, else 503."""
    model = _model(request)
    _check_not_draining(request)
    _check_ready(model)
    return {"name": model.name, "ready": True}


async def infer(request: Request) -> Response:
    """``image`` UINT8 [N, H, W, 3] RGB → ``mask`` UINT8 [N, H, W] of class ids."""
    model, server, fields = _model(request), state_of(request), request.headers
    record = record_of(request.scope)
    record.model = model
    body = await server.body(request)
    with model.enter() as place:
        with record.stage("decode"):
            wanted = await server.in_pool(
                read_request,
                body,
                fields.getlist("inference-header-content-length"),
                fields.getlist("content-encoding"),
                server.settings,
            )
        found = await segment(request, model, list(wanted.images), wanted.timeout_s, place)
    masks = [segmentation.mask for segmentation in found]
    accepted = ",".join(fields.getlist("accept-encoding"))
    with record.stage("encode"):
        reply = await server.in_pool(encode_reply, model.name, model.version, wanted, masks, accepted)
    return Response(reply.content, headers=reply.headers)


def _model(request: Request) -> HostedModel:
    """The model of a path; paths without a version mean the only one."""
    name, version = request.path_params["name"], request.path_params.get("version")
    if not NAME.fullmatch(name):
        raise RefusedRequestError(
            400, f"{shown(name)!r} is no model's name: expected letters, digits, '.', '_' and '-', 128 at most"
        )
    models = state_of(request).models
    if name not in models:
        raise RefusedRequestError(404, f"there is no model {shown(name)!r}")
    model = models[name]
    if version not in (None, model.version):
        raise RefusedRequestError(404, f"the model {name!r} has no version {shown(version)!r}, only {model.version!r}")
    return model


def _check_not_draining(request: Request) -> None:
    if state_of(request).draining:
        raise RefusedRequestError(503, "the server is about to stop")


def _check_ready(model: HostedModel) -> None:
    if not model.ready:
        raise RefusedRequestError(503, f"the model {model.name!r} is not ready")


def _only_ready(body: bytes, content_encoding: list[str], settings: ServerSettings) -> bool:
    if not body:
        return False
    plain = decompressed(body, content_encoding, _INDEX_BYTES)
    found = parse_json(plain, max_bytes=_INDEX_BYTES, max_depth=settings.max_json_depth, max_objects=1)
    value = found.get("ready", False) if isinstance(found, dict) and set(found) <= {"ready"} else None
    if not isinstance(value, bool):
        raise RefusedRequestError(400, 'the body is wrong; expected nothing or {"ready": true}')
    return value
