"""``dropclass export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line
from dropclass_deploy.cli.options import Json, Overwrite, Split, Weights, named
from dropclass_deploy.cli.torch_room import torch_room
from dropclass_deploy.core.errors import GateRefusedError, UserError
from dropclass_deploy.core.manifest import MANIFEST, first_problem
from dropclass_deploy.core.sliding_window import Window


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: dropclass export runs/camvid -o artifacts/camvid --data camvid:data/camvid")(export)


def export(
    run: Annotated[Path, typer.Argument(help="Run folder that 'dropclass train' wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Artifact folder to write.")],
    precision: Annotated[
        str,
        typer.Option("--precision", help="fp32 and, as they pass the gate, fp16, int8, mixed; separated by commas."),
    ] = "fp32",
    calibration_split: Annotated[
        str, typer.Option("--calibration-split", help="Split of the data that calibrates INT8.")
    ] = "train",
    budget: Annotated[
        float, typer.Option("--budget-minutes", min=0, help="For the search of each lower precision.")
    ] = 20.0,
    allow_insufficient: Annotated[
        str, typer.Option(metavar="NAME,...", help="Classes that may stay insufficient in a lower precision's gate.")
    ] = "",
    shape: Annotated[
        str, typer.Option("--shape", metavar="NxHxW", help="Static shape, such as 1x512x1024.")
    ] = "dynamic",
    head: Annotated[str | None, typer.Option("--head", help="plain or folded; default the recipe's.")] = None,
    weights: Weights = "last",
    data: Annotated[
        str | None, typer.Option("--data", help="Data for the reference masks and the sample; default the run's own.")
    ] = None,
    split: Split = "val",
    opset: Annotated[int, typer.Option("--opset", help="ONNX opset, 18 to 20.")] = 18,
    mask_dtype: Annotated[
        str, typer.Option("--mask-dtype", help="Of the mask files: uint8, int32 or int64.")
    ] = "uint8",
    mask_layout: Annotated[str, typer.Option("--mask-layout", help="Of the mask files: NHW, NHWC or NCHW.")] = "NHW",
    bake_preprocess: Annotated[
        bool,
        typer.Option(
            "--bake-preprocess/--no-bake-preprocess", help="Whether the mask files normalise uint8 images inside."
        ),
    ] = True,
    window: Annotated[
        str | None, typer.Option("--window", metavar="HxW", help="Slide such a window over larger images.")
    ] = None,
    overlap: Annotated[
        float | None, typer.Option("--overlap", help="Of neighbouring windows, a share of the window; default 0.25.")
    ] = None,
    blend: Annotated[
        str | None, typer.Option("--blend", help="constant (default) or gaussian weights of a window.")
    ] = None,
    author: Annotated[
        str | None, typer.Option("--author", help="Author of the model, for its card and metadata.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", help="Licence of the weights, such as CC-BY-4.0.")
    ] = None,
    bias_card: Annotated[
        Path | None, typer.Option("--bias-card", help="Folder of 'dropclass analyze', to go into docs/.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a run as an artifact: ONNX files, labels, preprocessing, sample, reference masks, model card."""
    with torch_room("export"):
        from dropclass_deploy.export import ExportOptions, export_artifact
        from dropclass_deploy.export.mask_format import MaskFormat
        from dropclass_deploy.export.options import NOT_STATED
        from dropclass_deploy.export.shapes import parse_shape

    options = ExportOptions(
        deploy_head=head,
        weights=weights,
        shape=parse_shape(shape),
        opset=opset,
        data=data,
        split=split,
        overwrite=overwrite,
        author=author or NOT_STATED,
        licence=licence or NOT_STATED,
        precisions=named(precision),
        calibration_split=calibration_split,
        budget_minutes=budget,
        allow_insufficient=named(allow_insufficient),
        mask_format=MaskFormat(mask_dtype, mask_layout, bake_preprocess),
        window=read_window(window, overlap, blend),
        bias_card=bias_card,
    )
    try:
        folder = export_artifact(run, output, options=options, reporter=ConsoleReporter())
    except GateRefusedError:
        # A refused precision costs only itself: say what stands all the same.
        if (output / MANIFEST).is_file():
            print_artifact(output, data, as_json=as_json)
        raise
    print_artifact(folder, data, as_json=as_json)


def print_artifact(folder: Path, data: str | None, *, as_json: bool) -> None:
    """The files of an artifact, and what to do next."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if as_json:
        print_json({"artifact": str(folder), "files": files})
        return
    for name in (name for name in files if not name.startswith("reference/")):
        print_line(f"  {name}  {(folder / name).stat().st_size / 2**20:.2f} MiB")
    print_line(f"artifact: {folder}   next: dropclass verify {folder} --data {data or 'FORMAT:PATH'}")


def read_window(size: str | None, overlap: float | None, blend: str | None) -> Window | None:
    """The window of ``--window``, ``--overlap`` and ``--blend``; None without the first.

    Raises:
        UserError: when one of the others stands alone, or a value makes no window.
    """
    from dropclass_deploy.export.shapes import parse_size

    given = {"overlap": overlap, "blending": blend}
    chosen = {key: value for key, value in given.items() if value is not None}
    if size is None:
        if chosen:
            raise UserError("--overlap or --blend is given without --window", remedy="add --window HxW")
        return None
    height, width = parse_size(size)
    try:
        return Window.model_validate({"height": height, "width": width, **chosen})
    except ValidationError as error:
        raise UserError(
            f"--window {size} with {chosen or 'its defaults'} makes no window: {first_problem(error)}",
            expected="for example --window 512x1024 --overlap 0.25 --blend gaussian",
        ) from error
