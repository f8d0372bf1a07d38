"""Online hard example mining over pixels (Shrivastava et al., arXiv 1604.03540)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.losses.full_size import check_full_size, counted_ids, truth_log_probability, widened


@torch.no_grad()
def hard_pixel_weight(
    logits: Tensor,
    labels: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: float = 0.0625,
    ignore_index: int = 255,
) -> Tensor:
    """Which pixels are hard: a factor 1 or 0 for the ``pixel_weight`` of a loss.

    Hard are the pixels whose truth has a probability below ``threshold``; when these are fewer than
    ⌈``min_kept`` × labelled pixels⌉, that many of the batch with the smallest probabilities instead, among equals any.
    The usual form for segmentation (``OHEMPixelSampler`` of mmsegmentation), with a share for its number of pixels.

    Args:
        logits: (N, C, H, W), at the labels' size.
        labels: (N, H, W) ids.
        threshold: probability from which a pixel is easy, 0 … 1.
        min_kept: share of the labelled pixels that is kept at least, 0 … 1.
        ignore_index: label that counts nowhere.

    Returns:
        float32 (N, H, W) of 0 and 1, without gradient; 0 at pixels that are not labelled.

    Raises:
        DataError: when logits and labels do not belong together.
        UserError: for a share or a probability outside 0 … 1.
    """
    check_full_size(logits, labels)
    for name, value in (("threshold", threshold), ("min_kept", min_kept)):
        if not 0.0 <= value <= 1.0:
            raise UserError(f"{name} is {value}", expected="0 … 1")
    ids, counted = counted_ids(labels, logits.shape[1], ignore_index)
    log_probability = torch.full(labels.shape, math.inf, device=logits.device)
    for image, own, out in zip(logits, ids, log_probability, strict=True):
        # An image at a time: nothing as large as the batch's logits is held.
        out.copy_(truth_log_probability(widened(image[None]), own[None])[0])
    log_probability.masked_fill_(~counted, math.inf)
    hard = log_probability.exp() < threshold
    # The one wait for a GPU: how many to look for has to be known here.
    found, labelled = torch.stack([hard.sum(), counted.sum()]).tolist()
    wanted = math.ceil(round(min_kept * labelled, 6))  # 0.1 × 30 is not 3.0000000000000004 pixels
    if found < wanted:
        hardest = log_probability.flatten().topk(wanted, largest=False, sorted=False).indices
        hard.view(-1)[hardest] = True
    return hard.float()
