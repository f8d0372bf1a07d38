"""Cross-entropy at label resolution, with class weights and ignored pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dropclass_deploy.core.errors import DataError


def check_labels(labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Refuse labels that are not (N, H, W) integer ids in [0, C) or ``ignore_index``.

    Values are looked at on the CPU only: on a GPU the look would stall every step, and the reader checked them before.

    Raises:
        DataError: with what was found.
    """
    if labels.ndim != 3 or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}", expected="integer (N, H, W)"
        )
    if labels.device.type == "cpu":
        labels = labels.long()  # small unsigned types do not compare with every id, nor uint16 at all
        wrong = labels[(labels != ignore_index) & ((labels < 0) | (labels >= num_classes))]
        if wrong.numel():
            raise DataError(
                f"{wrong.numel()} label pixels hold ids such as {int(wrong[0])}",
                expected=f"0 … {num_classes - 1}, or {ignore_index} for pixels to ignore",
            )


def resize_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Float32 logits (N, C, H, W) at the labels' size (N, H, W); bilinear, ``align_corners=False``, when they differ."""
    logits = logits.float()
    if logits.shape[-2:] == labels.shape[-2:]:
        return logits
    return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = 255,
    class_weight: Tensor | None = None,
    mean_over_all: bool = False,
) -> Tensor:
    """Class-weighted mean cross-entropy over the pixels that are not ignored.

    Differs from ``F.cross_entropy`` where that gives NaN: with no pixel left, or only pixels of classes of weight 0, the
    loss is 0 and so are its gradients.

    Args:
        logits: (N, C, h, w); resized to the labels when smaller.
        labels: (N, H, W) ids.
        ignore_index: label that counts nowhere.
        class_weight: (C,) or None.
        mean_over_all: divide by all N·H·W pixels instead of the weights of the pixels that count.

    Returns:
        A scalar, float32.

    Raises:
        DataError: when logits, labels and class weights do not belong together.
    """
    _check_sizes(logits, labels, class_weight)
    labels = labels.long()
    weight = None if class_weight is None else class_weight.to(device=logits.device, dtype=torch.float32)
    total = F.cross_entropy(
        resize_logits(logits, labels), labels, weight=weight, ignore_index=ignore_index, reduction="sum"
    )
    if mean_over_all:
        return total / max(1, labels.numel())
    valid = labels != ignore_index
    count = valid.sum() if weight is None else (weight[labels.masked_fill(~valid, 0)] * valid).sum()
    return torch.where(count > 0, total / count.clamp(min=torch.finfo(torch.float32).tiny), total * 0)


def label_weight(labels: Tensor, ignore_index: int, class_weight: Tensor | None) -> Tensor:
    """What ``cross_entropy`` divides by: the sum of the class weights over the pixels that count.

    Returns:
        A scalar, float64: counts of pixels stay exact.
    """
    valid = labels != ignore_index
    if class_weight is None:
        return valid.sum().double()
    counted = torch.bincount(labels[valid].long(), minlength=len(class_weight))
    # Ids outside the table are refused by check_labels, on the CPU before they come here.
    return (counted[: len(class_weight)] * class_weight.to(labels.device).double()).sum()


def _check_sizes(logits: Tensor, labels: Tensor, class_weight: Tensor | None) -> None:
    if labels.ndim != 3 or labels.shape[0] != logits.shape[0]:
        raise DataError(f"labels have shape {tuple(labels.shape)}", expected=f"({logits.shape[0]}, H, W) as the logits")
    if class_weight is not None and class_weight.shape != logits.shape[1:2]:
        raise DataError(
            f"class_weight has shape {tuple(class_weight.shape)}", expected=f"({logits.shape[1]},), one weight a class"
        )
