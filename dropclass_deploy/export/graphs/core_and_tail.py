"""A network cut before its last resize: the *core* (image → coarse logits) loses precision, the *tail* stays float32.

Quantised or halved logits tie where the float32 ones did not, and a resize spreads each tie over a block of pixels. So
the core is converted with coarse logits that leave it in float32, and the tail is put behind it again as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dropclass_deploy.export.graphs.library import Model, onnx
from dropclass_deploy.export.graphs.resize import final_resize
from dropclass_deploy.export.graphs.tidying import with_output

_HEAVY = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass(frozen=True)
class Tail:
    """What comes behind the coarse logits.

    Attributes:
        nodes: the resize and what computes its size, under names of their own.
        initializers: constants of those nodes.
        output: the network's logits.
        coarse: name of the tensor that the tail reads.
    """

    nodes: tuple[Any, ...]
    initializers: tuple[Any, ...]
    output: Any
    coarse: str


def split_tail(network: Model) -> tuple[Model, Tail]:
    """The core with the coarse logits as its output, and the tail; an empty one where no last resize is recognised."""
    resize = final_resize(network)
    output = onnx.ValueInfoProto()
    output.CopyFrom(network.graph.output[0])
    if isinstance(resize, str):
        return copied(network), Tail((), (), output, output.name)
    stops = {resize.coarse, network.graph.input[0].name}
    chosen = _size_nodes(network, resize.sizes, stops) if resize.sizes else []
    if any(node.op_type in _HEAVY for node in chosen):
        # The size hangs on a feature map: to compute it twice would cost more than it saves.
        return copied(network), Tail((), (), output, output.name)
    tail = [_renamed(node, {name for item in chosen for name in item.output}) for node in (*chosen, resize.node)]
    read = {name for node in tail for name in node.input}
    constants = tuple(item for item in network.graph.initializer if item.name in read)
    return pruned(with_output(network, resize.coarse)), Tail(tuple(tail), constants, output, resize.coarse)


def join_tail(core: Model, tail: Tail) -> Model:
    """The whole network again, from a core that was converted."""
    model = copied(core)
    # Converters keep descriptions of tensors that have another type by now.
    model.graph.ClearField("value_info")
    if not tail.nodes:
        return model
    have = {item.name for item in model.graph.initializer}
    model.graph.initializer.extend(item for item in tail.initializers if item.name not in have)
    model.graph.node.extend(tail.nodes)
    del model.graph.output[:]
    model.graph.output.append(tail.output)
    return model


def copied(model: Model) -> Model:
    """A copy of a model."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def _size_nodes(network: Model, target: str, stops: set[str]) -> list[Any]:
    """The nodes that ``target`` needs, in graph order, back to ``stops``."""
    producers = {name: node for node in network.graph.node for name in node.output}
    needed, pending = set(), [target]
    while pending:
        name = pending.pop()
        node = producers.get(name)
        if name in stops or node is None or id(node) in needed:
            continue
        needed.add(id(node))
        pending.extend(node.input)
    return [node for node in network.graph.node if id(node) in needed]


def _renamed(node: Any, inner: set[str]) -> Any:
    """A copy whose inner tensors have names that no converter has touched."""
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.name = f"tail.{node.name}"
    for names in (twin.input, twin.output):
        for index, name in enumerate(names):
            if name in inner:
                names[index] = f"tail.{name}"
    return twin


def pruned(model: Model) -> Model:
    """Without nodes and constants that its output does not need."""
    graph = model.graph
    kept = _size_nodes(model, graph.output[0].name, set())
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    constants = [item for item in graph.initializer if item.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    values = {name for node in kept for name in node.output}
    described = [item for item in graph.value_info if item.name in values]
    del graph.value_info[:]
    graph.value_info.extend(described)
    return model
