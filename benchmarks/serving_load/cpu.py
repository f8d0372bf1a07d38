"""What the server adds: its CPU seconds a request against those of the segmenter called directly, block by block in turn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from serving_load.direct_worker import DirectWorker
from serving_load.figures import paired_ratio
from serving_load.outcome import Outcome, at_most
from serving_load.plain_http import Client
from serving_load.server_process import ServerProcess, serve_command

MOST = 1.2
"""The server's CPU seconds a request, at most so many times the segmenter's own."""


@dataclass(frozen=True)
class CpuOptions:
    """What is measured.

    Attributes:
        artifact: folder. image: file that every request sends.
        requests: of each side, warm-up not counted.
        blocks: into which they are cut; the sides take turns.
    """

    artifact: Path
    image: Path
    requests: int
    blocks: int = 10

    @property
    def per_block(self) -> int:
        """Requests of one side in one block."""
        return max(1, self.requests // self.blocks)


def measure(options: CpuOptions) -> Outcome:
    """One client, one request at a time; the client's CPU time is its own process's and not counted."""
    body, per_block = options.image.read_bytes(), options.per_block
    server_s: list[float] = []
    direct_s: list[float] = []
    with (
        ServerProcess(serve_command(options.artifact, {})) as server,
        Client(server.address) as client,
        DirectWorker(options.artifact, options.image) as worker,
    ):
        _post(client, body, per_block)
        worker.segment(per_block)
        for index in range(options.blocks):
            # The order turns round: what drifts must not favour one side.
            for side in ("server", "direct") if index % 2 == 0 else ("direct", "server"):
                if side == "server":
                    before = server.cpu_s()
                    _post(client, body, per_block)
                    server_s.append((server.cpu_s() - before) / per_block)
                else:
                    before = worker.cpu_s()
                    worker.segment(per_block)
                    direct_s.append((worker.cpu_s() - before) / per_block)
    return _outcome(options, server_s, direct_s)


def _post(client: Client, body: bytes, count: int) -> None:
    for _ in range(count):
        answer = client.post(body)
        if answer.status != 200:
            raise RuntimeError(f"the server answered {answer.status}: {answer.body[:300]!r}")


def _outcome(options: CpuOptions, server_s: list[float], direct_s: list[float]) -> Outcome:
    # A block of less than some ticks of the clock measures the clock.
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    ratio = paired_ratio(server_s, direct_s) if min(direct_s) > 0 else None
    figures: dict[str, Any] = {
        "server_cpu_ms": round(1e3 * median(server_s), 3),
        "direct_cpu_ms": round(1e3 * median(direct_s), 3),
        "server_over_direct": ratio,
        "server_over_direct_of_sums": round(sum(server_s) / sum(direct_s), 4) if ratio else None,
        "clock_resolution_of_a_block": round(tick_s / (median(direct_s) * options.per_block), 4) if ratio else None,
        "server_cpu_ms_by_block": [round(1e3 * value, 3) for value in server_s],
        "direct_cpu_ms_by_block": [round(1e3 * value, 3) for value in direct_s],
    }
    settings = {
        "artifact": options.artifact.name,
        "image_bytes": options.image.stat().st_size,
        "requests": options.blocks * options.per_block,
        "blocks": options.blocks,
        "server": {},
    }
    bar = at_most("CPU of the server over CPU of the segmenter", ratio["median"] if ratio else None, MOST)
    return Outcome(settings, figures, (bar,))
