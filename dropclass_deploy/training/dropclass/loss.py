"""The DropClass objective: (1 − λ)·CE + λ·CE_drop + α·L_sup (arXiv 2111.00531, Eq. 6–9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.dropclass.schedule import linear
from dropclass_deploy.training.dropclass.wrapper import DropClassOutput
from dropclass_deploy.training.losses.cross_entropy import check_labels, cross_entropy, label_weight, resize_logits

DropDivisor = Literal["kept", "all"]
SuppressAt = Literal["labels", "classifier"]


@dataclass(frozen=True)
class LossTerms:
    """The terms before weighting, and their weighted sum; scalars, never NaN for finite logits."""

    total: Tensor
    ce: Tensor
    ce_drop: Tensor
    suppression: Tensor


def loss_weights(
    labels: Tensor,
    dropped: int | None,
    *,
    ignore_index: int = 255,
    class_weight: Tensor | None = None,
    drop_divisor: DropDivisor = "kept",
    suppress_at: SuppressAt = "labels",
) -> Tensor:
    """What each term divides by: the weight of a batch among the batches that make up one step.

    A mean over a step's pixels is the sum of its batches' means, each times its share of these weights; so a step that
    is cut into micro-batches, or spread over processes, has the loss of the whole (``shares`` of ``dropclass_loss``).

    Args:
        labels: (N, H, W) ids; the other arguments as for ``dropclass_loss``.

    Returns:
        float64 (3,): of CE, CE_drop and L_sup.
    """
    remaining = labels if dropped is None else labels.masked_fill(labels == dropped, ignore_index)
    pixels = torch.tensor(float(labels.numel()), dtype=torch.float64, device=labels.device)
    return torch.stack(
        [
            label_weight(labels, ignore_index, class_weight),
            pixels if drop_divisor == "all" else label_weight(remaining, ignore_index, class_weight),
            pixels if suppress_at == "classifier" else label_weight(labels, ignore_index, None),
        ]
    )


def dropclass_loss(
    out: DropClassOutput,
    labels: Tensor,
    *,
    progress: float,
    alpha: float = 10.0,
    ignore_index: int = 255,
    class_weight: Tensor | None = None,
    lambda_max: float = 1.0,
    drop_divisor: DropDivisor = "kept",
    suppress_at: SuppressAt = "labels",
    shares: Tensor | None = None,
) -> LossTerms:
    """Loss terms of one forward pass.

    λ = ``lambda_max`` · progress. L_sup is not scaled by λ (as in the authors' code).

    Args:
        out: of ``DropClass``.
        labels: (N, H, W) integer ids.
        progress: share of training done, in [0, 1].
        alpha: weight of the suppression (the paper's 10).
        ignore_index: label that counts nowhere.
        class_weight: (C,) or None.
        lambda_max: λ at progress 1 (the paper's 1).
        drop_divisor: CE_drop leaves out the pixels of class z. "kept" divides by the (class-weighted) count of the
            others, as the authors' code; "all" by all N·H·W pixels, as the paper writes. Default "kept": the scale of
            the term then does not depend on how much of the image z and the ignored pixels cover.
        suppress_at: L_sup is the mean probability of z in the branch: over the label pixels that are not ignored, z's
            included ("labels"), or over all pixels at the classifier's resolution ("classifier", authors' code). Default
            "labels": pixels without a label then have no say.
        shares: (3,) factors of CE, CE_drop and L_sup, when these images are a part of a step: see ``loss_weights``.

    Returns:
        The terms; ``suppression`` is 0 when nothing was dropped, ``ce`` and ``ce_drop`` are 0 (with zero gradients)
        when no pixel is left.
    """
    check_labels(labels, out.logits.shape[1], ignore_index)
    if drop_divisor not in ("kept", "all") or suppress_at not in ("labels", "classifier"):
        raise UserError(
            f"drop_divisor {drop_divisor!r}, suppress_at {suppress_at!r}",
            expected='drop_divisor "kept" or "all", suppress_at "labels" or "classifier"',
        )
    weight = linear(progress, lambda_max)
    labels = labels.long()
    ce = cross_entropy(out.logits, labels, ignore_index=ignore_index, class_weight=class_weight)
    drop_logits = _like_plain(out, labels)
    remaining = labels if out.dropped is None else labels.masked_fill(labels == out.dropped, ignore_index)
    ce_drop = cross_entropy(
        drop_logits,
        remaining,
        ignore_index=ignore_index,
        class_weight=class_weight,
        mean_over_all=drop_divisor == "all",
    )
    seen = out.drop_logits.float() if suppress_at == "classifier" else drop_logits
    valid = None if suppress_at == "classifier" else labels != ignore_index
    suppression = mean_probability(seen, out.dropped, valid)
    if shares is not None:
        ce, ce_drop, suppression = (
            term * share for term, share in zip((ce, ce_drop, suppression), shares.float(), strict=True)
        )
    total = (1.0 - weight) * ce + weight * ce_drop + alpha * suppression
    return LossTerms(total=total, ce=ce, ce_drop=ce_drop, suppression=suppression)


def mean_probability(logits: Tensor, index: int | None, valid: Tensor | None) -> Tensor:
    """Mean softmax probability of class ``index`` (Eq. 8): over the pixels where ``valid`` is true, or over all.

    Args:
        logits: (N, C, H, W).
        index: the class, or None: 0.
        valid: bool (N, H, W) or None.
    """
    if index is None:
        return logits.new_zeros(())
    # log_softmax keeps (N, H, W) for the backward pass of one class rather than the whole softmax.
    probability = (logits[:, index] - torch.logsumexp(logits, dim=1)).exp()
    if valid is None:
        return probability.mean()
    return (probability * valid).sum() / valid.sum().clamp(min=1)


def _like_plain(out: DropClassOutput, labels: Tensor) -> Tensor:
    """The branch's logits at label resolution, float32, resized exactly as the plain ones are."""
    logits = out.drop_logits.float()
    if out.align_corners is not None and logits.shape[-2:] != out.logits.shape[-2:]:
        size = out.logits.shape[-2:]
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=out.align_corners)
    return resize_logits(logits, labels)
