"""``python -m portability_engines.worker ENGINE MODEL IMAGES.npy MASK.npy``: the inside of one process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from portability_engines import javascript_engines, python_engines
from portability_engines.outcome import Outcome, one_line

ENGINES: dict[str, Callable[[Path, python_engines.Images], Outcome]] = {
    "onnxruntime": python_engines.onnx_runtime,
    "onnx-reference": python_engines.reference,
    "openvino-f32": python_engines.openvino_f32,
    "openvino-default": python_engines.openvino_default,
    "onnxruntime-web": javascript_engines.onnxruntime_web,
    "onnxruntime-node": javascript_engines.onnxruntime_node,
    "opencv": python_engines.opencv,
    "opencv-fixed": python_engines.opencv_fixed,
    "tensorrt-rtx": python_engines.tensorrt_rtx,
}


def main(engine: str, model: str, source: str, target: str) -> None:
    """Run one engine, store its mask and print one JSON line."""
    report = {"version": "", "note": "", "error": ""}
    try:
        outcome = ENGINES[engine](Path(model), np.load(source))
        report |= {"version": outcome.version, "note": outcome.note}
        if outcome.mask is not None:
            np.save(target, outcome.mask)
    except Exception as error:  # whatever the engine raises is its result
        report["error"] = one_line(error)
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
