"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of tables.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output when it exists.")]
Split = Annotated[str, typer.Option("--split", help="Split of the data.")]
Data = Annotated[str, typer.Option("--data", help="Data as FORMAT:PATH, for example camvid:data/camvid or synthetic:")]
Weights = Annotated[
    str, typer.Option("--weights", help="Which of a run's networks: last, best-miou or best-rare-miou.")
]
Runtime = Annotated[
    str,
    typer.Option(
        "--runtime",
        help="auto, onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, openvino, openvino-bf16 or tensorrt.",
    ),
]
Precision = Annotated[
    str, typer.Option("--precision", help="Which of the artifact's networks: fp32, fp16, int8 or mixed.")
]
MaskHead = Annotated[str, typer.Option("--mask-head", help="dense or sparse.")]
AnyPrecision = Annotated[
    str | None,
    typer.Option("--precision", help="Of the network: fp32, fp16, int8 or mixed; default as chosen, or fp32."),
]
AnyMaskHead = Annotated[str | None, typer.Option("--mask-head", help="dense or sparse; default as chosen, or dense.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default the runtime's own.")]
Artifact = Annotated[Path, typer.Argument(help="Artifact folder that 'dropclass export' wrote.")]


def named(text: str) -> tuple[str, ...]:
    """The names of a list separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
