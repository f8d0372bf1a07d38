"""Sums of inputs with fixed weights: convolution and matrix product.

CNN-fixations (Mopuri et al., arXiv 1708.06670): of the products of weights and inputs under the kernel, the input channel
whose products sum highest, then in it the place of the largest product. There, all inputs come out of a ReLU. Ours, for
the rest:

* places in the padding never win;
* where a negative scale follows, the value that was lowered is looked for, so that the products' signs are turned; and where
  a negative input won by a negative weight, what lowered that input is looked for from there on;
* a point ends where even the largest product is not above 0: what made the value is then a bias, which has no place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dropclass_deploy.analysis.unravel.points import Points
from dropclass_deploy.analysis.unravel.rules.shapes import chunks, coordinates, pair
from dropclass_deploy.analysis.unravel.tape import Step, Tape, Value
from dropclass_deploy.core.errors import ModelError

Moved = list[tuple[Value, Points]]


def convolution(step: Step, points: Points, tape: Tape) -> Moved:
    """To the strongest tap of the strongest input channel; grouped, strided, dilated, padded with zeros.

    Raises:
        ModelError: for a transposed convolution, one that is not of maps, or one whose weights come from the image.
    """
    given = step.arguments
    source, weight = given["input"], given["weight"]
    if given["transposed"] or len(step.output.shape) != 4 or isinstance(weight, Value):
        raise ModelError(
            "a convolution is transposed, not of maps, or has weights from the image",
            expected="a plain 2-D convolution",
        )
    maps = tape.values[source.id]
    moves = (pair(given["stride"]), pair(given["padding"]), pair(given["dilation"]))
    parts = []
    for some in chunks(points.index.numel(), weight[0].numel()):
        part = Points(points.index[some], points.sign[some], points.count[some])
        parts.append(_strongest_tap(maps, weight, part, step.output.shape, moves, given["groups"]))
    if not parts:
        return [(source, points)]
    places, signs = (torch.cat(column) for column in zip(*parts, strict=True))
    return [(source, points.moved(places, signs))]


def _strongest_tap(
    maps: Tensor,
    weight: Tensor,
    points: Points,
    shape: tuple[int, ...],
    moves: tuple[tuple[int, int], ...],
    groups: int,
) -> tuple[Tensor, Tensor]:
    """(P,) places in maps (N, K, H, W), and the signs of what is looked for there; 0 where no product is above 0."""
    image, channel, *places = coordinates(points.index, shape)
    count, channels, height, width = maps.shape
    outputs, depth = weight.shape[:2]
    inside, taps = [], []
    for place, size, kernel, stride, padding, dilation in zip(
        places, (height, width), weight.shape[2:], *moves, strict=True
    ):
        at = place[:, None] * stride - padding + torch.arange(kernel, device=place.device) * dilation
        inside.append((at >= 0) & (at < size))
        taps.append(at.clamp(0, size - 1))
    seen = (inside[0][:, :, None] & inside[1][:, None, :]).flatten(1)  # (P, T)
    flat = (taps[0][:, :, None] * width + taps[1][:, None, :]).flatten(1)  # (P, T)
    group = channel // (outputs // groups)
    # Channels last: the K / groups values under a tap lie side by side.
    table = maps.permute(0, 2, 3, 1).reshape(count, height * width, groups, depth)
    weights = weight.permute(0, 2, 3, 1).reshape(outputs, -1, depth)[channel]  # (P, T, K / groups)
    products = table[image[:, None], flat, group[:, None]] * weights * points.sign[:, None, None]
    products = products * seen[..., None]  # padding gives 0, and nothing goes on at 0
    own = products.sum(dim=1).argmax(dim=1)
    chosen = products.gather(2, own[:, None, None].expand(-1, products.shape[1], 1))[..., 0]
    best, tap = chosen.max(dim=1)
    signs = points.sign * torch.sign(weights[torch.arange(len(tap), device=tap.device), tap, own]).long()
    place = ((image * channels + group * depth + own) * height * width) + flat.gather(1, tap[:, None])[:, 0]
    return place, torch.where(best > 0, signs, 0)


def matrix_product(step: Step, points: Points, tape: Tape) -> Moved:
    """Of rows (M, K) and constant columns (K, N): to the strongest of the K products.

    Raises:
        ModelError: where both factors come from the image, as in attention, or the first one does not.
    """
    given = step.arguments
    rows, columns = (given["mat1"], given["mat2"]) if "mat1" in given else (given["self"], given["mat2"])
    if not isinstance(rows, Value) or isinstance(columns, Value):
        raise ModelError(
            "a matrix product has its weights from the image", expected="a product with constant weights", remedy=""
        )
    values = tape.values[rows.id].reshape(rows.shape)
    row, column = coordinates(points.index, step.output.shape)
    weights = columns.t()[column]
    best, own = (values[row] * weights * points.sign[:, None]).max(dim=1)
    signs = points.sign * torch.sign(weights.gather(1, own[:, None])[:, 0]).long()
    return [(rows, points.moved(row * rows.shape[1] + own, torch.where(best > 0, signs, 0)))]
