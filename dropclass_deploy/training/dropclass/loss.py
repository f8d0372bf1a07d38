"""The DropClass objective: (1 − λ)·CE + λ·CE_drop + α·L_sup (arXiv 2111.00531, Eq. 6–9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.dropclass.schedule import linear
from dropclass_deploy.training.dropclass.wrapper import DropClassOutput
from dropclass_deploy.training.losses import (
    check_labels,
    counted_pixels,
    head_losses,
    label_weights,
    resize_left,
    without_label,
)
from dropclass_deploy.training.losses.cross_entropy import check_sizes, class_table, reciprocal

DropDivisor = Literal["kept", "all"]
SuppressAt = Literal["labels", "classifier", "elsewhere"]
PlainWeight = Literal["rest", "full"]


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
    num_classes: int,
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
        dropped: z, or None.
        num_classes: C.

    Returns:
        float64 (3,): of CE, CE_drop and L_sup.
    """
    table = torch.ones(num_classes, device=labels.device) if class_weight is None else class_weight.to(labels.device)
    counted = torch.ones_like(table)
    tables = torch.stack(
        [table, without(table, dropped), without(counted, dropped) if suppress_at == "elsewhere" else counted]
    )
    weights = label_weights(labels, tables, ignore_index)
    # Filled where they lie: a tensor made from Python's numbers would be copied to a GPU, and the step wait for it.
    if drop_divisor == "all":
        weights[1].fill_(labels.numel())
    if suppress_at == "classifier":
        weights[2].fill_(labels.numel())
    return weights


def without(table: Tensor, dropped: int | None) -> Tensor:
    """Class weights (C,) with that of the dropped class set to 0."""
    if dropped is None:
        return table
    return torch.where(torch.arange(len(table), device=table.device) == dropped, 0.0, table)


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
    plain_weight: PlainWeight = "rest",
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
            "labels": pixels without a label then have no say. "elsewhere": the label pixels of other classes only, so that
            nothing is punished for seeing z where it is.
        plain_weight: of CE, the term of the network that is deployed: "rest", 1 − λ (the paper's), leaves it without its
            own loss at the end of training; "full", 1.
        shares: (3,) factors of CE, CE_drop and L_sup, when these images are a part of a step: see ``loss_weights``.

    Returns:
        The terms; ``suppression`` is 0 when nothing was dropped, ``ce`` and ``ce_drop`` are 0 (with zero gradients)
        when no pixel is left.
    """
    check_labels(labels, out.logits.shape[1], ignore_index)
    _check_options(drop_divisor, suppress_at, plain_weight)
    check_sizes(out.logits, labels, class_weight)
    weight = linear(progress, lambda_max)
    divisors = loss_weights(
        labels,
        out.dropped,
        out.logits.shape[1],
        ignore_index=ignore_index,
        class_weight=class_weight,
        drop_divisor=drop_divisor,
        suppress_at=suppress_at,
    )
    means = reciprocal(divisors) if shares is None else reciprocal(divisors) * shares.double()
    plain = 1.0 if plain_weight == "full" else 1.0 - weight
    factors = torch.stack([means[0] * plain, means[1] * weight, means[2] * alpha])
    at_labels = suppress_at != "classifier"
    table = class_table(out.logits, class_weight)
    seen = without_label(labels, out.dropped, ignore_index) if suppress_at == "elsewhere" else labels
    total, sums = _over_pixels(out, (labels, seen), table, factors, ignore_index, suppress=at_labels)
    ce, ce_drop, suppression = (sums * means).to(total.dtype).unbind()
    if not at_labels:
        share = 1.0 if shares is None else shares[2].to(total.dtype)
        suppression = mean_probability(out.drop_logits, out.dropped) * share
        total = total + alpha * suppression
    if out.dropped is None:
        suppression = suppression.detach()
    return LossTerms(total=total, ce=ce, ce_drop=ce_drop, suppression=suppression)


def weighted_terms(
    ce: Tensor,
    ce_drop: Tensor,
    suppression: Tensor,
    *,
    progress: float,
    alpha: float = 10.0,
    lambda_max: float = 1.0,
    plain_weight: PlainWeight = "rest",
) -> LossTerms:
    """The objective of terms that were computed elsewhere, of another loss of the pixels; arguments as ``dropclass_loss``."""
    weight = linear(progress, lambda_max)
    plain = 1.0 if plain_weight == "full" else 1.0 - weight
    return LossTerms(plain * ce + weight * ce_drop + alpha * suppression, ce, ce_drop, suppression)


def suppression_loss(
    out: DropClassOutput, labels: Tensor, *, ignore_index: int = 255, suppress_at: SuppressAt = "labels"
) -> Tensor:
    """L_sup alone (Eq. 8), a scalar: the mean probability of z in the branch; 0 when nothing was dropped.

    Args:
        out: of ``DropClass``.
        labels: (N, H, W).
        ignore_index: label that counts nowhere.
        suppress_at: where, see ``dropclass_loss``.
    """
    if out.dropped is None:
        return out.drop_logits.new_zeros((), dtype=torch.float32)
    if suppress_at == "classifier":
        return mean_probability(out.drop_logits, out.dropped)
    seen = without_label(labels, out.dropped, ignore_index) if suppress_at == "elsewhere" else labels
    head = resize_left(out.drop_logits, out.size, out.align_corners, seen)
    mean = reciprocal(counted_pixels(seen, ignore_index))
    nothing = torch.zeros_like(class_table(out.drop_logits, None))
    scale = torch.stack([torch.zeros_like(mean), mean])
    return head_losses(head, seen, nothing, scale, suppressed=out.dropped, ignore_index=ignore_index)[0]


def _check_options(drop_divisor: DropDivisor, suppress_at: SuppressAt, plain_weight: PlainWeight) -> None:
    allowed = {
        "drop_divisor": (drop_divisor, ("kept", "all")),
        "suppress_at": (suppress_at, ("labels", "classifier", "elsewhere")),
        "plain_weight": (plain_weight, ("rest", "full")),
    }
    for name, (value, values) in allowed.items():
        if value not in values:
            raise UserError(f"{name} is {value!r}", expected=" or ".join(f'"{each}"' for each in values))


def _over_pixels(
    out: DropClassOutput,
    labels: tuple[Tensor, Tensor],
    table: Tensor,
    factors: Tensor,
    ignore_index: int,
    *,
    suppress: bool,
) -> tuple[Tensor, Tensor]:
    """``factors`` · sums, and the sums over label pixels (3,) of CE, CE_drop and, if wanted, the probability of z.

    ``labels`` are those of the network's own logits and those of the branch's.
    """
    nothing = torch.zeros_like(factors[0])
    plain, plain_sums = head_losses(
        resize_left(out.logits, out.size, out.align_corners, labels[0]),
        labels[0],
        table,
        torch.stack([factors[0], nothing]),
        ignore_index=ignore_index,
    )
    branch, branch_sums = head_losses(
        resize_left(out.drop_logits, out.size, out.align_corners, labels[1]),
        labels[1],
        without(table, out.dropped),
        torch.stack([factors[1], factors[2] if suppress else nothing]),
        suppressed=out.dropped if suppress else None,
        ignore_index=ignore_index,
    )
    return plain + branch, torch.cat([plain_sums[:1], branch_sums])


def mean_probability(logits: Tensor, index: int | None) -> Tensor:
    """Mean softmax probability of class ``index`` over all pixels (Eq. 8 at the classifier's resolution).

    Args:
        logits: (N, C, h, w).
        index: the class, or None: 0.
    """
    if index is None:
        return logits.new_zeros((), dtype=torch.float32)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)[:, index].mean()
