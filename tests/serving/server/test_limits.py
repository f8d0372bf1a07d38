"""What a request may cost: bytes, pieces, pixels, memory of all bodies together."""

import asyncio
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from server_builders import client, png
from starlette.requests import Request

from dropclass_deploy.serving.server.bodies import HELD, Budget, read_body
from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import ServerSettings

URL = "/v1/segment"


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few KiB that says it has this size, its pixels all zero and truncated."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    with client(max_body_bytes=1000) as http:
        answer = http.post(URL, content=bytes(1001))
        assert (answer.status_code, answer.json()["error"]) == (
            413,
            "the body is too large; expected at most 1000 bytes",
        )
        assert http.post(URL, content=png()).status_code == 200


def test_a_body_without_a_length_is_counted() -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(11):
            yield bytes(100)

    with client(max_body_bytes=1000) as http:
        assert http.post(URL, content=pieces()).status_code == 413


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (1001, 1000), (2**31 - 1, 1), (1, 2**31 - 1)])
def test_pixels_are_counted_before_they_are_decoded(width: int, height: int) -> None:
    with client(max_pixels=1_000_000) as http:
        answer = http.post(URL, content=bomb(width, height))
    assert answer.status_code == 400
    assert "expected at most 1000000 pixels" in answer.json()["error"]


def test_formats_that_are_not_listed_are_not_decoded() -> None:
    with client(formats=["JPEG"]) as http:
        answer = http.post(URL, content=png())
    assert answer.status_code == 400
    assert "expected a whole JPEG file" in answer.json()["error"]


def request_of(messages: list[dict[str, Any]], **headers: str) -> Request:
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        message = next(waiting, None)
        if message is None:
            await asyncio.sleep(60)
        assert message is not None
        return message

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


def piece(size: int, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": bytes(size), "more_body": more}


def refusal(request: Request, budget: Budget | None = None, **settings: Any) -> RefusedRequestError:
    with pytest.raises(RefusedRequestError) as caught:
        asyncio.run(read_body(request, ServerSettings(**settings), budget or Budget(10**6)))
    return caught.value


def test_many_tiny_pieces() -> None:
    refused = refusal(request_of([piece(1)] * 20), max_chunks=10)
    assert (refused.status, refused.message) == (413, "the body came in more than 10 pieces")


def test_a_body_that_trickles_in() -> None:
    refused = refusal(request_of([piece(1)]), body_timeout_s=0.05)
    assert (refused.status, refused.message) == (408, "the body did not arrive within 0.05 s")


@pytest.mark.parametrize("length", ["-1", "1e3", "٣", "0x10", "", "9" * 400])
def test_a_length_that_is_none(length: str) -> None:
    raw = Request({"type": "http", "method": "POST", "headers": [(b"content-length", length.encode())]})
    assert refusal(raw).status in (400, 413)


def test_bodies_share_a_budget_and_give_it_back() -> None:
    budget = Budget(1000)
    first = request_of([piece(600, more=False)])
    assert asyncio.run(read_body(first, ServerSettings(), budget)) == bytes(600)
    second = request_of([piece(300), piece(300, more=False)])
    refused = refusal(second, budget)
    assert (refused.status, refused.retry_after_s) == (503, 1)
    # What the refused one had taken is given back at its end, and once only.
    assert budget.held == 900
    for _ in range(2):
        second.scope[HELD]()
    assert budget.held == 600
    first.scope[HELD]()
    assert budget.held == 0


def test_the_budget_is_given_back_after_every_request() -> None:
    with client(max_buffered_bytes=2000) as http:
        for _ in range(20):
            assert http.post(URL, content=png()).status_code == 200
            assert http.post(URL, content=bytes(1000)).status_code == 400
        assert http.app.state.server.budget.held == 0
