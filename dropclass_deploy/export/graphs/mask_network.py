"""The network between an image and a mask: normalisation in front, a mask head behind."""

from __future__ import annotations

from typing import Any

import numpy as np

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.graphs.library import Model, TensorProto, helper, onnx
from dropclass_deploy.export.graphs.nodes import Nodes
from dropclass_deploy.export.graphs.resize import FinalResize, final_resize, static_sizes
from dropclass_deploy.export.graphs.sparse_head import sparse_mask
from dropclass_deploy.export.graphs.tidying import nodes_of
from dropclass_deploy.export.mask_format import AS_UINT8, MaskFormat
from dropclass_deploy.serving.mask_layout import NCHW, NHWC

_NETWORK_INPUT = "normalised"


def with_mask_head(network: Model, preprocess: Preprocess, form: MaskFormat = AS_UINT8) -> Model:
    """The network between an image and a mask of class ids: the dense head.

    Args:
        network: ``image`` float32 (N, 3, H, W) → ``logits`` float32 (N, C, H, W).
        preprocess: its mean and std; the size is not part of the graph.
        form: type and layout of the mask, and whether the normalisation is inside.

    Returns:
        A new model: ``image`` uint8 (N, H, W, 3), or the network's own input → ``mask``. Equal logits go to the lowest id.
    """
    model, front, shape = _opened(network, preprocess, form)
    head = Nodes("mask")
    logits = model.graph.output[0].name
    ids = head("ArgMax", logits, axis=1, keepdims=0, select_last_index=0)
    return _closed(model, front, head, ids, form, shape, keep=True)


def with_sparse_head(
    network: Model, preprocess: Preprocess, scale: int | None, form: MaskFormat = AS_UINT8
) -> Model | str:
    """The same with the sparse head in place of the network's last resize, or the reason why it cannot be.

    Args:
        network: as for ``with_mask_head``.
        preprocess: as for ``with_mask_head``.
        scale: whole number of target pixels a coarse pixel, for images whose sides allow it; None where there is none.
        form: as for ``with_mask_head``.
    """
    resize = final_resize(network)
    if isinstance(resize, str):
        return resize
    model, front, shape = _opened(network, preprocess, form)
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    _drop_resize(model, resize)
    head = Nodes("mask")
    sizes, sized = resize.sizes, static_sizes(network, resize) is not None
    if resize.factor:
        # Enlarged by a whole number, whatever the size.
        sizes, scale, sized = _enlarged(head, resize.coarse, resize.factor), resize.factor, True
    ids = sparse_mask(head, resize.coarse, sizes, resize.coordinates, scale, classes, sized)
    return _closed(model, front, head, ids, form, shape, keep=False)


def _opened(network: Model, preprocess: Preprocess, form: MaskFormat) -> tuple[Model, Nodes, list[int | str]]:
    """A copy that reads the image, the nodes in front of it, and (N, 3, H, W)."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    graph = model.graph
    shape = [_dimension(dim) for dim in graph.input[0].type.tensor_type.shape.dim]
    front = Nodes("normalise")
    if form.bake_preprocess:
        batch, channels, height, width = shape
        _rename(graph, graph.input[0].name, _NETWORK_INPUT)
        _normalise(front, preprocess)
        graph.ClearField("input")
        graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, height, width, channels]))
    return model, front, shape


def _normalise(add: Nodes, preprocess: Preprocess) -> None:
    scale, shift = (values.reshape(1, 3, 1, 1) for values in preprocess.scale_and_shift())
    # The cast comes first: TensorRT takes uint8 at a network's border only, and refuses to transpose it.
    planes = add("Transpose", add.cast("image", "float32"), perm=[0, 3, 1, 2])
    add("Add", add("Mul", planes, add.constant(scale)), add.constant(shift), out=_NETWORK_INPUT)


def _enlarged(add: Nodes, coarse: str, factor: int) -> str:
    """(N, C, factor·h, factor·w) of coarse logits, int64."""
    return add("Mul", add("Shape", coarse), add.ints(1, 1, factor, factor))


def _drop_resize(model: Model, resize: FinalResize) -> None:
    """Without the resize, and without what is then no graph's value any more."""
    kept = [node for node in model.graph.node if node.name != resize.node.name]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _closed(
    model: Model, front: Nodes, head: Nodes, ids: str, form: MaskFormat, shape: list[int | str], *, keep: bool
) -> Model:
    """Front, network and head as one graph with the mask as its output."""
    graph = model.graph
    batch, _, height, width = shape
    if keep:
        graph.value_info.append(graph.output[0])
    graph.ClearField("output")
    sizes = {NHWC: [batch, height, width, 1], NCHW: [batch, 1, height, width]}.get(form.layout, [batch, height, width])
    if form.layout in (NHWC, NCHW):
        ids = head("Unsqueeze", ids, head.ints(3 if form.layout == NHWC else 1))
    head.cast(ids, form.dtype, out="mask")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(form.dtype))
    graph.output.append(helper.make_tensor_value_info("mask", kind, sizes))
    network_nodes = list(graph.node)
    graph.ClearField("node")
    graph.node.extend([*front.nodes, *network_nodes, *head.nodes])
    graph.initializer.extend([*front.initializers, *head.initializers])
    return model


def _dimension(dim: Any) -> int | str:
    return str(dim.dim_param) if dim.dim_param else int(dim.dim_value)


def _rename(graph: Any, old: str, new: str) -> None:
    for node in nodes_of(graph):
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
