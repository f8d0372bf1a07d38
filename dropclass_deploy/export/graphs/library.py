"""The ``onnx`` package, or the one line that says how to get it. Every module of this room takes it from here."""

from __future__ import annotations

from typing import Any

from dropclass_deploy.core.errors import MissingExtraError

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    raise MissingExtraError("onnx", "export") from missing

Model = Any  # onnx.ModelProto; onnx is not typed for strict mypy

__all__ = ["Model", "TensorProto", "helper", "numpy_helper", "onnx", "onnx_version"]


def onnx_version() -> str:
    """Version of the ``onnx`` package."""
    return str(onnx.__version__)
