"""Float16 arithmetic, imitated in float32: every operator's result is rounded to float16 before the next one reads it.

ONNX Runtime has no float16 convolutions on x86: it computes such a graph in float32 and drops the casts in between, so that
nothing overflows and nothing is rounded. What a GPU does shows here: values beyond 65,504 become infinite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dropclass_deploy.export.graphs.core_and_tail import copied
from dropclass_deploy.export.graphs.library import Model, TensorProto, helper, numpy_helper, onnx

_KEPT = {"Resize", "Upsample", "Cast", "Shape", "Constant"}
"""Operators that stay float32 in the converted network, or hold no activation."""


def rounded_like_float16(core: Model) -> Model:
    """A float32 copy of a float32 core whose constants and activations are those of float16 arithmetic.

    Sums inside one convolution are kept in float32, as tensor cores keep them.
    """
    model = onnx.shape_inference.infer_shapes(copied(core))
    floats = _float_tensors(model)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            with np.errstate(over="ignore"):
                values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type not in _KEPT:
            nodes.extend(_rounding(node, floats))
    del graph.node[:]
    graph.node.extend(nodes)
    graph.ClearField("value_info")
    return model


def _float_tensors(model: Model) -> set[str]:
    described = (*model.graph.value_info, *model.graph.output)
    return {item.name for item in described if item.type.tensor_type.elem_type == TensorProto.FLOAT}


def _rounding(node: Any, floats: set[str]) -> list[Any]:
    """Two casts behind each float output, which takes over its name."""
    added = []
    for index, name in enumerate(node.output):
        if name in floats:
            exact, half = f"{name}.exact", f"{name}.half"
            node.output[index] = exact
            added.append(helper.make_node("Cast", [exact], [half], name=half, to=TensorProto.FLOAT16))
            added.append(helper.make_node("Cast", [half], [name], name=f"{name}.rounded", to=TensorProto.FLOAT))
    return added
