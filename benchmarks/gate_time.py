"""What the parity gate costs beside evaluating the two networks once.

    python benchmarks/gate_time.py RUN --data camvid:data/camvid --limit 40 --output benchmarks/results/gate_time.json

Three calls, turn by turn in one run: the PyTorch network's masks with their confusion matrix; the artifact's, the same
way; and ``verify`` of the artifact with PyTorch as its reference, nothing stored. The gate's bar is 1.5 times the first two
together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from dropclass_deploy.core.metrics import confusion_matrix
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.export.from_artifact import reference_from_artifact
from dropclass_deploy.export.quantise.calibration import Chosen
from dropclass_deploy.serving import Segmenter, VerifyOptions, verify
from dropclass_deploy.serving.benchmark.environment import load_average, read_environment
from dropclass_deploy.serving.benchmark.interleaved import interleaved_ms


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    whole = open_dataset(arguments.data, arguments.split)
    data = Chosen(whole, range(min(arguments.limit, len(whole))))
    environment = read_environment(None)
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "artifact"
        export_artifact(arguments.run, artifact, options=ExportOptions(data=whole, reference_limit=0))
        reference = reference_from_artifact(artifact)
        with Segmenter.load(artifact, "onnxruntime") as segmenter:
            calls = {
                "torch": lambda: evaluated(data, reference),
                "artifact": lambda: evaluated(data, lambda image: segmenter(image).mask),
                "gate": lambda: verify(
                    artifact, data=data, reference_masks=reference, options=VerifyOptions(runtime="onnxruntime")
                ),
            }
            timings = interleaved_ms(calls, arguments.rounds, warmup=1)
    once = [a + b for a, b in zip(timings["torch"], timings["artifact"], strict=True)]
    ratios = [gate / both for gate, both in zip(timings["gate"], once, strict=True)]
    environment["load_average_after"] = load_average()
    content = {
        "environment": environment,
        "images": len(data),
        "rounds": len(ratios),
        "seconds": {name: round(median(values) / 1e3, 3) for name, values in timings.items()},
        "gate_over_both": round(median(ratios), 3),
        "gate_over_both_min_max": [round(min(ratios), 3), round(max(ratios), 3)],
    }
    arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(content["seconds"]), content["gate_over_both"])


def evaluated(data: Chosen, segment: object) -> np.ndarray:
    """The confusion matrix of a segmenter over the images."""
    total = np.zeros((len(data.classes), len(data.classes)), np.int64)
    for index in range(len(data)):
        mask = segment(data.image(index))  # type: ignore[operator]
        total += confusion_matrix(data.mask(index), mask, len(data.classes), data.classes.ignore_index)
    return total


if __name__ == "__main__":
    main()
