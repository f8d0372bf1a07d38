"""``dropclass auto``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line, print_table
from dropclass_deploy.cli.gate import LazyReference
from dropclass_deploy.cli.options import Artifact, Data, Json, Split, named


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: dropclass auto artifacts/camvid --data camvid:data/camvid")(auto)


def auto(
    artifact: Artifact,
    data: Data,
    split: Split = "val",
    runtimes: Annotated[str, typer.Option(metavar="NAME,...", help="Runtimes to try; default all.")] = "",
    threads: Annotated[str, typer.Option(metavar="N,...", help="Thread counts to try; default 1 and all cores.")] = "",
    budget: Annotated[
        float | None, typer.Option("--budget-minutes", min=0, help="No new gate starts after so many minutes.")
    ] = None,
    allow_insufficient: Annotated[
        str, typer.Option(metavar="NAME,...", help="Classes that may stay insufficient; recorded in the reports.")
    ] = "",
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="Folder for auto.json; default in the artifact.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the fastest runtime, precision, mask head and thread count that pass the gate on this machine.

    The choice is stored in evidence/auto.json; predict, evaluate and Segmenter.load use it on such a machine. A choice
    written elsewhere with --evidence is for you to read: name its runtime and precision yourself.
    """
    from dropclass_deploy.serving.auto.options import CPU_RUNTIMES, GPU_RUNTIMES, AutoOptions
    from dropclass_deploy.serving.auto.selection import choose

    reporter = ConsoleReporter()
    options = AutoOptions(
        runtimes=named(runtimes) or (*CPU_RUNTIMES, *GPU_RUNTIMES),
        threads=read_counts(threads),
        budget_minutes=budget,
        allow_insufficient=named(allow_insufficient),
        reporter=reporter,
    )
    masks = LazyReference(artifact, reporter)
    content = choose(artifact, data=data, split=split, evidence=evidence, reference_masks=masks, options=options)
    if as_json:
        print_json(content)
    else:
        print_choice(content)


def read_counts(text: str) -> tuple[int, ...]:
    """Whole numbers of a list separated by commas.

    Raises:
        UserError: for anything else.
    """
    from dropclass_deploy.core.errors import UserError

    try:
        return tuple(int(name) for name in named(text))
    except ValueError as error:
        raise UserError(f"--threads is {text!r}", expected="whole numbers, such as 1,2,4") from error


def print_choice(content: dict[str, Any]) -> None:
    """Every configuration from the fastest on, and the one that was chosen."""
    from dropclass_deploy.serving.auto.choice import Configuration

    rows = [
        [
            row["runtime"],
            row["precision"],
            row["head"],
            str(row["threads"] or "–"),
            f"{row['latency_ms']['p50']:.2f}",
            "–" if row["baseline_over_this"] is None else f"{row['baseline_over_this']:.2f}×",
            row["verdict"],
        ]
        for row in content["candidates"]
    ]
    columns = ["runtime", "precision", "mask head", "threads", "ms an image", "speed-up (paired)", "gate"]
    print_table("configurations, from decoded image to mask", columns, rows)
    for reason, runtime in {
        item["reason"]: item["configuration"].partition(",")[0] for item in content["unavailable"]
    }.items():
        print_line(f"not here: {runtime}: {reason}")
    print_line(f"chosen: {Configuration.model_validate(content['chosen'])}")
