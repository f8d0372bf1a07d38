"""Runtimes by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.serving.runtimes.base import Runtime, fallback_problem
from dropclass_deploy.serving.runtimes.onnx_runtime import CPU, CUDA, TENSORRT, OnnxRuntime
from dropclass_deploy.serving.runtimes.openvino_runtime import OpenVino
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import PLAN
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_engine import TensorRTEngine

AUTO = "auto"

Opener = Callable[[Path, int | None], Runtime]


def _onnxruntime(provider: str) -> Opener:
    return lambda path, threads: OnnxRuntime(path, provider=provider, threads=threads)


def _openvino(hint: str) -> Opener:
    return lambda path, threads: OpenVino(path, hint=hint, threads=threads)


def _tensorrt(path: Path, threads: int | None) -> Runtime:  # noqa: ARG001 (a GPU has no threads to set)
    return TensorRTEngine(path)


RUNTIMES: dict[str, Opener] = {
    "onnxruntime": _onnxruntime(CPU),
    "onnxruntime-cuda": _onnxruntime(CUDA),
    "onnxruntime-tensorrt": _onnxruntime(TENSORRT),
    "openvino": _openvino("f32"),
    "openvino-bf16": _openvino("bf16"),
    "tensorrt": _tensorrt,
}


def runtime_names() -> tuple[str, ...]:
    """Every name that ``open_runtime`` takes."""
    return (AUTO, *RUNTIMES)


def open_runtime(
    path: str | Path, runtime: str = AUTO, threads: int | None = None, *, allow_fallback: bool = False
) -> Runtime:
    """Load a network file.

    Args:
        path: of the file.
        runtime: one of ``runtime_names()``; "auto" is ONNX Runtime on the CPU, and TensorRT for a ``.plan``.
        threads: of one operator; None leaves the choice to the runtime.
        allow_fallback: hand back a runtime whose provider is not the one asked for (a caller that judges it, such as
            the parity gate, looks at ``fallback_problem``) instead of raising.

    Raises:
        UserError: for an unknown name, or when another provider than the one asked for would run the network.
        MissingExtraError: when the runtime's library is not installed. ArtifactError: when the file cannot be loaded.
    """
    if runtime not in runtime_names():
        raise UserError(f"there is no runtime {runtime!r}", expected=f"one of {', '.join(runtime_names())}")
    # Only TensorRT reads a plan: a file that is one needs no name for its runtime.
    chosen = ("tensorrt" if Path(path).suffix == PLAN else "onnxruntime") if runtime == AUTO else runtime
    opened = RUNTIMES[chosen](Path(path), threads)
    problem = fallback_problem(opened)
    if problem and not allow_fallback:
        opened.close()
        raise UserError(problem, remedy="name the runtime that you want, or install what it needs")
    return opened
