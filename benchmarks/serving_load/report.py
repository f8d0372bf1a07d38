"""From stored figures to tables in ``docs/serving.md``, between ``<!-- serving:NAME -->`` and ``<!-- serving:end -->``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from evidence_grid import documents

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import write_text

FAMILY = "serving"
Stored = Mapping[str, Any]
Row = tuple[str, ...]


def write(document: Path, results: Path) -> bool:
    """Fill the document's markers from the stored JSON; whether anything changed.

    Raises:
        UserError: for a document that cannot be read, an unknown marker, or figures that are not there.
    """
    text = documents.read(document)
    new = documents.filled(text, str(document), lambda name: section(name, results), FAMILY)
    if new != text:
        write_text(document, new)
    return new != text


def section(name: str, results: Path) -> str:
    """What stands between the markers of a measurement.

    Raises:
        UserError: when there is no such measurement, or none stored.
    """
    if name not in TABLES:
        raise UserError(f"the marker {FAMILY}:{name} names something unknown", expected=", ".join(TABLES))
    path = results / f"{name}.json"
    if not path.is_file():
        return f"not measured yet: `python benchmarks/serving.py {name} …`"
    stored: Stored = json.loads(path.read_text(encoding="utf-8"))
    return "\n\n".join([TABLES[name](stored["figures"]), _bars(stored), _origin(stored, path)])


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cpu(figures: Stored) -> str:
    ratio = figures["server_over_direct"] or dict.fromkeys(("median", "min", "max"))
    return _table(
        ("CPU milliseconds a request", "median of blocks"),
        [
            ("server", _said(figures["server_cpu_ms"])),
            ("segmenter, bytes to PNG", _said(figures["direct_cpu_ms"])),
            ("ratio, block by block", f"{_said(ratio['median'])} ({_said(ratio['min'])} – {_said(ratio['max'])})"),
        ],
    )


def _overload(figures: Stored) -> str:
    unloaded, loaded = figures["unloaded"], figures["overload"]
    rows = [
        ("unloaded, one at a time", *_spread(unloaded["from_send"])),
        ("overload: accepted, from the send", *_spread(loaded["accepted_from_send"])),
        ("overload: accepted, from the intended send", *_spread(loaded["accepted_from_intended"])),
        ("overload: refused, from the send", *_spread(loaded["refused_from_send"])),
        ("overload: lag of the client itself", *_spread(loaded["client_lag"])),
    ]
    statuses = ", ".join(f"{count} × {status}" for status, count in loaded["statuses"].items())
    return (
        _table(("", "requests", "p50 ms", "p99 ms", "greatest ms"), rows)
        + f"\n\nCapacity {figures['capacity_per_s']:g} images/s, "
        f"sent {_said(loaded['sent_per_s'])}/s, goodput {_said(loaded['goodput_per_s'])}/s; answers: "
        f"{statuses}; without an answer: {loaded['unanswered']}; "
        f"images of a batch: {_said(figures['batches']['mean_images'])}; "
        f"cores used: server {_said(loaded['server_busy'])}, client {_said(loaded['client_busy'])}."
    )


def _memory(figures: Stored) -> str:
    rows = [
        ("before the first request", _mib(figures["rss_kib_first"])),
        ("after half of the requests", _mib(figures["rss_kib_middle"])),
        ("after the last request", _mib(figures["rss_kib_last"])),
        ("greatest", _mib(figures["rss_kib_greatest"])),
    ]
    slope = _said(figures["slope_kib_per_1000_requests"])
    counts = "; ".join(
        f"{kind} images: " + ", ".join(f"{count} × {status}" for status, count in statuses.items())
        for kind, statuses in figures["statuses"].items()
    )
    return (
        _table(("the server's resident memory", "MiB"), rows)
        + f"\n\nSlope over the second half: {slope} KiB per 1,000 requests. Answers: {counts}."
    )


def _faults(figures: Stored) -> str:
    start, stop, slow, bomb = (figures[name] for name in ("start", "shutdown", "slow_loris", "bomb"))
    left = figures["disconnect"]
    rows = [
        (
            "start",
            f"ready after {_said(start['median_s'])} s (median of {len(start['ready_after_s'])}, "
            f"greatest {_said(start['greatest_s'])})",
        ),
        (
            "SIGTERM under load",
            f"under way: {_counts(stop['under_way'])}; sent later: {_counts(stop['sent_later'])}; "
            f"exit code {stop['exit_code']} after {_said(stop['exit_after_s'])} s",
        ),
        ("clients that leave", f"{left['left']} left; others: {_counts(left['others'])}"),
        (
            "slow-loris clients",
            f"{slow['connections']} connections, all but {slow['left_open']} closed within "
            f"{_said(slow['closed_after_s_greatest'])} s; others: {_counts(slow['others'])}, "
            f"p99 {_said((slow['others_latency'] or {}).get('p99_ms'))} ms",
        ),
        (
            "decompression bomb",
            f"{bomb['bytes'] / 1e3:.0f} KB for {bomb['pixels'] / 1e6:.0f} megapixels: {_counts(bomb['statuses'])}, "
            f"at most {_said(bomb['latency']['max_ms'])} ms, memory + {_mib(bomb['rss_rise_kib'])} MiB",
        ),
    ]
    return _table(("fault", "what happened"), rows)


def _bars(stored: Stored) -> str:
    rows = [
        (bar["what"], _said(bar["value"]), bar["expected"].replace("[]", "none").replace("{}", "none"), _met(bar))
        for bar in stored["bars"]
    ]
    return _table(("bar", "found", "expected", ""), rows)


def _met(bar: Stored) -> str:
    return "met" if bar["met"] else "**missed**"


def _origin(stored: Stored, path: Path) -> str:
    environment, code = stored["environment"], stored["code"]
    commit = (code["commit"] or "no commit")[:10] + (" with changes" if code["dirty"] else "")
    load = ", ".join(
        f"{word} {values[0]:g}"
        for word, key in (("before", "load_average_before"), ("after", "load_average_after"))
        if (values := environment.get(key))
    )
    return (
        f"`{stored['command']}` → `benchmarks/results/serving/{path.name}`; version {code['version']} ({commit}), "
        f"{environment['cpu']}, {environment['cores']} cores, load average {load}."
    )


def _spread(found: Stored | None) -> Row:
    keys = ("count", "p50_ms", "p99_ms", "max_ms")
    return tuple(_said((found or {}).get(key)) for key in keys)


def _counts(found: Stored) -> str:
    return ", ".join(f"{count} × {name}" for name, count in found.items()) or "none"


def _mib(kib: float) -> str:
    return f"{kib / 1024:.1f}"


def _said(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return _counts(value)
    return str(value)


TABLES: dict[str, Callable[[Stored], str]] = {
    "cpu": _cpu,
    "overload": _overload,
    "memory": _memory,
    "faults": _faults,
}
"""What each measurement's figures look like, by its name."""
