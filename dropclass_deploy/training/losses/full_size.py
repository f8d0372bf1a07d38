"""What the losses of logits at the labels' own size share: their checks, which pixels count, what the truth was given."""

from __future__ import annotations

import torch
from torch import Tensor

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.training.losses.cross_entropy import check_sizes


def check_full_size(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None = None, pixel_weight: Tensor | None = None
) -> None:
    """Refuse what ``check_sizes`` refuses, and logits of another size than the labels.

    Raises:
        DataError: with what was found.
    """
    check_sizes(logits, labels, class_weight, pixel_weight)
    if logits.shape[-2:] != labels.shape[-2:]:
        raise DataError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}",
            expected="logits of the labels' size",
            remedy="resize_logits(logits, labels) gives them",
        )


def widened(logits: Tensor) -> Tensor:
    """Logits of the type that losses are computed in: float32, or float64 for float64."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def counted_ids(labels: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Class ids to gather with, and where they count.

    Args:
        labels: (N, H, W) of any integer type; an id outside [0, C) counts nowhere, as in the losses of small logits.
        num_classes: C.
        ignore_index: label that counts nowhere.

    Returns:
        int64 (N, H, W) of 0 … C − 1, 0 where nothing counts; and bool (N, H, W).
    """
    ids = labels.long()
    counted = (ids != ignore_index) & (ids >= 0) & (ids < num_classes)
    return ids.where(counted, 0), counted


def truth_log_probability(logits: Tensor, ids: Tensor) -> Tensor:
    """log p of each pixel's own class, (N, H, W), of logits (N, C, H, W) and ids (N, H, W) of 0 … C − 1."""
    return logits.log_softmax(1).gather(1, ids[:, None])[:, 0]
