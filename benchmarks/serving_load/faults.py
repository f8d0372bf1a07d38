"""What may happen to a server: a signal, bad clients, a bomb, a restart; each against what it promises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any

from serving_load import bad_clients, shutdown
from serving_load.outcome import Bar, Outcome, at_most, equal
from serving_load.server_process import ServerProcess, serve_command
from serving_load.shutdown import ShutdownOptions

READY_S = 3.0
"""From the start of the process until it is ready, at most."""
BOMB_S, BOMB_KIB = 0.5, 32 * 1024
"""A refused bomb takes so long and so much memory at most: decoded it would have 2.7 GB."""
SLACK_S = 2.0
"""For a busy machine, beyond what the settings say."""


@dataclass(frozen=True)
class FaultOptions:
    """What is measured.

    Attributes:
        artifact: folder.
        starts: of the server.
        slow_connections: of the slow-loris client. header_timeout_s: the server's setting meanwhile.
        disconnects: rounds of eight clients that leave.
        bomb_side: pixels. bombs: sent.
        shutdown: see there.
    """

    artifact: Path
    starts: int = 5
    slow_connections: int = 50
    header_timeout_s: float = 3.0
    disconnects: int = 25
    bomb_side: int = 30_000
    bombs: int = 10
    shutdown: ShutdownOptions = field(default_factory=ShutdownOptions)


def measure(options: FaultOptions) -> Outcome:
    """Each fault by itself."""
    # So that all clients' images are accepted: what is refused before the signal proves nothing.
    roomy = {"queue_size": 4 * options.shutdown.clients}
    impatient = {"header_timeout_s": options.header_timeout_s}
    figures = {
        "start": starts(options),
        "shutdown": shutdown.measure(serve_command(options.artifact, roomy), options.shutdown),
    }
    with ServerProcess(serve_command(options.artifact, impatient)) as server:
        figures["disconnect"] = bad_clients.disconnect(server, options.disconnects)
        figures["bomb"] = bad_clients.bomb(server, options.bomb_side, options.bombs)
        allowed_s = options.header_timeout_s + SLACK_S
        figures["slow_loris"] = bad_clients.slow_loris(server, options.slow_connections, allowed_s)
    settings = {
        **asdict(options),
        "artifact": options.artifact.name,
        "server": {"shutdown": roomy, "disconnect, bomb and slow_loris": impatient},
    }
    return Outcome(settings, figures, bars(figures))


def starts(options: FaultOptions) -> dict[str, Any]:
    """Seconds to readiness of each start, and which of torch's files a ready server has mapped."""
    seconds: list[float] = []
    for _ in range(options.starts):
        with ServerProcess(serve_command(options.artifact, {})) as server:
            seconds.append(round(server.ready_after_s, 3))
            # After a request: what is imported late counts too.
            bad_clients.disconnect(server, 1)
            mapped = server.mapped_files()
    return {
        "ready_after_s": seconds,
        "median_s": round(median(seconds), 3),
        "greatest_s": max(seconds),
        "mapped_files": len(mapped),
        "torch_files": torch_files(mapped),
    }


def torch_files(mapped: Iterable[str]) -> list[str]:
    """Names of the mapped files that belong to torch: its libraries, and whatever lies in its package."""
    paths = [PurePosixPath(path) for path in mapped]
    ours = (path for path in paths if path.name.startswith("libtorch") or "site-packages/torch/" in path.as_posix())
    return sorted({path.name for path in ours})


def bars(figures: dict[str, Any]) -> tuple[Bar, ...]:
    """Of all faults."""
    start, left, bomb, slow = (figures[name] for name in ("start", "disconnect", "bomb", "slow_loris"))
    return (
        at_most("start to ready, greatest, seconds", start["greatest_s"], READY_S),
        equal("torch's files in the server's memory", start["torch_files"], []),
        *shutdown.bars(figures["shutdown"]),
        equal("clients that leave: what others got", sorted(left["others"]), ["200"]),
        equal("bomb: statuses other than 4xx", [one for one in bomb["statuses"] if not one.startswith("4")], []),
        at_most("bomb: seconds to the refusal, greatest", bomb["latency"]["max_ms"] / 1e3, BOMB_S),
        at_most("bomb: rise of the server's memory, KiB", bomb["rss_rise_kib"], BOMB_KIB),
        equal("bomb: status of a whole image afterwards", bomb["status_afterwards"], 200),
        equal("slow clients left connected", slow["left_open"], 0),
        equal("slow clients: what others got", sorted(slow["others"]), ["200"]),
    )
