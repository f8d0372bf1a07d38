"""Losses of regions instead of pixels: soft Dice and the Lovász-softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.losses.full_size import check_full_size, counted_ids, widened


def dice_loss(logits: Tensor, labels: Tensor, *, smooth: float = 0.0, ignore_index: int = 255) -> Tensor:
    """1 − soft Dice, (2·Σ p_c·[y = c] + s) ÷ (Σ p_c + Σ [y = c] + s), averaged over the classes in the labels.

    Milletari et al. (arXiv 1606.04797) with plain sums in place of squares, as Drozdzal et al. (arXiv 1608.04117). The sums
    run over all counted pixels of the batch: a class that some images lack is not judged image by image.

    Args:
        logits: (N, C, H, W), at the labels' size.
        labels: (N, H, W) ids.
        smooth: s ≥ 0, in pixels. The default is 0: a class that is averaged has a pixel, so nothing is divided by 0, and
            a class of few pixels is not flattered.
        ignore_index: label that counts nowhere.

    Returns:
        A scalar, float32 (float64 for float64 logits); 0 with zero gradients when nothing counts.

    Raises:
        DataError: when logits and labels do not belong together.
        UserError: for a ``smooth`` that is no number ≥ 0.
    """
    check_full_size(logits, labels)
    if not 0.0 <= smooth < math.inf:
        raise UserError(f"smooth is {smooth}", expected="a number of pixels from 0 on")
    num_classes = logits.shape[1]
    ids, counted = counted_ids(labels, num_classes, ignore_index)
    probability = widened(logits).softmax(1)
    truth = (probability.gather(1, ids[:, None])[:, 0] * counted).double()
    sizes = truth.new_zeros(num_classes).index_add(0, ids.flatten(), counted.flatten().double())
    common = truth.new_zeros(num_classes).index_add(0, ids.flatten(), truth.flatten())
    predicted = torch.where(counted[:, None], probability, 0.0).sum((0, 2, 3))
    present = sizes > 0
    # Where a class is absent, 1 keeps a 0 ÷ 0 out of the gradient.
    overlap = (2.0 * common + smooth) / torch.where(present, predicted + sizes + smooth, 1.0)
    loss = torch.where(present, 1.0 - overlap, 0.0).sum() / present.sum().clamp(min=1)
    return loss.to(probability.dtype)


def lovasz_softmax(logits: Tensor, labels: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Lovász extension of 1 − IoU, averaged over the classes in the labels (Berman et al., arXiv 1705.08790, Alg. 1).

    A class's pixels of the whole batch are sorted by their error, 1 − p_c where the label is c and p_c elsewhere; the loss
    is the sum of errors times what each pixel adds to the Jaccard loss of all before it. These slopes are constants for
    autograd, as in the paper.

    Args:
        logits: (N, C, H, W), at the labels' size.
        labels: (N, H, W) ids.
        ignore_index: label that counts nowhere.

    Returns:
        A scalar, float32 (float64 for float64 logits); 0 with zero gradients when nothing counts.

    Raises:
        DataError: when logits and labels do not belong together.
    """
    check_full_size(logits, labels)
    ids, counted = counted_ids(labels, logits.shape[1], ignore_index)
    ids = ids.to(torch.int32).masked_fill_(~counted, -1).flatten()
    probability = widened(logits).softmax(1)
    slopes = torch.empty_like(probability)
    value, present = probability.new_zeros(()), probability.new_zeros(())
    for c in range(logits.shape[1]):
        slope, loss, size = _class_slopes(probability.detach()[:, c].flatten(), ids, c)
        slopes[:, c] = slope.view_as(labels)
        value += loss
        present += size > 0
    # The value is a sum of terms ≥ 0, the gradient that of a product with the slopes: their sum would lose digits.
    linear = (probability * slopes).sum()
    return (value + (linear - linear.detach())) / present.clamp(min=1.0)


def _class_slopes(probability: Tensor, ids: Tensor, c: int) -> tuple[Tensor, Tensor, Tensor]:
    """∂loss/∂p of one class, and its loss.

    With G pixels of the class, F of them among the k of largest error and U = G + k − F the union, the Jaccard loss is
    1 − (G − F)/U. A pixel of the class adds 1/U to it, another one (G − F)/(U·(U − 1)): no near numbers are subtracted.

    Args:
        probability: (P,) of the class.
        ids: (P,) int32 labels, −1 where ignored.
        c: the class.

    Returns:
        (P,) slopes, negative at pixels of the class; their product with the errors; and G.
    """
    truth = ids == c
    size = truth.sum()
    # Rounding may leave a softmax above 1. Ignored pixels come last, where slopes are 0.
    errors = torch.where(truth, 1.0 - probability, probability).clamp_(min=0.0).masked_fill_(ids < 0, -1.0)
    order, own = _descending(errors, truth)
    left = size - own.cumsum(0, dtype=torch.int32)
    union = (left + torch.arange(1, len(order) + 1, dtype=torch.int32, device=order.device)).to(errors.dtype)
    others = left / (union * (union - 1.0)).clamp_(min=1.0)
    slopes = torch.zeros_like(errors).scatter_(0, order, torch.where(own, -1.0 / union, others))
    return slopes, (errors * slopes.abs()).sum(), size


def _descending(errors: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels (K,) int64 from the largest error down, equal ones as they come, and whether they are of the class.

    All pixels, or those that have a slope: after the last pixel of the class the Jaccard loss stays 1, so what has less
    error than all of these has none.
    """
    if errors.device.type != "cpu" or errors.dtype != torch.float32 or not errors.numel():
        # To pick pixels, a GPU would have to be waited for.
        order = errors.sort(descending=True, stable=True).indices
        return order, truth[order]
    # NumPy sorts integers with vector instructions, ten times as fast as torch sorts floats on a CPU. The bits of floats
    # ≥ 0 have the floats' order, and the opposite when inverted; below them stand the pixel and whether it is of the class.
    kept = (errors >= errors.where(truth, math.inf).min()).nonzero()[:, 0]
    bits = errors.index_select(0, kept).view(torch.int32).bitwise_not_()
    keys = (bits.long() << 32).add_(kept, alpha=2).add_(truth.index_select(0, kept))
    keys.numpy().sort()
    return (keys & 0xFFFFFFFF) >> 1, (keys & 1).bool()
