"""``dropclass predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line
from dropclass_deploy.cli.options import AnyMaskHead, AnyPrecision, Artifact, Json, Overwrite, Runtime, Threads


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: dropclass predict artifacts/camvid street.jpg more/ -o masks --overlay")(predict)


def predict(
    artifact: Artifact,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the masks.")],
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write NAME.overlay.png, colours over the image.")
    ] = False,
    overwrite: Overwrite = False,
    runtime: Runtime = "auto",
    threads: Threads = None,
    precision: AnyPrecision = None,
    head: AnyMaskHead = None,
    as_json: Json = False,
) -> None:
    """Write masks as PNGs of class ids at the size of each image."""
    from dropclass_deploy.cli.what_runs import told, what_runs
    from dropclass_deploy.serving import Segmenter
    from dropclass_deploy.serving.predict import expand_inputs, predict_files

    reporter = ConsoleReporter()
    paths = expand_inputs(images)
    written = []
    with Segmenter.load(artifact, runtime, threads, precision=precision, head=head) as segmenter:
        if segmenter.stored_choice:
            reporter.note(f"running on {told(segmenter)}")
        ran = what_runs(segmenter)
        with reporter.phase("predicting") as advance:
            for result in predict_files(segmenter, paths, output, overlay, overwrite=overwrite):
                written.append(result)
                advance(len(written), len(paths))
    if as_json:
        print_json({"output": str(output), "ran": ran, "files": [str(item) for item in written]})
        return
    print_line(f"{len(written)} {'mask' if len(written) == 1 else 'masks'} in {output}")
