"""The application around a segmenter whose masks are known, and a way to call it without a network."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from fastapi import FastAPI
from server_builders import RedSegmenter
from starlette.requests import Request

from dropclass_deploy.serving.segmentation import Segmentation
from dropclass_deploy.serving.server.app import create_app
from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.settings import ServerSettings
from dropclass_deploy.serving.server.state import ServerState

NAME = "tiny-model_1.0"


def expected_mask(images: np.ndarray) -> np.ndarray:
    """What the fake model gives: uint8 (…, H, W, 3) → (…, H, W)."""
    return images[..., 0] % 5 + 10 * (images[..., 2] > 127)


class Coloured(RedSegmenter):
    """A segmenter with these masks."""

    def segment_batch(self, images: Sequence[np.ndarray]) -> list[Segmentation]:
        for image in images:
            assert image.dtype == np.uint8
            assert image.ndim == 3
        return [Segmentation(expected_mask(image).astype(np.uint8), ("a", "b"), {}) for image in images]


class FakeModel(HostedModel):
    """A hosted model of such masks, ready unless it is told not to be; remembers the timeouts it granted."""

    ready = True  # type: ignore[assignment]

    def __init__(self, name: str = NAME, **settings: Any) -> None:
        super().__init__(name, Coloured, ServerSettings(**settings))
        self.open()
        self.timeouts: list[float] = []

    def timeout_s(self, asked: float | None) -> float:
        self.timeouts.append(super().timeout_s(asked))
        return self.timeouts[-1]


class FakeServer(ServerState):
    """The server's own state around such models; counts the bodies, remembers the threads."""

    def __init__(self, *models: FakeModel, **settings: Any) -> None:
        # One queue for all the images of a request.
        configured = ServerSettings(**{"access_log": False, **settings})
        super().__init__(models or (FakeModel(**settings),), configured)
        self.bodies_read = 0
        self.pool_threads: set[int] = set()

    async def body(self, request: Request) -> bytes:
        self.bodies_read += 1
        return await super().body(request)

    async def in_pool(self, function: Callable[..., Any], *arguments: Any) -> Any:
        def noted() -> Any:
            self.pool_threads.add(threading.get_ident())
            return function(*arguments)

        return await super().in_pool(noted)


def app_of(server: FakeServer) -> FastAPI:
    """The application itself, with this state in the place of its own."""
    return create_app(list(server.models.values()), server.settings, server)


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
    waiting = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        message = next(waiting, None)
        if message is None:
            await asyncio.sleep(3600)  # a client that stays
        assert message is not None
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    fields = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], fields, b"".join(message.get("body", b"") for message in sent[1:]))


def ask(server: FakeServer, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """One request to the routes; an exception that nobody handles comes through."""
    return asyncio.run(_asked(app_of(server), method, path, body, headers or {}))
