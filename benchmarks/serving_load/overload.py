"""Four times the load that a server can carry: who is answered is answered soon, and everybody else is told at once."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from serving_load.figures import spread_ms
from serving_load.load_client import NO_ANSWER, OPEN, SEQUENTIAL, LoadPlan, LoadResult, Record, run_client
from serving_load.outcome import Bar, Outcome, equal
from serving_load.plain_http import Client
from serving_load.server_process import ServerProcess, module_command

SLOWER = 3.0
"""Accepted requests' p99 over that of an unloaded server, at most."""
METRICS = "/metrics"
# As Triton names them: images inferred, and runs of the network.
IMAGES, RUNS = "nv_inference_count", "nv_inference_exec_count"
REFUSALS = (429, 503)
REALLY_SENT = 0.95
"""Of the rate that was meant, at least; below, the server held the client's connections up and was spared."""


@dataclass(frozen=True)
class OverloadOptions:
    """What is measured.

    Attributes:
        infer_ms: of the fixed network, a batch. max_batch: images of one.
        times: offered load over capacity.
        duration_s: of the overload.
        unloaded: requests one at a time before it.
        connections: of the client, at most.
    """

    infer_ms: float = 20.0
    max_batch: int = 4
    times: float = 4.0
    duration_s: float = 20.0
    unloaded: int = 300
    connections: int = 200

    @property
    def capacity(self) -> float:
        """Images a second that the network gives at most."""
        return self.max_batch * 1e3 / self.infer_ms


def measure(options: OverloadOptions) -> Outcome:
    """Unloaded first, then overloaded; one server."""
    settings = {"port": 0, "max_batch": options.max_batch}
    with ServerProcess(server_command(options.infer_ms, settings)) as server:
        one_by_one = LoadPlan(*server.address, mode=SEQUENTIAL, requests=options.unloaded)
        flood = replace(
            one_by_one, mode=OPEN, rate=options.times * options.capacity, duration_s=options.duration_s,
            connections=options.connections,
        )  # fmt: skip
        run_client(replace(one_by_one, requests=max(1, options.unloaded // 10)))  # warm-up
        unloaded = run_client(one_by_one)
        before, cpu_before = scraped(server), server.cpu_s()
        loaded = run_client(flood)
        cpu_s, after = server.cpu_s() - cpu_before, scraped(server)
        afterwards = run_client(replace(one_by_one, requests=10))
    figures = {
        "capacity_per_s": options.capacity,
        "meant_per_s": flood.rate,
        "unloaded": _one_at_a_time(unloaded),
        "overload": overload_figures(loaded) | {"server_busy": round(cpu_s / options.duration_s, 3)},
        "batches": _batches(before, after),
        "afterwards": _one_at_a_time(afterwards),
    }
    return Outcome({**asdict(options), "server": settings}, figures, bars(figures))


def server_command(infer_ms: float, settings: dict[str, Any]) -> list[str]:
    """A server around the fixed network."""
    return module_command("fixed_network", str(infer_ms), json.dumps(settings))


def scraped(server: ServerProcess) -> dict[str, float]:
    """Images and runs so far, over all models."""
    with Client(server.address) as client:
        text = client.get(METRICS).body.decode()
    return {name: metric_sum(text, name) for name in (IMAGES, RUNS)}


def metric_sum(text: str, name: str) -> float:
    """The sum of a metric's values over its labels, out of Prometheus' text format.

    Raises:
        ValueError: when there is no such metric.
    """
    values = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)", text, re.MULTILINE)
    if not values:
        raise ValueError(f"the server's metrics have no {name}")
    return sum(map(float, values))


def overload_figures(result: LoadResult) -> dict[str, Any]:
    """Latencies of the accepted and the refused, counts, goodput, and how late the client itself was."""
    accepted = [record for record in result.records if record.status == 200]
    refused = [record for record in result.records if record.status in REFUSALS]
    statuses = Counter(str(record.status) for record in result.records if record.status != NO_ANSWER)
    over_s = max(record.done_s for record in result.records) if result.records else 0.0
    problems = Counter(record.problem for record in result.records if record.status == NO_ANSWER)
    last_s = max((record.sent_s for record in result.records), default=0.0)
    return {
        "sent": len(result.records),
        "sent_per_s": round(len(result.records) / last_s, 1) if last_s else None,
        "statuses": dict(sorted(statuses.items())),
        "unanswered": sum(problems.values()),
        "unanswered_because": dict(problems),
        "refused_without_retry_after": sum(not record.retry_after for record in refused),
        "goodput_per_s": round(len(accepted) / over_s, 1) if over_s else None,
        "accepted_from_send": _from_send(accepted),
        "accepted_from_intended": spread_ms([record.done_s - record.intended_s for record in accepted]),
        "refused_from_send": _from_send(refused),
        "client_lag": spread_ms([one.sent_s - one.intended_s for one in result.records if one.sent_s]),
        "client_busy": round(result.busy, 3),
    }


def bars(figures: dict[str, Any]) -> tuple[Bar, ...]:
    """What the issue asks for."""
    overload, batches = figures["overload"], figures["batches"]
    accepted, unloaded = overload["accepted_from_send"], figures["unloaded"]["from_send"]
    slower = round(accepted["p99_ms"] / unloaded["p99_ms"], 3) if accepted and unloaded else None
    others = {status for status in overload["statuses"] if int(status) not in (200, *REFUSALS)}
    mean, sent_per_s, meant_per_s = batches["mean_images"], overload["sent_per_s"], figures["meant_per_s"]
    in_time = sent_per_s is not None and sent_per_s >= REALLY_SENT * meant_per_s
    return (
        Bar("requests really sent a second", sent_per_s, f"≥ {REALLY_SENT:g} of {meant_per_s:g}", in_time),
        Bar("accepted p99 over unloaded p99", slower, f"< {SLOWER:g}", slower is not None and slower < SLOWER),
        equal("requests without an answer", overload["unanswered"], 0),
        equal("statuses other than 200, 429 and 503", sorted(others), []),
        equal("refusals without Retry-After", overload["refused_without_retry_after"], 0),
        equal("answers after the overload", figures["afterwards"]["answered"], figures["afterwards"]["sent"]),
        Bar("images of a batch, mean", mean, "> 1", mean is not None and mean > 1),
    )


def _one_at_a_time(result: LoadResult) -> dict[str, Any]:
    answered = [record for record in result.records if record.status == 200]
    return {"sent": len(result.records), "answered": len(answered), "from_send": _from_send(answered)}


def _from_send(records: Sequence[Record]) -> dict[str, Any] | None:
    return spread_ms([record.done_s - record.sent_s for record in records])


def _batches(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    images, runs = (after[name] - before[name] for name in (IMAGES, RUNS))
    return {"images": images, "runs": runs, "mean_images": round(images / runs, 3) if runs else None}
