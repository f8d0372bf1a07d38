"""``dropclass probe``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line, print_table
from dropclass_deploy.cli.options import Json, Overwrite
from dropclass_deploy.cli.torch_room import torch_room
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.metrics import percent, to_json

if TYPE_CHECKING:
    from dropclass_deploy.analysis.spurious import ProbeResult

_COLUMNS = ["network", "with the link", "without", "follows the second", "moved", "moved, last layer tuned"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: dropclass probe -o probe --strength 0.9. MNIST and Fashion-MNIST: --first mnist:FOLDER "
        "--second mnist:FOLDER"
    )(probe)


def probe(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for probe.json and pictures.")],
    first: Annotated[
        str, typer.Option("--first", help="Images that give the class: digits: or mnist:PATH.")
    ] = "digits:",
    second: Annotated[str, typer.Option("--second", help="Images beside them, which may tell it.")] = "digits:",
    classes: Annotated[
        str, typer.Option("--classes", metavar="ID,...", help="Classes whose second image agrees with the first.")
    ] = "0,1,2,3,4",
    strength: Annotated[float, typer.Option("--strength", min=0, max=1, help="How often it agrees.")] = 1.0,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of each training.")] = 8,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything that is drawn.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Is a spurious correlation in a network's features, or only in its last layer? On composite images."""
    with torch_room("probe"):
        from dropclass_deploy.analysis.spurious import Fitting, Link, ProbeOptions, run_probe

    link, fitting = Link(_ids(classes), strength), Fitting(epochs=epochs)
    options = ProbeOptions(first, second, link, fitting=fitting, seed=seed)
    result = run_probe(options, output, ConsoleReporter(), overwrite=overwrite)
    if as_json:
        print_json({"output": str(output), **result.as_json()})
        return
    print_table("accuracy on the linked classes, %", _COLUMNS, _rows(result))
    print_line(f"figures and class activation maps: {output}")


def _rows(result: ProbeResult) -> list[list[str]]:
    rows = []
    for name, found in (("biased", result.biased), ("new last layer", result.tuned), ("scratch", result.scratch)):
        moved = found.translation
        values = (
            found.biased.of_linked,
            found.unbiased.of_linked,
            found.unbiased.follows_second,
            moved.moved.of_linked,
            moved.moved_after_tuning.of_linked,
        )
        rows.append([name, *(percent(to_json(value)) for value in values)])
    return rows


def _ids(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UserError(f"--classes {text}", expected="ids separated by commas, for example 0,1,2") from error
