"""``dropclass evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dropclass_deploy.cli.console import ConsoleReporter, print_average_precision, print_json, print_scores
from dropclass_deploy.cli.options import AnyMaskHead, AnyPrecision, Data, Json, Runtime, Split, Weights
from dropclass_deploy.cli.torch_room import torch_room
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.manifest import MANIFEST
from dropclass_deploy.core.metrics import scores_json
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.registry import open_dataset


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: dropclass evaluate runs/camvid --data camvid:data/camvid --split val")(evaluate)


def evaluate(
    path: Annotated[Path, typer.Argument(metavar="RUN_or_ARTIFACT", help="Run folder (torch) or artifact folder.")],
    data: Data,
    split: Split = "val",
    weights: Weights = "last",
    runtime: Runtime = "auto",
    precision: AnyPrecision = None,
    head: AnyMaskHead = None,
    average_precision: Annotated[
        bool,
        typer.Option("--average-precision", help="Also MAP and WGAP, the mean and the worst class's (of a run only)."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Pooled per-class IoU, mIoU and rare mIoU at the labels' own resolution."""
    dataset, reporter = open_dataset(data, split), ConsoleReporter()
    if (path / MANIFEST).is_file():
        if weights != "last":
            raise UserError(f"--weights {weights} is asked of an artifact", expected="a run folder")
        if average_precision:
            raise UserError("--average-precision is asked of an artifact, which gives masks", expected="a run folder")
        heads, ran = _artifact_scores(path, dataset, reporter, runtime, precision, head)
    else:
        _refuse_networks(path, runtime, precision, head)
        ran = None
        heads = _run_scores(path, weights, dataset, reporter, average_precision)
    if as_json:
        print_json(
            {"path": str(path), "data": data, "split": split, "images": len(dataset), "ran": ran, "heads": heads}
        )
        return
    for name, content in heads.items():
        print_scores(f"{name}, {data} {split} ({len(dataset)} images)", content)
        if average_precision:
            print_average_precision(f"{name}, pixels ranked by probability", content)


def _refuse_networks(path: Path, runtime: str, precision: str | None, head: str | None) -> None:
    given = {"--runtime": None if runtime == "auto" else runtime, "--precision": precision, "--mask-head": head}
    for option, value in given.items():
        if value is not None and path.is_dir():
            raise UserError(f"{option} {value} is asked of {path}, which is no artifact", expected="an artifact folder")


def _artifact_scores(
    path: Path, dataset: Dataset, reporter: Reporter, runtime: str, precision: str | None, head: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores by head, and what ran."""
    from dropclass_deploy.cli.what_runs import told, what_runs
    from dropclass_deploy.serving import Segmenter
    from dropclass_deploy.serving.evaluate import evaluate_segmenter

    with Segmenter.load(path, runtime, precision=precision, head=head) as segmenter:
        reporter.note(f"running on {told(segmenter)}")
        with reporter.phase("evaluating the artifact") as advance:
            result = evaluate_segmenter(segmenter, dataset, advance)
        return {"artifact": scores_json(result, segmenter.classes)}, what_runs(segmenter)


def _run_scores(
    path: Path, weights: str, dataset: Dataset, reporter: Reporter, average_precision: bool
) -> dict[str, Any]:
    with torch_room("train"):
        from dropclass_deploy.training import evaluate_heads, load_run

    run = load_run(path, weights=weights)
    return evaluate_heads(run, dataset, reporter, average_precision=average_precision)
