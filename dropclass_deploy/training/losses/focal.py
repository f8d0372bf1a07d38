"""Focal loss in its softmax form (Lin et al., arXiv 1708.02002)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.losses.cross_entropy import class_table, reciprocal
from dropclass_deploy.training.losses.full_size import check_full_size, counted_ids, truth_log_probability, widened
from dropclass_deploy.training.losses.labels import label_weights


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    ignore_index: int = 255,
    class_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy in which pixels fade as they become sure: Σ w_y·u·(1 − p_y)^γ·(−log p_y) ÷ Σ w_y·u.

    The paper's Eq. 5 with p_t the softmax probability of the truth and α_t the weights. Where the paper divides by the
    number of anchors assigned to objects, this divides as ``cross_entropy`` does, which it equals with γ = 0.

    Args:
        logits: (N, C, H, W), at the labels' size.
        labels: (N, H, W) ids.
        gamma: γ ≥ 0 (the paper's 2).
        ignore_index: label that counts nowhere.
        class_weight: w (C,) or None.
        pixel_weight: u (N, H, W) or None.

    Returns:
        A scalar, float32 (float64 for float64 logits); 0 with zero gradients when nothing counts.

    Raises:
        DataError: when logits, labels and weights do not belong together.
        UserError: for a γ that is no number ≥ 0.
    """
    check_full_size(logits, labels, class_weight, pixel_weight)
    if not 0.0 <= gamma < math.inf:
        raise UserError(f"gamma is {gamma}", expected="a number from 0 on (2 in the paper)")
    wide, table = widened(logits), class_table(logits, class_weight)
    ids, counted = counted_ids(labels, logits.shape[1], ignore_index)
    factor = table.to(wide.dtype)[ids] * counted
    if pixel_weight is not None:
        factor = factor * pixel_weight.to(wide)
    mean = reciprocal(label_weights(labels, table[None], ignore_index, pixel_weight)[0]).to(wide.dtype)
    loss = -truth_log_probability(wide, ids)
    if gamma:
        # expm1: 1 − p_y keeps its digits near 0. Where it is 0, a power below 1 has no derivative there; the product has.
        tiny = torch.finfo(wide.dtype).tiny
        loss = (-torch.expm1(-loss)).clamp_min(tiny).pow(gamma) * loss
    return (factor * loss).sum() * mean
