"""The application: models and settings in, an ASGI application out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from dropclass_deploy import __version__
from dropclass_deploy.core.errors import DataError, UserError, first_line
from dropclass_deploy.serving.server import segment_route
from dropclass_deploy.serving.server.entrance import Entrance
from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.keys import KeyCheck
from dropclass_deploy.serving.server.page import page
from dropclass_deploy.serving.server.refusals import RefusedRequestError, answer
from dropclass_deploy.serving.server.settings import ServerSettings
from dropclass_deploy.serving.server.state import ServerState, state_of
from dropclass_deploy.serving.server.v2 import routes as v2_routes

log = logging.getLogger("dropclass_deploy.server")

_ABOUT = (
    "Masks of class ids for images. `/v1/segment` takes image files; `/v2` is the Open Inference Protocol, with the binary "
    'tensor extension. Errors are `{"error": "…"}`.'
)


def create_app(models: Sequence[HostedModel], settings: ServerSettings, state: ServerState | None = None) -> FastAPI:
    """The server around some models, which are opened at its start and closed at its end.

    ``state`` stands in the place of a new one.

    Raises:
        UserError: for no model, or two of one name.
    """
    names = [model.name for model in models]
    if not names or len(set(names)) != len(names):
        raise UserError(
            f"the models to serve are {', '.join(names) or 'none'}",
            expected="at least one, each with a name of its own",
        )
    state = state or ServerState(models, settings)

    app = FastAPIOffline(
        redoc_url=None,
        redirect_slashes=False,
        title="dropclass serve",
        version=__version__,
        description=_ABOUT,
        lifespan=_lifespan(state),
        swagger_ui_oauth2_redirect_url="/docs/oauth2-redirect",
    )
    app.state.server = state
    app.include_router(segment_route.router())
    app.include_router(v2_routes.router())
    _add_small_routes(app)
    _add_refusals(app)
    # The last one added is the first that a request meets.
    if settings.api_key is not None:
        app.add_middleware(KeyCheck, key=settings.api_key.get_secret_value())
    app.add_middleware(Entrance, state=state)
    return app


def _lifespan(state: ServerState) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        opening = asyncio.create_task(_open_all(state))
        yield
        within = state.settings.drain_timeout_s
        await asyncio.wait({opening}, timeout=within)
        if not opening.done() or not await asyncio.to_thread(state.close, within):
            state.abandon()

    return lifespan


async def _open_all(state: ServerState) -> None:
    await asyncio.gather(*(_open(model, state) for model in state.models.values()))
    state.opened()


async def _open(model: HostedModel, state: ServerState) -> None:
    """Beside the event loop: the server lives, and says that it is not ready, while networks are loaded."""
    try:
        await asyncio.to_thread(model.open)
    except Exception as error:
        log.error("model %s cannot be opened (%s)", model.name, first_line(error))
        state.failure = error
        state.give_up()
    else:
        log.info("model %s is ready", model.name)


def _add_small_routes(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> HTMLResponse:
        text = page(state_of(request))
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; form-action 'self'"
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    @app.get("/metrics", tags=["operation"], summary="Prometheus metrics", response_class=Response)
    async def metrics(request: Request) -> Response:
        content = state_of(request).metrics.text()
        return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_refusals(app: FastAPI) -> None:
    """Every error as ``{"error": "…"}``."""

    @app.exception_handler(RefusedRequestError)
    async def refused(_: Request, error: RefusedRequestError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(UserError)
    async def mistake(_: Request, error: UserError) -> JSONResponse:
        if type(error) not in (UserError, DataError):
            raise error  # of our files and libraries, not of the request
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(HTTPException)
    async def not_a_route(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def not_valid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 400)
