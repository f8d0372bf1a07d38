"""The bilinear resize at the end of a network, which the sparse head takes the place of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dropclass_deploy.export.graphs.library import Model, helper, numpy_helper

HALF_PIXEL, ALIGN_CORNERS = "half_pixel", "align_corners"
# PyTorch's variant differs only for an output of one pixel, where both take the first one.
_MODES = {"half_pixel": HALF_PIXEL, "pytorch_half_pixel": HALF_PIXEL, "align_corners": ALIGN_CORNERS}


@dataclass(frozen=True)
class FinalResize:
    """``logits = Resize(coarse)``, bilinear over height and width.

    Attributes:
        node: the Resize node.
        coarse: name of its input (N, C, h, w).
        sizes: name of the int64 tensor (N, C, H, W) that it resizes to; "" where it enlarges by a whole factor.
        coordinates: "half_pixel" or "align_corners".
        factor: the whole factor, 0 where it resizes to a size.
    """

    node: Any
    coarse: str
    sizes: str
    coordinates: str
    factor: int = 0


def final_resize(network: Model) -> FinalResize | str:
    """The resize that makes the network's output, or why there is none of the kind that the sparse head replaces."""
    output = network.graph.output[0].name
    node = next((item for item in network.graph.node if output in item.output), None)
    if node is None or node.op_type != "Resize":
        return f"the network ends in {node.op_type if node is not None else 'its input'}, not in a bilinear resize"
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    mode = attributes.get("mode", b"nearest").decode()
    coordinates = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    if mode != "linear" or attributes.get("antialias", 0) or coordinates not in _MODES:
        return f"the network ends in a resize of mode {mode} with {coordinates} coordinates"
    if list(attributes.get("axes", ())):
        return "the network ends in a resize of single axes"
    if len(node.input) > 3 and node.input[3]:
        return FinalResize(node, node.input[0], node.input[3], _MODES[coordinates])
    factor = _whole_factor(network, node.input[2] if len(node.input) > 2 else "")
    if factor is None or _MODES[coordinates] == ALIGN_CORNERS:
        return "the network ends in a resize by factors that are not one whole number"
    return FinalResize(node, node.input[0], "", HALF_PIXEL, factor)


def _whole_factor(network: Model, scales: str) -> int | None:
    """s of the constant (1, 1, s, s), None for anything else."""
    stored = next((item for item in network.graph.initializer if item.name == scales), None)
    if stored is None:
        return None
    values = [float(value) for value in numpy_helper.to_array(stored).ravel()]
    whole = len(values) == 4 and values[:2] == [1, 1] and values[2] == values[3] == int(values[2])
    return int(values[2]) if whole else None


def static_sizes(network: Model, resize: FinalResize) -> tuple[int, int] | None:
    """(H, W) that the resize makes when they stand in the graph, else None."""
    stored = next((item for item in network.graph.initializer if item.name == resize.sizes), None)
    if stored is None:
        return None
    _, _, height, width = (int(size) for size in numpy_helper.to_array(stored))
    return height, width
