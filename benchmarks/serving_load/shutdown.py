"""SIGTERM while requests are in flight: nothing that was accepted is lost, and the process ends well."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from serving_load import pictures
from serving_load.outcome import Bar, equal
from serving_load.plain_http import SEGMENT, Connection, NoAnswerError, request_bytes
from serving_load.server_process import ServerProcess

REFUSED, CLOSED, HUNG = "connection refused", "connection closed", "no answer"
ANSWERED = "answered"


@dataclass(frozen=True)
class Request:
    """One of a client that was there when the signal came.

    Attributes:
        sent_s, done_s: by the monotonic clock.
        outcome: one of those above.
        status: of the answer, else 0.
    """

    sent_s: float
    done_s: float
    outcome: str
    status: int = 0


@dataclass(frozen=True)
class ShutdownOptions:
    """What is measured.

    Attributes:
        clients: each of them always has a request under way.
        before_s: of load before the signal.
        timeout_s: for the process to end.
        side: of the images, pixels.
    """

    clients: int = 8
    before_s: float = 1.5
    timeout_s: float = 40.0
    side: int = 256


def measure(command: list[str], options: ShutdownOptions) -> dict[str, Any]:
    """Figures of one shutdown."""
    with ServerProcess(command) as server:
        requests, signal_s, ended_s = asyncio.run(_under_load(server, options))
        code = server.wait(options.timeout_s)
        logged = logged_statuses(server.output())
    return figures(requests, signal_s) | {
        "answered_200": sum(request.status == 200 for request in requests),
        "logged": logged,
        "exit_code": code,
        "exit_after_s": None if code is None else round(ended_s - signal_s, 3),
        "clients": options.clients,
    }


def figures(requests: list[Request], signal_s: float) -> dict[str, Any]:
    """What became of the requests under way at the signal, and of those sent after it."""
    before = [request for request in requests if request.sent_s <= signal_s]
    under_way = [request for request in before if request.done_s > signal_s]
    after = [request for request in requests if request.sent_s > signal_s]
    return {
        "answered_before": Counter(_name(request) for request in before if request.done_s <= signal_s),
        "under_way": Counter(_name(request) for request in under_way),
        "sent_later": Counter(_name(request) for request in after),
    }


def logged_statuses(log: str) -> dict[str, int]:
    """How many requests for a mask the server says that it took, by their status: its access log, a line of JSON each."""
    lines = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return dict(Counter(str(line["status"]) for line in lines if line.get("path") == SEGMENT))


def bars(found: dict[str, Any]) -> tuple[Bar, ...]:
    """Requests under way get their masks, later ones a mask or a refusal, and the exit code is 0.

    A request sent later may find its connection closed: the server has stopped listening before it took it, or has ended an
    idle connection, which it may do at any time. Whether it was lost after all, the server's own log tells: every mask
    that it says it sent must have come, and none may have been given up ("499").
    """
    fine = {"200", "503", REFUSED, CLOSED}
    taken = {status: count for status, count in found["logged"].items() if status in ("200", "499", "500")}
    return (
        equal("SIGTERM: what requests under way got", sorted(found["under_way"]), ["200"]),
        equal("SIGTERM: later requests neither served nor refused", sorted(set(found["sent_later"]) - fine), []),
        equal("SIGTERM: requests that the server took, by its log", taken, {"200": found["answered_200"]}),
        equal("SIGTERM: exit code", found["exit_code"], 0),
    )


def _name(request: Request) -> str:
    return str(request.status) if request.outcome == ANSWERED else request.outcome


async def _under_load(server: ServerProcess, options: ShutdownOptions) -> tuple[list[Request], float, float]:
    """The requests, and when the signal was sent and the process had ended (monotonic seconds)."""
    request = request_bytes(server.address, pictures.encoded(options.side, options.side))
    requests: list[Request] = []
    clients = [asyncio.create_task(_client(server, request, requests)) for _ in range(options.clients)]
    await asyncio.sleep(options.before_s)
    signal_s = time.monotonic()
    server.terminate()
    while server.running and time.monotonic() - signal_s < options.timeout_s:
        await asyncio.sleep(0.005)
    ended_s = time.monotonic()
    # Without a server they end by themselves; one that hangs has to be cut off.
    _, hanging = await asyncio.wait(clients, timeout=5)
    for client in hanging:
        client.cancel()
    requests += [Request(signal_s, ended_s, HUNG) for _ in hanging]
    return requests, signal_s, ended_s


async def _client(server: ServerProcess, request: bytes, requests: list[Request]) -> None:
    connection: Connection | None = None
    while True:
        if connection is None or not connection.usable:
            try:
                connection = await Connection.open(server.address)
            except OSError:
                now = time.monotonic()
                requests.append(Request(now, now, REFUSED))
                return
        sent_s = time.monotonic()
        try:
            status = (await connection.ask(request)).status
            requests.append(Request(sent_s, time.monotonic(), ANSWERED, status))
        except NoAnswerError:
            requests.append(Request(sent_s, time.monotonic(), CLOSED))
            connection = None
        if requests[-1].status not in (0, 200):
            # As a client should that is told to come back later.
            await asyncio.sleep(0.02)
