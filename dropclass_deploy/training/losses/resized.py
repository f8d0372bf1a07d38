"""Cross-entropy at label resolution, with its gradient, from logits at the network's own resolution: one operator.

Everything that a step of DropClass adds over pixels (CE, CE_drop, L_sup; arXiv 2111.00531, Eq. 6–9) is a sum over label
pixels of functions of the bilinearly resized logits. The operator goes over the label pixels once and gives the sums and
their gradient with respect to the small logits together: the full-size logits of the usual formulation (N·C·H·W numbers, a
softmax of as many, and both again in the backward pass) never exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.losses import chunked
from dropclass_deploy.training.losses.triton_check import working


@dataclass(frozen=True)
class Resize:
    """Logits, and how they get to the labels' size.

    Attributes:
        logits: (N, C, h, w).
        align_corners: of the bilinear resize.
    """

    logits: Tensor
    align_corners: bool = False


def resize_left(logits: Tensor, size: tuple[int, int], align_corners: bool | None, labels: Tensor) -> Resize:
    """What is left of the way that a network's logits go: to ``size`` as it resizes them, then to the labels.

    Args:
        logits: (N, C, h, w), the classifier's own, or those at ``size``.
        size: (H, W) that the network gives its logits.
        align_corners: of the network's resize; None when it has none that is bilinear: then straight to the labels.
        labels: (N, H', W'). When they are not of ``size``, the first resize is made here, and the second, with
            align_corners False, is left.
    """
    if align_corners is None or logits.shape[-2:] == size:
        return Resize(logits)
    if labels.shape[-2:] == size:
        return Resize(logits, align_corners)
    wide = logits.to(_compute_dtype(logits))
    return Resize(F.interpolate(wide, size=size, mode="bilinear", align_corners=align_corners))


@torch.library.custom_op("dropclass::head_losses", mutates_args=())
def _head_losses(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor,
    pixel_weight: Tensor | None,
    scale: Tensor,
    suppressed: int,
    ignore_index: int,
    align_corners: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted sum of the two sums, the sums, the gradient of the first; see ``chunked.head_losses``."""
    kernels: ModuleType | None = None
    if logits.device.type == "cuda" and logits.dtype != torch.float64 and labels.numel():
        kernels = _kernels(logits.device)
    # The products of a resize are no matter for autocast.
    with torch.autocast(logits.device.type, enabled=False):
        sums, gradient = (kernels or chunked).head_losses(
            logits, labels, weight, pixel_weight, scale, suppressed, ignore_index, align_corners, with_gradient
        )
    return (sums * scale).sum().to(_compute_dtype(logits)), sums, gradient


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    """The Triton kernels, or None where they cannot run; found out once a device by running the smallest loss."""
    import dropclass_deploy.training.losses.triton_losses as triton_losses

    logits, labels = torch.zeros(1, 2, 1, 1, device=device), torch.zeros(1, 2, 2, dtype=torch.uint8, device=device)
    weights = torch.ones(2, device=device)
    return working(
        triton_losses,
        lambda: triton_losses.head_losses(logits, labels, weights, None, weights, 1, 255, False, True),
        device,
    )


@_head_losses.register_fake
def _shapes(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor,
    pixel_weight: Tensor | None,
    scale: Tensor,
    suppressed: int,
    ignore_index: int,
    align_corners: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    del labels, weight, pixel_weight, scale, suppressed, ignore_index, align_corners
    dtype = _compute_dtype(logits)
    gradient = logits.new_empty(logits.shape if with_gradient else (0,), dtype=dtype)
    return logits.new_empty((), dtype=dtype), logits.new_empty((2,), dtype=torch.float64), gradient


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, weight, pixel_weight, scale, *options, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(logits, labels, weight, pixel_weight, scale, output[2])
    ctx.options = options


def _backward(ctx: Any, to_total: Tensor | None, to_sums: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the losses of small logits have no second derivative; for one, resize and use F.cross_entropy"
        )
    logits, labels, weight, pixel_weight, scale, gradient = ctx.saved_tensors
    if to_sums is None:
        to_logits = None if to_total is None else gradient * to_total
    else:
        # A term on its own was differentiated: the stored gradient is of the weighted sum, so go over the pixels again.
        asked = to_sums if to_total is None else to_sums + to_total * scale
        to_logits = _head_losses(logits, labels, weight, pixel_weight, asked.to(scale.dtype), *ctx.options, True)[2]
    # From float32 to a shorter type only here, after fp16's loss scale has come in with ``to_total``.
    to_logits = None if to_logits is None else to_logits.to(logits.dtype)
    return to_logits, *(None,) * 8


_head_losses.register_autograd(_backward, setup_context=_save)


def _compute_dtype(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def head_losses(
    head: Resize,
    labels: Tensor,
    weight: Tensor,
    scale: Tensor,
    *,
    suppressed: int | None = None,
    ignore_index: int = 255,
    pixel_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sums over label pixels of one head's cross-entropy and of the probability of class z.

    With L the logits resized bilinearly to the labels, y a pixel's label, over the pixels with y ≠ ``ignore_index``:
    Σ weight[y] · pixel_weight · (−log softmax(L)[y]) and Σ softmax(L)[z].

    Args:
        head: logits (N, C, h, w) of any floating type and size; computed in float32 (float64 for float64).
        labels: (N, H, W) integer ids in [0, C) or ``ignore_index``; not checked (see ``check_labels``).
        weight: (C,) of each class in the cross-entropy; 0 leaves its pixels out.
        scale: (2,) factors of the two sums in the total; a tensor, so that nothing waits for a GPU.
        suppressed: z, or None: the second sum is 0.
        ignore_index: label that counts nowhere.
        pixel_weight: (N, H, W) factor of a pixel's cross-entropy (a boundary weight), or None.

    A number a class that is added to the logits (logit adjustment) can be added to the small ones: a resize leaves it as it
    is. So can noise (BLV), at the classifier's resolution.

    Returns:
        The total ``scale · sums``, whose gradient is already known when this returns, float32; and the sums, float64 (2,).
        Both are differentiable once with respect to the logits, and to nothing else; differentiating the sums goes over the
        pixels once more.

    Raises:
        UserError: for weights that require a gradient.
    """
    if torch.is_grad_enabled() and any(
        value is not None and value.requires_grad for value in (weight, pixel_weight, scale)
    ):
        raise UserError(
            "a weight of the loss requires a gradient", expected="weights that are numbers", remedy="detach() them"
        )
    device, dtype = head.logits.device, _compute_dtype(head.logits)
    total, sums, _ = _head_losses(
        head.logits,
        labels,
        weight.to(device=device, dtype=dtype),
        None if pixel_weight is None else pixel_weight.to(device=device, dtype=dtype),
        scale.to(device=device, dtype=dtype),
        -1 if suppressed is None else suppressed,
        ignore_index,
        head.align_corners,
        torch.is_grad_enabled() and head.logits.requires_grad,
    )
    return total, sums
