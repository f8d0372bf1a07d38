"""Quantised graphs (QDQ form): which linear operators they hold, and keeping some of them in float32.

A QDQ graph says "this tensor as 8 bits" by a pair QuantizeLinear → DequantizeLinear in front of whoever reads it. An
operator is taken back to float32 by reading what stands before the pair, and the weights of the float network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dropclass_deploy.export.graphs.core_and_tail import copied, pruned
from dropclass_deploy.export.graphs.library import Model

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def linear_nodes(model: Model) -> dict[str, str]:
    """Name of each linear operator in graph order → name of its weight, "" where that is computed."""
    constants = {item.name for item in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type in LINEAR:
            found[node.name] = node.input[1] if node.input[1] in constants else ""
    return found


def with_float_nodes(quantised: Model, floating: Model, names: Collection[str]) -> Model:
    """A copy of a quantised network in which the named operators compute in float32.

    Args:
        quantised: QDQ form; its operators have the names of ``floating``.
        floating: the network it was made from.
        names: of operators, as ``blocks_of`` has them.
    """
    model = copied(quantised)
    originals = {node.name: node for node in floating.graph.node}
    constants = {item.name: item for item in floating.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    have = {item.name for item in model.graph.initializer}
    for node in model.graph.node:
        if node.name in names:
            for constant in _restore(node, originals[node.name], constants, producers):
                if constant.name not in have:
                    have.add(constant.name)
                    model.graph.initializer.append(constant)
    return pruned(model)


def _restore(node: Any, original: Any, constants: Mapping[str, Any], producers: Mapping[str, Any]) -> list[Any]:
    """Point ``node`` at float tensors; the constants it needs, under names that no quantised one has."""
    needed = []
    for index, name in enumerate(original.input):
        if name in constants:
            twin = type(constants[name])()
            twin.CopyFrom(constants[name])
            twin.name = f"float.{name}"
            node.input[index] = twin.name
            needed.append(twin)
        else:
            node.input[index] = _before_pair(node.input[index], producers)
    return needed


def _before_pair(name: str, producers: Mapping[str, Any]) -> str:
    """The tensor in front of QuantizeLinear → DequantizeLinear, or the tensor itself."""
    last = producers.get(name)
    if last is None or last.op_type != "DequantizeLinear":
        return name
    first = producers.get(last.input[0])
    return name if first is None or first.op_type != "QuantizeLinear" else str(first.input[0])


def float_output(model: Model) -> Model:
    """A copy whose output is not quantised once more behind the last operator."""
    twin = copied(model)
    producers = {name: node for node in twin.graph.node for name in node.output}
    output = twin.graph.output[0].name
    source = _before_pair(output, producers)
    if source == output:
        return twin
    for node in twin.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == source:
                    names[index] = output
                elif name == output:
                    names[index] = f"{output}.quantised"
    return pruned(twin)


def blocks_of(model: Model, most: int = 24) -> dict[str, tuple[str, ...]]:
    """The network's operators as blocks that follow one another: block name → operator names.

    Linear operators belong together when their weights lie in one module: the path is cut at the greatest depth that gives
    at most ``most`` blocks. Networks whose weights have no path are cut into stretches of equal length. Every other
    operator (an addition, a concatenation) goes with the linear one before it.
    """
    linear = _linear_blocks(model, most)
    block_of = {name: block for block, names in linear.items() for name in names}
    blocks: dict[str, list[str]] = {block: [] for block in linear}
    last = next(iter(linear))
    for node in model.graph.node:
        last = block_of.get(node.name, last)
        blocks[last].append(node.name)
    return {block: tuple(names) for block, names in blocks.items()}


def _linear_blocks(model: Model, most: int) -> dict[str, tuple[str, ...]]:
    operators = linear_nodes(model)
    paths = [weight.removeprefix("model.").split(".")[:-1] for weight in operators.values()]
    for depth in range(max(map(len, paths), default=0), 0, -1):
        grouped = _grouped(list(operators), [".".join(path[:depth]) for path in paths])
        if 2 <= len(grouped) <= most:
            return grouped
    length = -(-len(operators) // most)
    names = list(operators)
    return {
        f"operators {start + 1}–{min(start + length, len(names))}": tuple(names[start : start + length])
        for start in range(0, len(names), length)
    }


def _grouped(operators: list[str], keys: list[str]) -> dict[str, tuple[str, ...]]:
    """Operators by key; one without a key (its weight is computed) goes with the one before it."""
    groups: dict[str, list[str]] = {}
    last = ""
    for operator, key in zip(operators, keys, strict=True):
        last = key or last or "input"
        groups.setdefault(last, []).append(operator)
    return {name: tuple(members) for name, members in groups.items()}
