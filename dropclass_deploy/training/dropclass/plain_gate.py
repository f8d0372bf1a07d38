"""The gate in plain torch, and the two memory layouts that it works in.

Features are looked at as a matrix: (N·K, h·w) when contiguous, with a gate a row; (N·h·w, K) when channels_last, with a
gate a column. On a CPU the rows are worked through in pieces that stay in the cache, so A is read from memory once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# Elements at a time: half a MiB in float32, of which three or four fit into the cache of a core. Smaller pieces cost more
# in calls than they save, larger ones leave the cache.
_PIECE = 1 << 17


def is_channels_last(features: Tensor) -> bool:
    """Whether the channels are the fastest axis; what is both (K = 1, or h = w = 1) counts as contiguous."""
    return not features.is_contiguous() and features.is_contiguous(memory_format=torch.channels_last)


def dense(features: Tensor) -> Tensor:
    """The features themselves when contiguous or channels_last, else a contiguous copy."""
    return features if is_channels_last(features) else features.contiguous()


def laid_out_as(features: Tensor, other: Tensor) -> Tensor:
    """``other`` in the layout of dense ``features``, copied only where it has another."""
    last = is_channels_last(features)
    return other.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def as_matrix(features: Tensor) -> Tensor:
    """A view of dense features (N, K, h, w): (N·K, h·w), or (N·h·w, K) when channels_last."""
    images, channels, height, width = features.shape
    if is_channels_last(features):
        return features.permute(0, 2, 3, 1).view(images * height * width, channels)
    return features.view(images * channels, height * width)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """What products and sums are computed in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def class_gates(importance: Tensor, dropped: int, count: int) -> tuple[Tensor, Tensor]:
    """Σ over the kept classes of S⁺, and of S⁻, divided by ``count``.

    Row z is set to 0 before the sum, not taken off it afterwards: nothing cancels, and z is not part of any shape.

    Args:
        importance: S (C, K), float32 or float64.
        dropped: z, or −1.
        count: divisor of the mean.

    Returns:
        (K,) ≥ 0 and (K,) ≤ 0.
    """
    kept = importance.masked_fill(_row(importance, dropped), 0.0)
    return kept.clamp(min=0).sum(0) / count, kept.clamp(max=0).sum(0) / count


def class_gates_backward(
    grad_positive: Tensor, grad_negative: Tensor, importance: Tensor, dropped: int, count: int
) -> Tensor:
    """The gradient (C, K) of ``class_gates`` with respect to S; 0 in row z and where S = 0."""
    grad = (importance > 0) * grad_positive + (importance < 0) * grad_negative
    return grad.masked_fill(_row(importance, dropped), 0.0) / count


def _row(importance: Tensor, dropped: int) -> Tensor:
    return (torch.arange(importance.shape[0], device=importance.device) == dropped)[:, None]


def gate(features: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """A⁺·positive + A⁻·negative a channel, for positive ≥ 0 ≥ negative.

    Args:
        features: A (N, K, h, w), dense.
        positive: (K,), in the accumulation dtype.
        negative: (K,), the same.

    Returns:
        (N, K, h, w) in the dtype and layout of A.
    """
    result = torch.empty_like(features)
    source, target = as_matrix(features), as_matrix(result)
    for rows, up, down in _pieces(features, positive, negative):
        piece = source[rows]
        # With these signs the larger product is the right one. `where` on a condition of random signs is ten times slower.
        torch.maximum(piece * up, piece * down, out=target[rows])
    return result


def gate_backward(
    grad: Tensor, features: Tensor, positive: Tensor, negative: Tensor, *, features_too: bool, gates_too: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of ``gate``: g·positive where A > 0, g·negative where A < 0, 0 at A = 0; and Σ g·A⁺, Σ g·A⁻.

    Args:
        grad: g (N, K, h, w), in the layout of A.
        features: A, dense.
        positive: (K,).
        negative: (K,).
        features_too: whether the gradient with respect to A is wanted.
        gates_too: whether the gradients with respect to the gates are.

    Returns:
        (N, K, h, w) like A, and (2, K) in the gates' dtype; what is not wanted has no elements.
    """
    result = torch.empty_like(features) if features_too else features.new_empty(0)
    target = as_matrix(result) if features_too else result
    last, channels = is_channels_last(features), features.shape[1]
    source, gradient = as_matrix(features), as_matrix(grad)
    sums = positive.new_zeros(2, channels if last else source.shape[0])
    for rows, up, down in _pieces(features, positive, negative):
        piece, g = source[rows].to(positive.dtype), gradient[rows].to(positive.dtype)
        above = torch.ops.aten.threshold_backward(g, piece, 0)  # g where A > 0, else 0
        below = torch.ops.aten.threshold_backward(g, -piece, 0)
        if features_too:
            _write(target[rows], above, up, below, down)
        if gates_too:
            share = sums if last else sums[:, rows]
            share[0] += above.mul_(piece).sum(0 if last else 1)
            share[1] += below.mul_(piece).sum(0 if last else 1)
    if not gates_too:
        return result, positive.new_empty(0)
    return result, sums if last else sums.view(2, features.shape[0], channels).sum(1)


def _write(target: Tensor, above: Tensor, up: Tensor, below: Tensor, down: Tensor) -> None:
    """above·up + below·down, of which one is 0 everywhere, rounded to the target's dtype once."""
    if target.dtype == above.dtype:
        torch.mul(above, up, out=target).addcmul_(below, down)
    else:
        target.copy_((above * up).addcmul_(below, down))


def _pieces(features: Tensor, positive: Tensor, negative: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of ``as_matrix(features)``, and the gates that broadcast over them: (1, K) or (rows, 1)."""
    count, length = as_matrix(features).shape
    last, images = is_channels_last(features), features.shape[0]
    up, down = (g[None] if last else g.repeat(images)[:, None] for g in (positive, negative))
    # Other devices than a CPU have nothing to gain from pieces.
    step = max(1, _PIECE // max(1, length)) if features.device.type == "cpu" else max(1, count)
    for begin in range(0, count, step):
        rows = slice(begin, begin + step)
        yield rows, up if last else up[rows], down if last else down[rows]


def differentiable_gate_backward(
    grad: Tensor, features: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``gate_backward`` in operations that autograd knows: for gradients of gradients, at the cost of several passes."""
    shape = (1, -1, 1, 1)
    slope = (features > 0) * positive.view(shape) + (features < 0) * negative.view(shape)
    products = grad.to(positive.dtype) * features.to(positive.dtype).relu()
    opposite = grad.to(positive.dtype) * F.relu(-features.to(positive.dtype))
    return (grad * slope).to(features.dtype), products.sum((0, 2, 3)), -opposite.sum((0, 2, 3))
