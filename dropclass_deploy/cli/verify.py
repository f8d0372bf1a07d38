"""``dropclass verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line, print_table
from dropclass_deploy.cli.options import Data, Json, MaskHead, Precision, Runtime, Split, named
from dropclass_deploy.core.errors import GateRefusedError, UserError
from dropclass_deploy.core.metrics import percent
from dropclass_deploy.core.preprocess import Preprocess


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: dropclass verify artifacts/camvid --data camvid:data/camvid --split val")(verify)


def verify(
    data: Data,
    artifact: Annotated[Path | None, typer.Argument(help="Artifact folder; leave out between two ONNX files.")] = None,
    split: Split = "val",
    reference: Annotated[
        Path | None, typer.Option("--reference", help="ONNX file to hold the candidate against.")
    ] = None,
    candidate: Annotated[Path | None, typer.Option("--candidate", help="ONNX file to judge.")] = None,
    allow_insufficient: Annotated[
        str, typer.Option(metavar="NAME,...", help="Classes that may stay insufficient; recorded in the report.")
    ] = "",
    preprocess: Annotated[
        Path | None, typer.Option("--preprocess", help="preprocess.json for ONNX files without metadata.")
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="Folder for parity.json; default in the artifact.")
    ] = None,
    runtime: Runtime = "auto",
    precision: Precision = "fp32",
    head: MaskHead = "dense",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare predictions class by class and refuse (exit 3) what lost one; also between any two ONNX files."""
    if (artifact is None) == (reference is None and candidate is None):
        raise UserError(
            "verify needs one of two things",
            expected="an ARTIFACT, or --reference A.onnx with --candidate B.onnx",
            remedy="see dropclass verify --help",
        )
    if artifact is None and (precision, head) != ("fp32", "dense"):
        raise UserError("--precision and --mask-head are given beside two files", expected="them with an ARTIFACT only")
    from dropclass_deploy.cli.gate import run_gate

    report = run_gate(
        artifact,
        data=data,
        split=split,
        reporter=ConsoleReporter(),
        reference=reference,
        candidate=candidate,
        allow_insufficient=named(allow_insufficient),
        preprocess=None if preprocess is None else read_preprocess(preprocess),
        evidence=evidence,
        runtime=runtime,
        precision=precision,
        head=head,
        seed=seed,
    )
    content = report.to_json()
    if as_json:
        print_json(content)
    else:
        print_parity(content)
    if report.verdict != "pass":
        raise GateRefusedError(f"verdict {report.verdict}: " + "; ".join(report.reasons))


def read_preprocess(path: Path) -> Preprocess:
    """A preprocessing specification from a JSON file.

    Raises:
        UserError: when the file is missing or is no specification.
    """
    try:
        return Preprocess.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", expected="a preprocess.json") from error
    except ValidationError as error:
        raise UserError(
            f"{path} is no preprocessing specification: {error.errors()[0]['msg']}",
            expected='for example {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "size": null}',
        ) from error


def print_parity(content: dict[str, Any]) -> None:
    """The per-class table of a parity report."""
    rows = [
        [
            row["name"] + (" (rare)" if row["rare"] else ""),
            percent(row["iou_reference"], 2),
            percent(row["iou_candidate"], 2),
            _points(row["delta"]),
            _interval(row["interval"]),
            _points(row["margin"]),
            str(row["images"]),
            f"{row['pixels']:,}",
            row["verdict"],
        ]
        for row in content["classes"]
    ]
    columns = [
        "class",
        "reference IoU %",
        "candidate IoU %",
        "Δ points",
        "95 % interval",
        "margin",
        "images",
        "pixels",
        "verdict",
    ]
    print_table("parity", columns, rows)
    print_line(
        f"verdict {content['verdict']}  pixel disagreement {content['pixel_disagreement']:.2e}  "
        f"provider {content['provider']}  precision {content['precision']}"
    )


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.3f}"


def _interval(value: list[float | None] | None) -> str:
    if value is None or None in value:
        return "–"
    return f"[{_points(value[0])}, {_points(value[1])}]"
