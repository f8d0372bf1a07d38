"""What all routes share: the models, the settings, the threads for CPU work, the bytes being held."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, TypeVarTuple, cast

from fastapi import Request
from starlette.requests import HTTPConnection

from dropclass_deploy.serving.server.bodies import Budget, read_body
from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.metrics import Metrics
from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import ServerSettings

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class ServerState:
    """One server.

    Attributes:
        settings: its limits.
        models: by name.
        metrics: what ``/metrics`` shows.
        budget: bytes of bodies being held.
        draining: whether it is about to end; then it is not ready.
        failure: why a network could not be opened at the start.
        give_up: called then.
        abandon: called at the end when a network does not return.
        opened: called when every network has been opened, or could not be.
    """

    def __init__(self, models: Sequence[HostedModel], settings: ServerSettings) -> None:
        self.settings = settings
        self.models = {model.name: model for model in models}
        self.metrics = Metrics(list(models))
        self.budget = Budget(settings.max_buffered_bytes)
        self.draining = False
        self.failure: Exception | None = None
        self.give_up: Callable[[], None] = lambda: None
        self.abandon: Callable[[], None] = lambda: None
        self.opened: Callable[[], None] = lambda: None
        for model in models:
            model.on_run = functools.partial(self.metrics.ran, model)
        # Decoding and encoding release the GIL for most of their time.
        self._pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), "pixels")

    def model(self, name: str | None) -> HostedModel:
        """A model by name; None is the only one.

        Raises:
            RefusedRequestError: when there is no such model, or several and no name.
        """
        names = ", ".join(self.models)
        if name is None:
            if len(self.models) > 1:
                raise RefusedRequestError(400, f"several models are served: say which with ?model=NAME, one of {names}")
            return next(iter(self.models.values()))
        if name not in self.models:
            raise RefusedRequestError(404, f"there is no model of this name; expected one of {names}")
        return self.models[name]

    async def body(self, request: Request) -> bytes:
        """A request's body, within the limits; what it takes of the budget is given back at the request's end.

        Raises:
            RefusedRequestError: 413 when it is too large, 408 when it arrives too slowly, 503 when too much is held already.
        """
        return await read_body(request, self.settings, self.budget)

    async def in_pool(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Run CPU work beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def close(self, timeout_s: float | None = None) -> bool:
        """Let models and threads go; False when a network is still running after that time."""
        ended = [model.close(timeout_s) for model in self.models.values()]
        self._pool.shutdown(wait=all(ended), cancel_futures=True)
        return all(ended)


def state_of(connection: HTTPConnection) -> ServerState:
    """The state of the server that a request came to."""
    app: Any = connection.app
    return cast(ServerState, app.state.server)
