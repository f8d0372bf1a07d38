"""``metadata_props`` and output names of an ONNX file, read without the ``onnx`` package (numbers of the ONNX IR)."""

from __future__ import annotations

from pathlib import Path

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.serving.runtimes.protobuf_wire import WireError, messages, text

MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_OUTPUT, VALUE_NAME = 12, 1
ENTRY_KEY, ENTRY_VALUE = 1, 2


def read_metadata(path: Path) -> dict[str, str]:
    """Key → text of an ONNX file (ModelProto.metadata_props, StringStringEntryProto of the ONNX IR specification).

    Raises:
        ArtifactError: when the bytes are no ONNX model.
    """
    try:
        entries = list(messages(memoryview(path.read_bytes()), MODEL_METADATA))
        return {text(entry, ENTRY_KEY): text(entry, ENTRY_VALUE) for entry in entries}
    except (WireError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read as an ONNX model: {error}") from error


def read_output_names(path: Path) -> tuple[str, ...]:
    """Names of the graph's outputs, in order. Raises ArtifactError when the bytes are no ONNX model."""
    try:
        graphs = messages(memoryview(path.read_bytes()), MODEL_GRAPH)
        return tuple(text(value, VALUE_NAME) for graph in graphs for value in messages(graph, GRAPH_OUTPUT))
    except (WireError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read as an ONNX model: {error}") from error
