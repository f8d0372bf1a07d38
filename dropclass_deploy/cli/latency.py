"""Running the benchmark with the peers that need torch, when torch is there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.registry import open_dataset

if TYPE_CHECKING:
    from dropclass_deploy.serving.benchmark import BenchReport


def run_bench(
    artifact: Path,
    reporter: Reporter,
    *,
    data: str | None,
    split: str,
    output: Path | None,
    peers: bool,
    **options: Any,
) -> BenchReport:
    """``serving.bench`` on one image: the first of the data, or the artifact's sample."""
    from dropclass_deploy.serving import BenchOptions, bench

    encoded = None if data is None else open_dataset(data, split).image_bytes(0)
    with tempfile.TemporaryDirectory(prefix="dropclass-bench-") as scratch:
        contenders = _peers(artifact, Path(scratch), options.get("threads"), reporter) if peers else []
        with reporter.phase("benchmarking") as advance:
            return bench(
                artifact,
                encoded=encoded,
                contenders=contenders,
                output=output,
                options=BenchOptions(progress=advance, **options),
            )


def _peers(artifact: Path, scratch: Path, threads: int | None, reporter: Reporter) -> list[Any]:
    """Torch eager, and a plain export run by ONNX Runtime with NumPy around it."""
    from dropclass_deploy.serving.artifact import open_artifact

    opened = open_artifact(artifact)
    if opened.preprocess.window is not None:
        reporter.note("the artifact slides a window, which its peers cannot: timing it without them")
        return []
    try:
        from dropclass_deploy.export.from_artifact import network_from_artifact
        from dropclass_deploy.export.peers import TorchEager, export_naive
    except ModuleNotFoundError as error:
        reporter.note(f"{error.name} is not installed: timing the artifact without its peers")
        return []
    from dropclass_deploy.serving.benchmark import NaiveOnnx

    network = network_from_artifact(artifact)
    reporter.note("exporting the naive path's file")
    export_naive(network, scratch / "naive.onnx", opened.manifest.shape)
    return [
        TorchEager(network, opened.preprocess, threads),
        NaiveOnnx(scratch / "naive.onnx", opened.preprocess, threads),
    ]
