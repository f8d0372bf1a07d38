"""The numeric precision of an ONNX file, as read from its graph and not as somebody named it.

The precision is that of the linear operators (convolutions and matrix products, where nearly all of the arithmetic is):
each weight is followed back through casts, reshapes and DequantizeLinear to the tensor that is stored. Field numbers are
those of ``onnx.proto`` (ONNX IR specification).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.serving.runtimes.onnx_file.protobuf_wire import WireError, integer, messages, text

MODEL_GRAPH, MODEL_FUNCTIONS = 7, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_SPARSE = 1, 5, 11, 15
FUNCTION_NODE = 7
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP, NODE_ATTRIBUTE = 1, 2, 3, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS = 1, 3, 5, 6, 11
TENSOR_TYPE, TENSOR_NAME = 2, 8
SPARSE_VALUES = 1

KINDS = {1: "fp32", 11: "fp64", 10: "fp16", 16: "bf16", 17: "fp8", 18: "fp8", 19: "fp8", 20: "fp8"}
KINDS |= {2: "int8", 3: "int8", 21: "int4", 22: "int4", 23: "fp4"}
LOWERED = {"fp16", "bf16", "fp8", "fp4"}
NAMED = {"fp32", "fp16", "bf16", "int8"}

LINEAR = {"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul"}
INTEGER = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm", "DynamicQuantizeMatMul"}
QUANTISING = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
# What hands a weight on without computing with it.
CARRYING = {"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Concat"}
MASK_HEAD = "mask."
"""Names of our mask heads' nodes begin so: their products interpolate logits and are no layer of the network."""
DEEPEST = 64
"""Nesting of subgraphs that is still followed; real networks stay below 5."""


@dataclass(frozen=True)
class _Node:
    op: str
    inputs: tuple[str, ...]
    code: int = 0  # Cast: its target type; Constant: the type of its value


@dataclass
class _Graph:
    """What matters of a model, with all subgraphs in one."""

    nodes: list[_Node] = field(default_factory=list)
    producers: dict[str, _Node] = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)


def read_precision(path: Path) -> str:
    """Precision of the network in an ONNX file.

    Returns:
        "fp32", "fp16", "bf16" or "int8" where all linear operators agree (int8: both of their inputs are quantised), else
        "mixed". Where no operator has weights: what the constants, casts and inputs agree on.

    Raises:
        ArtifactError: when the bytes are no ONNX model.
    """
    try:
        graph = _read(memoryview(path.read_bytes()))
    except (WireError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read as an ONNX model: {error}") from error
    return _verdict(graph)


def _verdict(graph: _Graph) -> str:
    kinds = {kind for node in graph.nodes for kind in _linear_kinds(graph, node)}
    if not kinds:
        kinds = set(_other_kinds(graph)) or {"fp32"}
    elif kinds == {"fp32"} and any(kind in LOWERED or kind == "int8" for kind in _lowering(graph)):
        return "mixed"
    return kinds.pop() if len(kinds) == 1 and kinds <= NAMED else "mixed"


def _linear_kinds(graph: _Graph, node: _Node) -> Iterator[str]:
    """Kinds of the weights of one linear operator; nothing when they are computed at run time."""
    if node.op in INTEGER:
        yield "int8"
    if node.op not in LINEAR or len(node.inputs) < 2:
        return
    sources = {name: set(_stored_kinds(graph, name)) for name in node.inputs[:2]}
    weights = sources[node.inputs[1]] or (sources[node.inputs[0]] if node.op.endswith("MatMul") else set())
    yield from weights
    if "int8" in weights and not all("int8" in kinds for kinds in sources.values()):
        yield "fp32"  # only the weights are quantised: the arithmetic is not


def _stored_kinds(graph: _Graph, name: str) -> list[str]:
    """Kinds met on the way from ``name`` back to a stored tensor; empty when it is computed."""
    casts: list[str] = []
    for _ in range(len(graph.nodes) + 1):
        if name in graph.stored:
            return [graph.stored[name], *casts]
        node = graph.producers.get(name)
        if node is None or not node.inputs:
            return []
        if node.op in QUANTISING:
            return ["int8", *casts]
        if node.op == "Cast":
            casts.append(KINDS.get(node.code, "other"))
        elif node.op not in CARRYING:
            return []
        name = node.inputs[0]
    return []


def _other_kinds(graph: _Graph) -> Iterator[str]:
    floats = {"fp32", "fp64"} | LOWERED
    yield from (kind for kind in (*graph.stored.values(), *graph.inputs) if kind in floats)
    yield from (kind for kind in _lowering(graph) if kind != "other")
    yield from (kind for node in graph.nodes if node.op == "Cast" and (kind := KINDS.get(node.code)) in floats and kind)


def _lowering(graph: _Graph) -> Iterator[str]:
    """Kinds that something is rounded to on its way: casts, quantisers, stored tensors of low precision."""
    for node in graph.nodes:
        if node.op in QUANTISING or node.op in INTEGER:
            yield "int8"
        elif node.op == "Cast" and KINDS.get(node.code) in LOWERED:
            yield KINDS[node.code]
    yield from (kind for kind in graph.stored.values() if kind in LOWERED)


def _read(model: memoryview) -> _Graph:
    graph = _Graph()
    for message in messages(model, MODEL_GRAPH):
        _add_graph(graph, message, depth=0)
    for function in messages(model, MODEL_FUNCTIONS):
        _add_nodes(graph, messages(function, FUNCTION_NODE), depth=0)
    return graph


def _add_graph(graph: _Graph, message: memoryview, depth: int) -> None:
    if depth > DEEPEST:
        raise WireError(f"subgraphs nested deeper than {DEEPEST}")
    sparse = (values for item in messages(message, GRAPH_SPARSE) for values in messages(item, SPARSE_VALUES))
    for tensor in (*messages(message, GRAPH_INITIALIZER), *sparse):
        graph.stored[text(tensor, TENSOR_NAME)] = _kind_of(tensor)
    graph.inputs += [kind for value in messages(message, GRAPH_INPUT) for kind in _input_kinds(value)]
    _add_nodes(graph, messages(message, GRAPH_NODE), depth)


def _add_nodes(graph: _Graph, found: Iterable[memoryview], depth: int) -> None:
    for message in found:
        inputs = tuple(bytes(name).decode("utf-8", "replace") for name in messages(message, NODE_INPUT))
        op = text(message, NODE_OP)
        attributes = list(messages(message, NODE_ATTRIBUTE))
        if op in LINEAR and text(message, NODE_NAME).startswith(MASK_HEAD):
            continue
        node = _Node(op, inputs, _cast_target(attributes) if op == "Cast" else 0)
        graph.nodes.append(node)
        for name in messages(message, NODE_OUTPUT):
            graph.producers[bytes(name).decode("utf-8", "replace")] = node
            if op == "Constant":
                graph.stored |= {bytes(name).decode("utf-8", "replace"): kind for kind in _constant_kinds(attributes)}
        for attribute in attributes:
            for inner in (*messages(attribute, ATTRIBUTE_GRAPH), *messages(attribute, ATTRIBUTE_GRAPHS)):
                _add_graph(graph, inner, depth + 1)


def _cast_target(attributes: list[memoryview]) -> int:
    return next((integer(item, ATTRIBUTE_INT) for item in attributes if text(item, ATTRIBUTE_NAME) == "to"), 0)


def _constant_kinds(attributes: list[memoryview]) -> list[str]:
    return [_kind_of(tensor) for item in attributes for tensor in messages(item, ATTRIBUTE_TENSOR)]


def _kind_of(tensor: memoryview) -> str:
    return KINDS.get(integer(tensor, TENSOR_TYPE), "other")


def _input_kinds(value: memoryview) -> Iterator[str]:
    """Kind of a graph input: ValueInfoProto.type (2) → TypeProto.tensor_type (1) → elem_type (1)."""
    for kind in messages(value, 2):
        for tensor in messages(kind, 1):
            yield KINDS.get(integer(tensor, 1), "other")
