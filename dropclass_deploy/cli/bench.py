"""``dropclass bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line, print_table
from dropclass_deploy.cli.options import Artifact, Json, MaskHead, Precision, Runtime, Split, Threads
from dropclass_deploy.core.errors import UserError

SCENARIOS = ("single-stream",)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: dropclass bench artifacts/camvid --queries 200 -o bench.json")(bench)


def bench(
    artifact: Artifact,
    data: Annotated[
        str | None, typer.Option("--data", help="Take the image from this data; default the sample.")
    ] = None,
    split: Split = "val",
    scenario: Annotated[
        str, typer.Option("--scenario", help="single-stream (the only one in this version).")
    ] = "single-stream",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file; default in the artifact.")] = None,
    queries: Annotated[int, typer.Option("--queries", min=1, help="Queries a contender and scope.")] = 100,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Queries before the clock.")] = 10,
    budget: Annotated[float | None, typer.Option("--budget-s", help="Stop after so many seconds.")] = None,
    threads: Threads = None,
    runtime: Runtime = "onnxruntime",
    precision: Precision = "fp32",
    head: MaskHead = "dense",
    peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Also time torch eager and the naive path.")] = True,
    as_json: Json = False,
) -> None:
    """Latency in three scopes, interleaved with torch eager and the naive path in one run."""
    unknown = [name for name in scenario.split(",") if name not in SCENARIOS]
    if unknown:
        raise UserError(f"scenario {unknown[0]!r} is not available", expected=" or ".join(SCENARIOS))
    from dropclass_deploy.cli.latency import run_bench

    if output is not None:
        refuse_foreign_file(output)
    report = run_bench(
        artifact,
        ConsoleReporter(),
        data=data,
        split=split,
        output=output,
        peers=peers,
        queries=queries,
        warmup=warmup,
        threads=threads,
        runtime=runtime,
        precision=precision,
        head=head,
        budget_s=budget,
    )
    content = report.to_json()
    if as_json:
        print_json(content)
    else:
        print_bench(content)


def refuse_foreign_file(path: Path) -> None:
    """An earlier benchmark may be replaced, any other file not.

    Raises:
        UserError: when ``path`` holds something else.
    """
    if not path.exists():
        return
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError):
        content = None
    if not (isinstance(content, dict) and {"results", "environment"} <= set(content)):
        raise UserError(f"{path} exists and is no benchmark", remedy="choose another file with -o")


def print_bench(content: dict[str, Any]) -> None:
    """Latencies by scope, and the ratios against each peer."""
    rows = [
        [
            f"{row['contender']} · {row['scope']}",
            row["runtime"],
            row["precision"],
            "×".join(str(side) for side in row["resolution"]),
            *(_ms(row["latency_ms"][key]) for key in ("p50", "p90", "p99")),
            str(row["queries"]),
        ]
        for row in content["results"]
    ]
    print_table(
        "latency, ms", ["contender · scope", "runtime", "precision", "size", "p50", "p90", "p99", "queries"], rows
    )
    for ratio in content["ratios"]:
        print_line(
            f"{ratio['scope']}: {ratio['against']} takes {ratio['median']:.2f}× our time "
            f"(p10 {ratio['p10']:.2f}, p90 {ratio['p90']:.2f} of the rounds)"
        )
    print_line(content.get("headline") or f"parity verdict: {content['parity_verdict'] or 'not measured'}")


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
