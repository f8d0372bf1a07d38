"""ONNX graphs in hand: names, the dense mask head, metadata, checking, saving as one file.

The only module of the room that imports ``onnx``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dropclass_deploy.core.errors import MissingExtraError, ModelError
from dropclass_deploy.core.files import write_bytes
from dropclass_deploy.core.preprocess import Preprocess

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    raise MissingExtraError("onnx", "export") from missing

Model = Any  # onnx.ModelProto; onnx is not typed for strict mypy
OPSETS = (18, 19, 20)
DIMENSIONS = ("batch", "height", "width")
MAX_BYTES = 2**31 - 1
"""A protobuf message, and so a single-file ONNX model, ends at 2 GB."""

_NETWORK_INPUT = "normalised"
_WORD = re.compile(r"[A-Za-z_]\w*")


def onnx_version() -> str:
    """Version of the ``onnx`` package."""
    return str(onnx.__version__)


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
    yield from _nodes(graph)


def _nodes(graph: Any) -> Iterator[Any]:
    """Every node of a graph, those inside the bodies of If, Loop and Scan included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(body)


def operator_counts(model: Model) -> Counter[str]:
    """How often each operator occurs in a graph."""
    return Counter(node.op_type for node in _nodes(model.graph))


def with_mask_head(network: Model, preprocess: Preprocess) -> Model:
    """The network between a uint8 image and a uint8 mask: the dense head, normalisation included.

    Args:
        network: ``image`` float32 (N, 3, H, W) → ``logits`` float32 (N, C, H, W).
        preprocess: its mean and std; the size is not part of the graph.

    Returns:
        A new model: ``image`` uint8 (N, H, W, 3) → ``mask`` uint8 (N, H, W). Equal logits go to the lowest id.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network)
    graph = model.graph
    batch, _, height, width = (_dimension(dim) for dim in graph.input[0].type.tensor_type.shape.dim)
    _rename(graph, graph.input[0].name, _NETWORK_INPUT)
    logits = graph.output[0].name
    network_nodes = list(graph.node)
    graph.value_info.append(graph.output[0])
    for field in ("input", "output", "node"):
        graph.ClearField(field)
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, height, width, 3]))
    graph.output.append(helper.make_tensor_value_info("mask", TensorProto.UINT8, [batch, height, width]))
    graph.node.extend([*_normalising_nodes(), *network_nodes, *_dense_head_nodes(logits)])
    scale, shift = preprocess.scale_and_shift()
    graph.initializer.append(numpy_helper.from_array(scale.reshape(1, 3, 1, 1), "normalise.scale"))
    graph.initializer.append(numpy_helper.from_array(shift.reshape(1, 3, 1, 1), "normalise.shift"))
    return model


def _dimension(dim: Any) -> int | str:
    return str(dim.dim_param) if dim.dim_param else int(dim.dim_value)


def _normalising_nodes() -> list[Any]:
    return [
        helper.make_node("Transpose", ["image"], ["image.planes"], name="normalise.transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["image.planes"], ["image.float"], name="normalise.cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["image.float", "normalise.scale"], ["image.scaled"], name="normalise.mul"),
        helper.make_node("Add", ["image.scaled", "normalise.shift"], [_NETWORK_INPUT], name="normalise.add"),
    ]


def _dense_head_nodes(logits: str) -> list[Any]:
    return [
        helper.make_node("ArgMax", [logits], ["mask.ids"], name="mask.argmax", axis=1, keepdims=0, select_last_index=0),
        helper.make_node("Cast", ["mask.ids"], ["mask"], name="mask.cast", to=TensorProto.UINT8),
    ]


def _rename(graph: Any, old: str, new: str) -> None:
    for node in _nodes(graph):
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def save(model: Model, path: Path, metadata: Mapping[str, str], opset: int) -> None:
    """Check a model and write it as one file, atomically.

    Args:
        model: what to write; its ``metadata_props`` are replaced.
        path: the ``.onnx`` file.
        metadata: key → text.
        opset: the version of the default operator set that the file must have.

    Raises:
        ModelError: when the checker refuses the graph, the opset is another, or the file would pass 2 GB.
    """
    helper.set_model_props(model, dict(metadata))
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found.get("", found.get("ai.onnx")) != opset:
        raise ModelError(f"the export has operator sets {found}", expected=f"opset {opset} of the default domain")
    _refuse_large(model.ByteSize())
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the ONNX checker refuses the exported graph: {reason}") from error
    write_bytes(path, model.SerializeToString(deterministic=True))


def _refuse_large(size: int) -> None:
    if size > MAX_BYTES:
        raise ModelError(
            f"the ONNX file would take {size / 2**30:.1f} GiB",
            expected="at most 2 GB: one file holds the whole model",
            remedy="export a smaller network",
        )
