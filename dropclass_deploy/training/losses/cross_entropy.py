"""Cross-entropy at label resolution, with class weights and ignored pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.training.losses.labels import label_weights
from dropclass_deploy.training.losses.resized import Resize, head_losses


def resize_logits(logits: Tensor, labels: Tensor, *, align_corners: bool = False) -> Tensor:
    """Float32 logits (N, C, H, W) (float64 stays) at the labels' size (N, H, W); bilinear when they differ.

    For losses that sort pixels or need whole maps; the others never hold such logits.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[-2:] == labels.shape[-2:]:
        return logits
    return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=align_corners)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = 255,
    class_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    mean_over_all: bool = False,
    align_corners: bool = False,
) -> Tensor:
    """Weighted mean cross-entropy over the pixels that are not ignored.

    Differs from ``F.cross_entropy`` where that gives NaN: with no pixel left, or only pixels of classes of weight 0, the
    loss is 0 and so are its gradients. Logits smaller than the labels are resized without ever being held at full size.

    Args:
        logits: (N, C, h, w); resized bilinearly when their size is not the labels'.
        labels: (N, H, W) ids.
        ignore_index: label that counts nowhere.
        class_weight: (C,) or None.
        pixel_weight: (N, H, W) factor of each pixel's term, or None; the mean divides by class weight × pixel weight.
        mean_over_all: divide by all N·H·W pixels instead of the weights of the pixels that count.
        align_corners: of the resize.

    Returns:
        A scalar, float32 (float64 for float64 logits).

    Raises:
        DataError: when logits, labels and weights do not belong together.
    """
    check_sizes(logits, labels, class_weight, pixel_weight)
    weight = class_table(logits, class_weight)
    if mean_over_all:
        divisor = torch.full((), float(labels.numel()), dtype=torch.float64, device=logits.device)
    else:
        divisor = label_weights(labels, weight[None], ignore_index, pixel_weight)[0]
    scale = torch.stack([reciprocal(divisor), torch.zeros_like(divisor)])
    head = Resize(logits, align_corners)
    return head_losses(head, labels, weight, scale, ignore_index=ignore_index, pixel_weight=pixel_weight)[0]


def class_table(logits: Tensor, class_weight: Tensor | None) -> Tensor:
    """The weight of every class, (C,): ones when none is given."""
    if class_weight is None:
        return torch.ones(logits.shape[1], device=logits.device)
    return class_weight.to(device=logits.device, dtype=torch.promote_types(class_weight.dtype, torch.float32))


def reciprocal(weights: Tensor) -> Tensor:
    """1 ÷ weights, and 0 where a weight is 0: a mean over no pixel is 0."""
    return torch.where(weights > 0, 1.0 / weights, 0.0)


def check_sizes(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, pixel_weight: Tensor | None = None
) -> None:
    """Refuse labels and weights that do not belong to the logits.

    Raises:
        DataError: with what was found.
    """
    if labels.ndim != 3 or labels.shape[0] != logits.shape[0]:
        raise DataError(f"labels have shape {tuple(labels.shape)}", expected=f"({logits.shape[0]}, H, W) as the logits")
    if 0 in labels.shape[1:] or 0 in logits.shape[1:]:
        raise DataError(
            f"labels have shape {tuple(labels.shape)} and logits {tuple(logits.shape)}", expected="a pixel at least"
        )
    if class_weight is not None and class_weight.shape != logits.shape[1:2]:
        raise DataError(
            f"class_weight has shape {tuple(class_weight.shape)}", expected=f"({logits.shape[1]},), one weight a class"
        )
    if pixel_weight is not None and pixel_weight.shape != labels.shape:
        raise DataError(
            f"pixel_weight has shape {tuple(pixel_weight.shape)}", expected=f"{tuple(labels.shape)}, as the labels"
        )
