"""Whether memory stays: mixed sizes, formats and broken bodies, by the thousand, and the server's RSS over them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving_load import pictures
from serving_load.figures import second_half, slope_per_1000
from serving_load.outcome import Bar, Outcome, equal
from serving_load.plain_http import SEGMENT, Connection, NoAnswerError, request_bytes
from serving_load.server_process import ServerProcess, serve_command

FORMATS = ("mask", "mask", "overlay", "json")
WHOLE, BROKEN = "whole", "broken"


@dataclass(frozen=True)
class MemoryOptions:
    """What is measured.

    Attributes:
        artifact: folder.
        requests: altogether. sample_every: so many of them, RSS is read.
        clients: at a time; no more than the server's queue takes, or it would refuse instead of work.
        broken_share: of requests whose body is no whole image.
        seed: of the order.
    """

    artifact: Path
    requests: int = 10_000
    sample_every: int = 250
    clients: int = 4
    broken_share: float = 0.1
    seed: int = 0


@dataclass
class Tally:
    """What came back.

    Attributes:
        statuses: by kind of the body, then by status or "no answer".
        requests, rss_kib: of the samples: requests answered, resident memory.
    """

    statuses: dict[str, Counter[str]]
    requests: list[int]
    rss_kib: list[float]


def measure(options: MemoryOptions) -> Outcome:
    """Send everything to one server."""
    with ServerProcess(serve_command(options.artifact, {})) as server:
        tally = Tally({WHOLE: Counter(), BROKEN: Counter()}, [0], [server.rss_kib()])
        asyncio.run(_all_clients(server, options, tally))
    figures = {
        "rss_kib_first": round(tally.rss_kib[0]),
        "rss_kib_middle": round(second_half(tally.requests, tally.rss_kib)[1][0]),
        "rss_kib_last": round(tally.rss_kib[-1]),
        "rss_kib_greatest": round(max(tally.rss_kib)),
        "slope_kib_per_1000_requests": round(slope_per_1000(*second_half(tally.requests, tally.rss_kib)), 1),
        "statuses": {kind: dict(sorted(counts.items())) for kind, counts in tally.statuses.items()},
        "samples": [[count, round(kib)] for count, kib in zip(tally.requests, tally.rss_kib, strict=True)],
    }
    settings = {**asdict(options), "artifact": options.artifact.name, "sides": pictures.SIDES, "server": {}}
    return Outcome(settings, figures, bars(figures))


def bars(figures: dict[str, Any]) -> tuple[Bar, ...]:
    """Whole images give masks, broken ones 4xx; the slope is for the reader."""
    whole, broken = figures["statuses"][WHOLE], figures["statuses"][BROKEN]
    others = {status: count for status, count in whole.items() if status != "200"}
    strange = {status: count for status, count in broken.items() if not status.startswith("4")}
    return (
        equal("answers to whole images other than 200", others, {}),
        equal("answers to broken bodies other than 4xx", strange, {}),
    )


def bodies(options: MemoryOptions) -> Iterator[tuple[str, bytes, str]]:
    """(kind, body, target) of every request, the same for the same seed."""
    chosen = random.Random(options.seed)
    whole, broken = pictures.mixed(), pictures.malformed()
    for _ in range(options.requests):
        kind = BROKEN if chosen.random() < options.broken_share else WHOLE
        body = chosen.choice(broken if kind == BROKEN else whole)
        yield kind, body, f"{SEGMENT}?format={chosen.choice(FORMATS)}"


async def _all_clients(server: ServerProcess, options: MemoryOptions, tally: Tally) -> None:
    waiting = bodies(options)
    async with asyncio.TaskGroup() as clients:
        for _ in range(options.clients):
            clients.create_task(_one_client(server, options, waiting, tally))


async def _one_client(
    server: ServerProcess, options: MemoryOptions, waiting: Iterator[tuple[str, bytes, str]], tally: Tally
) -> None:
    connection: Connection | None = None
    for kind, body, target in waiting:
        if connection is None or not connection.usable:
            connection = await Connection.open(server.address)
        try:
            answer = await connection.ask(request_bytes(server.address, body, target))
            tally.statuses[kind][str(answer.status)] += 1
        except NoAnswerError:
            tally.statuses[kind]["no answer"] += 1
        answered = sum(counts.total() for counts in tally.statuses.values())
        if answered % options.sample_every == 0:
            tally.requests.append(answered)
            tally.rss_kib.append(server.rss_kib())
    if connection is not None:
        await connection.ended()
