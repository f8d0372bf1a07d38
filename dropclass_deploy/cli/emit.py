"""``dropclass emit``: one sub-command a target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dropclass_deploy.cli.console import print_json, print_line
from dropclass_deploy.cli.options import Artifact, Json, Overwrite
from dropclass_deploy.core.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    targets = typer.Typer(help="Write files for a serving stack that is there already.", rich_markup_mode=None)
    targets.callback()(_targets)
    targets.command(epilog="Example: dropclass emit triton artifacts/camvid -o model_repository --max-batch-size 16")(
        triton
    )
    app.add_typer(targets, name="emit")


def _targets() -> None:
    """Write files for a serving stack that is there already."""


def triton(
    artifact: Artifact,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write: the model repository.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the model; default the artifact's folder.")] = None,
    precision: Annotated[str, typer.Option("--precision", help="Of the mask file to serve.")] = "fp32",
    max_batch_size: Annotated[int, typer.Option("--max-batch-size", min=1, help="Images run together.")] = 8,
    preferred: Annotated[
        list[int] | None, typer.Option("--preferred-batch-size", help="A batch that is run at once. Repeatable.")
    ] = None,
    delay: Annotated[
        int, typer.Option("--max-queue-delay-us", min=0, help="Longest wait for more images, microseconds.")
    ] = 2000,
    gpus: Annotated[str, typer.Option("--gpus", metavar="ID,...", help="GPUs to run on; default the CPU.")] = "",
    instances: Annotated[int, typer.Option("--instances", min=1, help="Copies of the model a device.")] = 1,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a Triton model repository from an artifact: configuration, dense mask file, labels, warm-up image."""
    from dropclass_deploy.serving.emit import TritonOptions, emit_triton

    options = TritonOptions(
        name=name,
        precision=precision,
        max_batch_size=max_batch_size,
        preferred_batch_sizes=tuple(preferred or ()),
        max_queue_delay_us=delay,
        gpus=_ids(gpus),
        instances=instances,
        overwrite=overwrite,
    )
    folder = emit_triton(artifact, output, options)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if as_json:
        print_json({"output": str(folder), "files": files})
        return
    for file in files:
        print_line(f"  {file}  {(folder / file).stat().st_size / 2**20:.2f} MiB")
    print_line(f"model repository: {folder}   next: see {folder / 'README.md'}")


def _ids(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if not (part.isascii() and part.isdigit())]
    if wrong:
        raise UserError(f"{wrong[0]!r} is no GPU id", expected="numbers, such as --gpus 0,1")
    return tuple(int(part) for part in parts)
