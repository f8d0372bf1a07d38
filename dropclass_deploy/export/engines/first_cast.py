"""TensorRT takes a uint8 input only straight into a Cast: where the file transposes first, the two change places.

Both orders give the same numbers (every uint8 is a float), so this changes what the parser is handed and nothing else; the
file stays as it is.
"""

from __future__ import annotations

from typing import Any

import onnx

from dropclass_deploy.core.errors import ArtifactError


def with_cast_first(content: bytes) -> bytes:
    """An ONNX file's bytes with each ``uint8 input → Transpose → Cast`` turned into ``Cast → Transpose``.

    Raises:
        ArtifactError: when the bytes are no ONNX model.
    """
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own kinds of error differ between its implementations
        raise ArtifactError(f"the network cannot be read as an ONNX model: {type(error).__name__}") from error
    swapped = [_swap(model.graph, value.name) for value in model.graph.input if _is_uint8(value)]
    return model.SerializeToString() if any(swapped) else content


def _is_uint8(value: Any) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.UINT8)


def _swap(graph: Any, name: str) -> bool:
    transpose = _only_reader(graph, name, "Transpose")
    cast = None if transpose is None else _only_reader(graph, transpose.output[0], "Cast")
    if transpose is None or cast is None:
        return False
    between, behind = transpose.output[0], cast.output[0]
    cast.input[0], cast.output[0] = name, between
    transpose.input[0], transpose.output[0] = between, behind
    nodes = list(graph.node)
    # The nodes trade places as well: a graph is in topological order. (What was between now has another type and shape.)
    first, second = nodes.index(transpose), nodes.index(cast)
    nodes[first], nodes[second] = nodes[second], nodes[first]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    for value in [value for value in graph.value_info if value.name == between]:
        graph.value_info.remove(value)
    return True


def _only_reader(graph: Any, name: str, op: str) -> Any:
    """The node that alone reads a tensor, when it is an ``op``."""
    readers = [node for node in graph.node if name in node.input]
    given = any(value.name == name for value in graph.output)
    return readers[0] if len(readers) == 1 and readers[0].op_type == op and not given else None
