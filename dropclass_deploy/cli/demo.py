"""``dropclass demo``: the main job on built-in data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dropclass_deploy.cli.bench import print_bench
from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line, print_scores
from dropclass_deploy.cli.options import Json, Overwrite
from dropclass_deploy.cli.torch_room import torch_room
from dropclass_deploy.cli.verify import print_parity
from dropclass_deploy.core.errors import GateRefusedError, UserError
from dropclass_deploy.core.files import refuse_existing, write_json
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import colour_mask, write_png
from dropclass_deploy.data.registry import open_dataset

RECIPE = Path(__file__).parents[1] / "recipes" / "synthetic.yaml"
PICTURES_A_SPLIT = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: dropclass demo -o demo-out")(demo)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for run, artifact and report.")] = Path(
        "demo-out"
    ),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """The main job on built-in data: train, export, verify, benchmark, predict, report. Ends with verdict pass."""
    with torch_room("demo"):
        from dropclass_deploy.analysis.report import write_report
        from dropclass_deploy.export.replacement import check_replaceable
        from dropclass_deploy.training import load_recipe, train
    begin, reporter = time.monotonic(), ConsoleReporter()
    refuse_existing(output, overwrite=overwrite, marker="run/recipe.yaml")
    recipe = load_recipe(RECIPE)
    run, artifact, predictions = output / "run", output / "artifact", output / "predictions"
    check_replaceable(artifact, overwrite=overwrite)
    _check_predictions(predictions, recipe.data)
    train(recipe, run, overwrite=overwrite, reporter=reporter)
    _evaluate_unbiased(run, recipe.data, reporter)
    parity, bench = _ship(run, artifact, recipe.data, reporter)
    _predict(artifact, predictions, recipe.data)
    report = write_report(run, artifact, output / "report.html", title="DropClass demo", predictions=predictions)
    _say(
        run,
        parity,
        bench,
        as_json=as_json,
        summary={"report": str(report), "seconds": round(time.monotonic() - begin, 1)},
    )
    if parity["verdict"] != "pass":
        raise GateRefusedError(f"verdict {parity['verdict']}: " + "; ".join(parity["reasons"]))


def _evaluate_unbiased(run: Path, data: str, reporter: Reporter) -> None:
    """Add the scores on the split whose planted link is broken to ``evaluation.json``."""
    from dropclass_deploy.training import evaluate_heads, load_run

    loaded, dataset = load_run(run), open_dataset(data, "unbiased")
    heads = evaluate_heads(loaded, dataset, reporter, where=" on unbiased")
    evaluation = {**(loaded.evaluation or {}), "extra": [{"split": "unbiased", "images": len(dataset), "heads": heads}]}
    write_json(run / "evaluation.json", evaluation)


def _ship(run: Path, artifact: Path, data: str, reporter: Reporter) -> tuple[dict[str, Any], dict[str, Any]]:
    """Export, verify and benchmark; both reports as JSON."""
    from dropclass_deploy.cli.gate import run_gate
    from dropclass_deploy.cli.latency import run_bench
    from dropclass_deploy.export import ExportOptions, export_artifact

    export_artifact(run, artifact, options=ExportOptions(overwrite=True), reporter=reporter)
    parity = run_gate(artifact, data=data, split="val", reporter=reporter)
    bench = run_bench(artifact, reporter, data=None, split="val", output=None, peers=True, queries=100, budget_s=30.0)
    return parity.to_json(), bench.to_json()


def _pictures(data: str) -> list[tuple[Dataset, int]]:
    """The scenes that are shown: data set and index, a few of each split."""
    datasets = [open_dataset(data, split) for split in ("val", "unbiased")]
    return [(dataset, index) for dataset in datasets for index in range(min(PICTURES_A_SPLIT, len(dataset)))]


def _check_predictions(folder: Path, data: str) -> None:
    """Refuse a folder with files that the demo does not write: what is there is written over, nothing is removed."""
    names = [dataset.key(index) for dataset, index in _pictures(data)]
    own = {f"{name}.{ending}" for name in names for ending in ("image.png", "truth.png", "png", "overlay.png")}
    own |= {"images"} | {f"images/{name}.png" for name in names}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in own:
            raise UserError(
                f"the folder {folder} holds {name!r}, which the demo does not write",
                expected="the demo's own pictures only",
                remedy="move it away, or choose another folder with -o",
            )


def _predict(artifact: Path, folder: Path, data: str) -> None:
    """Masks and overlays of a few scenes of each split, beside image and truth for the report."""
    from dropclass_deploy.serving import Segmenter
    from dropclass_deploy.serving.predict import predict_files

    images: list[Path] = []
    with Segmenter.load(artifact) as segmenter:
        for dataset, index in _pictures(data):
            name, image = dataset.key(index), dataset.image(index)
            write_png(folder / f"{name}.image.png", image)
            write_png(folder / f"{name}.truth.png", colour_mask(dataset.mask(index), segmenter.classes))
            images.append(folder / "images" / f"{name}.png")
            write_png(images[-1], image)
        list(predict_files(segmenter, images, folder, overlay=True, overwrite=True))


def _say(run: Path, parity: dict[str, Any], bench: dict[str, Any], *, as_json: bool, summary: dict[str, Any]) -> None:
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(
            {**summary, "verdict": parity["verdict"], "evaluation": evaluation, "parity": parity, "bench": bench}
        )
        return
    print_scores("plain head, val", evaluation["heads"]["plain"])
    for extra in evaluation["extra"]:
        print_scores(f"plain head, {extra['split']}", extra["heads"]["plain"])
    print_parity(parity)
    print_bench(bench)
    print_line(f"verdict: {parity['verdict']}   report: {summary['report']}   {summary['seconds']} s")
