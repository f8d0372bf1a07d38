"""``python -m portability_engines.worker ENGINE MODEL IMAGES.npy MASK.npy``: the inside of one process."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from portability_engines import javascript_engines, python_engines
from portability_engines.npm import package_version
from portability_engines.outcome import Outcome, one_line


@dataclass(frozen=True)
class Engine:
    """What runs, and the package whose version is recorded, whether it runs or not."""

    run: Callable[[Path, python_engines.Images], Outcome]
    package: str
    version_of: Callable[[str], str] = importlib.metadata.version


ENGINES = {
    "onnxruntime": Engine(python_engines.onnx_runtime, "onnxruntime"),
    "onnx-reference": Engine(python_engines.reference, "onnx"),
    "openvino-f32": Engine(python_engines.openvino_f32, "openvino"),
    "openvino-default": Engine(python_engines.openvino_default, "openvino"),
    "onnxruntime-web": Engine(javascript_engines.onnxruntime_web, "onnxruntime-web", package_version),
    "onnxruntime-node": Engine(javascript_engines.onnxruntime_node, "onnxruntime-node", package_version),
    "opencv": Engine(python_engines.opencv, "opencv-python-headless"),
    "opencv-fixed": Engine(python_engines.opencv_fixed, "opencv-python-headless"),
    "tensorrt-rtx": Engine(python_engines.tensorrt_rtx, "tensorrt-rtx-cu13"),
}


def main(name: str, model: str, source: str, target: str) -> None:
    """Run one engine, store its mask and print one JSON line."""
    report = {"version": "", "note": "", "error": ""}
    try:
        engine = ENGINES[name]
        report["version"] = engine.version_of(engine.package)
        outcome = engine.run(Path(model), np.load(source))
        report["note"] = outcome.note
        if outcome.mask is not None:
            np.save(target, outcome.mask)
    except Exception as error:  # whatever the engine raises is its result
        report["error"] = one_line(error)
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
