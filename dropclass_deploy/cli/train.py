"""``dropclass train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line, print_scores
from dropclass_deploy.cli.options import Json, Overwrite
from dropclass_deploy.cli.torch_room import torch_room


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: dropclass train recipes/camvid.yaml --set data=camvid:data/camvid -o runs/camvid")(
        train
    )


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file; or a run folder, to go on with --resume.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.SUB=VALUE", help="Change a recipe key; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Run folder; default runs/RECIPE-METHOD, or the one given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train as a recipe says; writes a run folder. Ctrl-C and SIGTERM save the state and say how to resume."""
    with torch_room("train"):
        from dropclass_deploy.training import load_recipe
        from dropclass_deploy.training import train as run_training

    loaded = load_recipe(recipe, overrides)
    folder = output or (recipe if recipe.is_dir() else Path("runs") / f"{recipe.stem}-{loaded.method.name}")
    run_training(loaded, folder, resume=resume, overwrite=overwrite, reporter=ConsoleReporter())
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    if as_json:
        print_json({"run": str(folder), "evaluation": evaluation})
        return
    for head, content in evaluation["heads"].items():
        print_scores(f"{head} head, {evaluation['split']} ({evaluation['images']} images)", content)
    print_line(f"run: {folder}   next: dropclass export {folder} -o ARTIFACT")
