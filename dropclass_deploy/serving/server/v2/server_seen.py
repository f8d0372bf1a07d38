"""What the V2 routes see of the server that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from starlette.requests import Request

from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.settings import ServerSettings

Result = TypeVar("Result")


class ServerSeen(Protocol):
    """``app.state.server``.

    Attributes:
        settings: every limit.
        models: what is served, by name.
        draining: whether the server is about to stop.
    """

    @property
    def settings(self) -> ServerSettings: ...

    @property
    def models(self) -> Mapping[str, HostedModel]: ...

    @property
    def draining(self) -> bool: ...

    async def body(self, request: Request) -> bytes:
        """The whole body as it arrived, compressed or not, within the limits of size and time."""
        ...

    async def in_pool(self, function: Callable[..., Result], *arguments: object) -> Result:
        """What a function gives, run off the event loop."""
        ...


def server_of(request: Request) -> ServerSeen:
    """The server that a request came to."""
    server: ServerSeen = request.app.state.server
    return server
