"""What every request passes first: its id, its clock, its line in the log."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dropclass_deploy.core.errors import printable
from dropclass_deploy.serving.server.bodies import HELD
from dropclass_deploy.serving.server.metrics import GONE
from dropclass_deploy.serving.server.record import Record, begin_record
from dropclass_deploy.serving.server.refusals import RefusedRequestError, answer
from dropclass_deploy.serving.server.state import ServerState

REQUEST_ID = "X-Request-ID"
access = logging.getLogger("dropclass_deploy.access")
log = logging.getLogger("dropclass_deploy.server")


class Entrance:
    """ASGI middleware around the whole application; see the module."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = begin_record(scope, Headers(scope=scope).get(REQUEST_ID))
        outgoing = _Outgoing(send, record, self._state)
        try:
            await self._app(scope, receive, outgoing)
        except ClientDisconnect:
            log.debug("the client of request %s has left: nobody waits for an answer", record.request_id)
        except asyncio.CancelledError:
            # The time for what was accepted is over.
            if not self._state.draining or outgoing.began:
                raise
            await answer(RefusedRequestError(503, "the server is stopping", 1))(scope, receive, outgoing)
        except Exception as error:  # a fault of ours: the client learns its number, the log the rest
            _log_fault(record, error)
            if not outgoing.began:
                fault = RefusedRequestError(500, f"internal error, request {record.request_id}")
                await answer(fault)(scope, receive, outgoing)
        finally:
            scope.pop(HELD, lambda: None)()
            self._account(scope, record, outgoing)

    def _account(self, scope: Scope, record: Record, outgoing: _Outgoing) -> None:
        total_ms = 1e3 * record.elapsed_s
        if record.model is not None:
            if outgoing.status == 200:
                self._state.metrics.succeeded(record.model, record.stages_ms, total_ms)
            else:
                self._state.metrics.refused(record.model, outgoing.status)
        if self._state.settings.access_log:
            access.info(_Line(scope, record, outgoing, total_ms))


class _Outgoing:
    """``send`` with an id in the headers; remembers what was sent."""

    def __init__(self, send: Send, record: Record, state: ServerState) -> None:
        self._send, self._record, self._state = send, record, state
        self.began, self.status, self.sent = False, GONE, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began, self.status = True, message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self._record.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
            if self._state.draining:
                # The next request on this connection would find nobody.
                headers["Connection"] = "close"
        else:
            self.sent += len(message.get("body", b""))
        await self._send(message)


def _log_fault(record: Record, error: Exception) -> None:
    log.error(
        json.dumps({"event": "fault", "request_id": record.request_id, "traceback": traceback.format_exception(error)})
    )


class _Line:
    """A line of the access log, made into text when it is written; the query is left out: it is the client's own."""

    def __init__(self, scope: Scope, record: Record, outgoing: _Outgoing, total_ms: float) -> None:
        self._at, self._client = time.time(), scope.get("client")
        self._method, self._path = scope["method"], scope["path"]
        self._record, self._status, self._sent, self._total_ms = record, outgoing.status, outgoing.sent, total_ms

    def __str__(self) -> str:
        record = self._record
        fields = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._at)),
            "request_id": record.request_id,
            "client": None if self._client is None else self._client[0],
            "method": self._method,
            "path": printable(self._path)[:256],
            "model": None if record.model is None else record.model.name,
            "images": record.images,
            "status": self._status,
            "bytes_out": self._sent,
            "duration_ms": round(self._total_ms, 3),
            "stages_ms": {name: round(value, 3) for name, value in record.stages_ms.items()},
        }
        return json.dumps(fields, ensure_ascii=True)
