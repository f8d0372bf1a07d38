"""Why a request gets no mask, as exceptions that become HTTP answers ``{"error": "…"}``."""

from __future__ import annotations

from starlette.responses import JSONResponse

from dropclass_deploy.core.errors import DropclassError


class RefusedRequestError(DropclassError):
    """A request that is answered with an error.

    Attributes:
        status: of the answer, 4xx or 5xx.
        message: one sentence for the client: what was wrong with the request, nothing from inside.
        retry_after_s: whole seconds until another try makes sense, or None.
    """

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after_s = status, message, retry_after_s


def answer(refusal: RefusedRequestError, *, closing: bool = False) -> JSONResponse:
    """The answer, which is an ASGI application, too; ``closing``: and no other request on this connection."""
    headers = {"Connection": "close"} if closing else {}
    headers |= {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    return JSONResponse({"error": refusal.message}, refusal.status, headers)
