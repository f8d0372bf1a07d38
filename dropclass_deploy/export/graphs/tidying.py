"""What the exporter left in a graph, and what belongs into a file that is shipped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from dropclass_deploy.export.graphs.library import Model, TensorProto, helper, onnx

DIMENSIONS = ("batch", "height", "width")
_WORD = re.compile(r"[A-Za-z_]\w*")


def tidy(model: Model) -> Model:
    """Rename the dynamic dimensions to batch, height, width and remove the exporter's notes, in place.

    torch.onnx writes Python stack traces, source paths and parameter lists into every node; none of that belongs into a
    file that is shipped.

    Args:
        model: graph with one input (N, 3, H, W).
    """
    shape = model.graph.input[0].type.tensor_type.shape.dim
    axes = (shape[0], shape[2], shape[3])
    names = {axis.dim_param: name for axis, name in zip(axes, DIMENSIONS, strict=True) if axis.dim_param}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = _WORD.sub(lambda word: names.get(word[0], word[0]), dim.dim_param)
    for part in _described(model):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def _described(model: Model) -> Iterator[Any]:
    graph = model.graph
    yield graph
    yield from (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    yield from nodes_of(graph)


def nodes_of(graph: Any) -> Iterator[Any]:
    """Every node of a graph, those inside the bodies of If, Loop and Scan included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from nodes_of(body)


def operator_counts(model: Model) -> Counter[str]:
    """How often each operator occurs in a graph."""
    return Counter(node.op_type for node in nodes_of(model.graph))


def with_output(model: Model, tensor: str) -> Model:
    """A copy whose output is one of its inner tensors; the type is left to the runtime."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    return copy
