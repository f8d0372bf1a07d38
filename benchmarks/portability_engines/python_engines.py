"""Engines with a Python package. Each is imported where it is used: a missing one stops only itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from portability_engines.fixed_shape import fixed_copy
from portability_engines.outcome import Outcome

Images = npt.NDArray[np.uint8]


def onnx_runtime(model: Path, images: Images) -> Outcome:
    """The baseline: ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return Outcome(session.run(["mask"], {"image": images})[0])


def reference(model: Path, images: Images) -> Outcome:
    """onnx's own interpreter, written in NumPy for meaning, not for speed."""
    from onnx.reference import ReferenceEvaluator

    return Outcome(ReferenceEvaluator(str(model)).run(["mask"], {"image": images})[0])


def openvino_f32(model: Path, images: Images) -> Outcome:
    """OpenVINO on the CPU, told to compute in float32."""
    return _openvino(model, images, {"INFERENCE_PRECISION_HINT": "f32"})


def openvino_default(model: Path, images: Images) -> Outcome:
    """OpenVINO on the CPU as it comes: bfloat16 where the CPU has it."""
    return _openvino(model, images, {})


def _openvino(model: Path, images: Images, options: dict[str, str]) -> Outcome:
    import openvino

    compiled = openvino.Core().compile_model(str(model), "CPU", options)
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return Outcome(compiled([images])[0], f"computed in {precision}")


def opencv(model: Path, images: Images) -> Outcome:
    """OpenCV's DNN module on the file as it is."""
    import cv2

    try:
        net = cv2.dnn.readNetFromONNX(str(model))
        # It has no uint8 tensors; the ids come out as float32.
        net.setInput(images.astype(np.float32))
        mask = net.forward()
    except cv2.error as error:
        raise RuntimeError(_opencv_reason(str(error.err))) from error
    return Outcome(mask)


def _opencv_reason(message: str) -> str:
    """``OPERATOR (node): reason`` where the message names a node, else the message."""
    node = re.search(r"Node \[(\w+)@[\w.]+\]:\((?:onnx_node!)?(.*?)\)(.*)", message, flags=re.DOTALL)
    return f"{node[1]} ({node[2]}):{node[3]}" if node else message


def opencv_fixed(model: Path, images: Images) -> Outcome:
    """OpenCV's DNN module on a copy whose input shape is fixed, as an export with ``--shape`` has it."""
    with fixed_copy(model, images.shape) as copy:
        outcome = opencv(copy, images)
    return Outcome(outcome.mask, "on a copy with a fixed input shape")


def tensorrt_rtx(model: Path, images: Images) -> Outcome:
    """TensorRT-RTX: parsed and built ahead of time for compute capability 8.9; running it needs a GPU."""
    import tensorrt_rtx as trt

    log = _listening_logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(model)):
        problem = parser.get_error(0)
        raise RuntimeError(f"{problem.node_operator()} ({problem.node_name()}): {problem.desc()}")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", images.shape, images.shape, images.shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("; ".join(log.errors) or "the build gave nothing and said nothing")
    return Outcome(None, f"built for compute capability 8.9 ({plan.nbytes / 2**20:.0f} MiB), not run")


def _listening_logger(trt: Any) -> Any:
    """A logger that keeps what the builder says of its failures: nothing else tells."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)

    return Log()
