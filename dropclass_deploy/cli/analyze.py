"""``dropclass analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line
from dropclass_deploy.cli.options import Data, Json, Overwrite, Split, Weights, named
from dropclass_deploy.cli.torch_room import torch_room
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.data.registry import open_dataset


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: dropclass analyze runs/ce runs/dropclass --data camvid:data/camvid -o card")(analyze)


def analyze(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders; the others are held against the first.")
    ],
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for index.html, analysis.json and pictures.")],
    split: Split = "val",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many images, spread over the split.")
    ] = None,
    fill: Annotated[
        str, typer.Option("--fill", help="Of erased pixels: dataset_mean, image_mean, noise or inpaint.")
    ] = "dataset_mean",
    pairs: Annotated[
        str,
        typer.Option(
            "--pairs", metavar="TRUE:TAKEN,...", help="Classes for Grad-CAM; default the commonest confusions."
        ),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of noise, random patches and the bootstrap.")] = 0,
    weights: Weights = "last",
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """The bias card: why a model says what it says, and what differs between two; one page that opens from disk."""
    with torch_room("train"):
        from dropclass_deploy.analysis.bias_card import AnalysisOptions, analyse
        from dropclass_deploy.analysis.subject import device_named

    options = AnalysisOptions(
        limit=limit,
        fill=fill,
        pairs=_pairs(pairs),
        seed=seed,
        weights=weights,
        overwrite=overwrite,
    )
    dataset = open_dataset(data, split)
    card = analyse(runs, dataset, output, options=options, device=device_named(device), reporter=ConsoleReporter())
    if as_json:
        print_json({"output": str(output), **card})
        return
    for sentence in card["comparison"]["sentences"]:
        print_line(sentence)
    print_line(f"page: {output / 'index.html'}   figures: {output / 'analysis.json'}")


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in named(text):
        first, separator, second = part.partition(":")
        if not separator or not first.strip() or not second.strip():
            raise UserError(f"--pairs holds {part!r}", expected="TRUE:TAKEN, for example bicyclist:pedestrian")
        pairs.append((first.strip(), second.strip()))
    return tuple(pairs)
