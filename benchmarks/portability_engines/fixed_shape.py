"""A copy of an ONNX file with its input shape fixed and what follows from it folded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fixed_copy(model: Path, shape: Sequence[int]) -> Iterator[Path]:
    """Yield a temporary file: ``model`` for an ``image`` of exactly ``shape``.

    ONNX Runtime's basic level folds the arithmetic on shapes and keeps to standard operators.
    """
    import onnx
    import onnxruntime

    graph = onnx.load(model)
    for value in (*graph.graph.input, *graph.graph.output):
        for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=False):
            dimension.dim_value = size
    # Stale symbolic shapes would contradict the fixed ones.
    graph.graph.ClearField("value_info")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fixed.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        yield path
