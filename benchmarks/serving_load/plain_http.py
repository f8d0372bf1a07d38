"""HTTP/1.1 as thin as possible: a client that costs little, and whose every byte is ours to hold back."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from dataclasses import dataclass
from typing import NamedTuple

SEGMENT = "/v1/segment"
READY = "/v2/health/ready"


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class NoAnswerError(Exception):
    """A request that got no whole answer; the text says why."""


@dataclass(frozen=True)
class Answer:
    """Of a server.

    Attributes:
        status: of HTTP.
        headers: by lower-case name.
        body: whole.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def request_bytes(address: Address, body: bytes, target: str = SEGMENT) -> bytes:
    """A POST as it goes over the wire."""
    return request_head(address, len(body), target) + body


def request_head(address: Address, length: int, target: str = SEGMENT) -> bytes:
    """Line and headers of a POST whose body has ``length`` bytes."""
    return (
        f"POST {target} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


class Connection:
    """One kept-alive connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, address: Address) -> Connection:
        """Connect.

        Raises:
            OSError: when nobody listens.
        """
        connection = cls(*await asyncio.open_connection(*address))
        connection._writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    @property
    def usable(self) -> bool:
        """Whether the server has left it open, as far as is known."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    async def ask(self, request: bytes, timeout_s: float = 60.0) -> Answer:
        """Send a request and read its answer.

        Raises:
            NoAnswerError: when there is none, or not a whole one, in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(request)
                answer = await self._read()
        except TimeoutError:
            self.close()
            raise NoAnswerError(f"nothing within {timeout_s:g} s") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise NoAnswerError(type(error).__name__) from error
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def _read(self) -> Answer:
        head = await self._reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").rstrip().split("\r\n")
        pairs = (field.partition(":") for field in fields)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(line.split(" ", 2)[1]), headers, body)

    def close(self) -> None:
        """Without waiting for the other side."""
        self._writer.close()

    async def ended(self) -> None:
        """Close, and wait until it is."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Client:
    """One kept-alive connection for calls that are made one after another, without a loop."""

    def __init__(self, address: Address, timeout_s: float = 60.0) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=timeout_s)

    def get(self, target: str) -> Answer:
        """Raises OSError or http.client.HTTPException when there is no answer."""
        return self._ask("GET", target, None)

    def post(self, body: bytes, target: str = SEGMENT) -> Answer:
        """As ``get``."""
        return self._ask("POST", target, body)

    def _ask(self, method: str, target: str, body: bytes | None) -> Answer:
        self._connection.request(method, target, body, {"Content-Type": "application/octet-stream"} if body else {})
        found = self._connection.getresponse()
        headers = {name.lower(): value for name, value in found.getheaders()}
        return Answer(found.status, headers, found.read())

    def close(self) -> None:
        """Of the connection; a further call opens another."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
