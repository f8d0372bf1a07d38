"""What an ONNX file takes, gives and says about itself, read without ``onnx`` and without loading the network.

Field numbers are those of ``onnx.proto`` (ONNX IR specification).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.serving.runtimes.base import TensorSpec
from dropclass_deploy.serving.runtimes.onnx_file.protobuf_wire import WireError, integer, messages, text

MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 5, 11, 12
TENSOR_NAME, VALUE_NAME, VALUE_TYPE = 8, 1, 2
TYPE_TENSOR, TENSOR_ELEMENT, TENSOR_SHAPE, SHAPE_DIM, DIM_VALUE = 1, 1, 2, 1, 1
ENTRY_KEY, ENTRY_VALUE = 1, 2

DTYPES = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool"}
DTYPES |= {10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16"}


@dataclass(frozen=True)
class GraphIO:
    """Inputs, outputs and ``metadata_props`` of an ONNX file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: dict[str, str]


def read_graph_io(path: Path) -> GraphIO:
    """Inputs, outputs and metadata of an ONNX file.

    Raises:
        ArtifactError: when the bytes are no ONNX model.
    """
    try:
        model = memoryview(path.read_bytes())
        graphs = list(messages(model, MODEL_GRAPH))
        if len(graphs) != 1:
            raise WireError(f"it holds {len(graphs)} graphs")
        stored = {text(tensor, TENSOR_NAME) for tensor in messages(graphs[0], GRAPH_INITIALIZER)}
        inputs = tuple(spec for spec in _specs(graphs[0], GRAPH_INPUT) if spec.name not in stored)
        return GraphIO(inputs, tuple(_specs(graphs[0], GRAPH_OUTPUT)), _metadata(model))
    except (WireError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read as an ONNX model: {error}") from error


def takes_planes(io: GraphIO) -> bool:
    """Whether the file takes an image that was normalised outside, float32, as ``--no-bake-preprocess`` exports it."""
    return len(io.inputs) == 1 and io.inputs[0].dtype == "float32"


def _metadata(model: memoryview) -> dict[str, str]:
    return {text(entry, ENTRY_KEY): text(entry, ENTRY_VALUE) for entry in messages(model, MODEL_METADATA)}


def _specs(graph: memoryview, number: int) -> Iterator[TensorSpec]:
    for value in messages(graph, number):
        for kind in messages(value, VALUE_TYPE):
            for tensor in messages(kind, TYPE_TENSOR):
                code = integer(tensor, TENSOR_ELEMENT)
                yield TensorSpec(text(value, VALUE_NAME), DTYPES.get(code, f"type {code}"), tuple(_sizes(tensor)))


def _sizes(tensor: memoryview) -> Iterator[int | None]:
    """A dimension that is named, unknown or zero is dynamic."""
    for shape in messages(tensor, TENSOR_SHAPE):
        for dimension in messages(shape, SHAPE_DIM):
            yield integer(dimension, DIM_VALUE) or None
