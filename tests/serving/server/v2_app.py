"""The V2 routes in a small app: a fake model whose masks are known, and a way to call it without a network."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from dropclass_deploy.serving.segmenter import Segmentation
from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import ServerSettings
from dropclass_deploy.serving.server.v2.routes import router

NAME = "tiny-model_1.0"


def expected_mask(images: np.ndarray) -> np.ndarray:
    """What the fake model gives: uint8 (…, H, W, 3) → (…, H, W)."""
    return images[..., 0] % 5 + 10 * (images[..., 2] > 127)


class FakeModel(HostedModel):
    ready = True  # type: ignore[assignment]

    def __init__(self, name: str = NAME) -> None:
        self.name = name
        self.timeouts: list[float | None] = []

    async def segment(self, images: Sequence[np.ndarray], timeout_s: float | None = None) -> list[Segmentation]:
        self.timeouts.append(timeout_s)
        for image in images:
            assert image.dtype == np.uint8
            assert image.ndim == 3
        return [Segmentation(expected_mask(image).astype(np.uint8), ("a", "b"), {}) for image in images]


class FakeServer:
    def __init__(self, *models: FakeModel, **settings: Any) -> None:
        self.settings = ServerSettings(**settings)
        self.models = {model.name: model for model in models or (FakeModel(),)}
        self.draining = False
        self.bodies_read = 0
        self.pool_threads: set[int] = set()

    async def body(self, request: Request) -> bytes:
        self.bodies_read += 1
        return await request.body()

    async def in_pool(self, function: Callable[..., Any], *arguments: object) -> Any:
        def noted() -> Any:
            self.pool_threads.add(threading.get_ident())
            return function(*arguments)

        return await asyncio.to_thread(noted)


def app_of(server: FakeServer) -> FastAPI:
    app = FastAPI()
    app.state.server = server
    app.include_router(router())

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RefusedRequestError)
        return JSONResponse({"error": error.message}, error.status)

    async def unknown(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code)

    app.add_exception_handler(RefusedRequestError, refused)
    app.add_exception_handler(HTTPException, unknown)
    return app


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def _asked(app: FastAPI, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "server": ("test", 80),
        "client": ("test", 1),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    fields = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], fields, b"".join(message.get("body", b"") for message in sent[1:]))


def ask(server: FakeServer, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """One request to the routes; an exception that nobody handles comes through."""
    return asyncio.run(_asked(app_of(server), method, path, body, headers or {}))
