"""Mends of the drop: other ways for a class to leave the last features, and agreement between the two paths.

None of them is the paper's. They are options, so that the evidence grid can say of each whether it helps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def without_direction(logits: Tensor, weight: Tensor, bias: Tensor | None, dropped: int | None) -> Tensor:
    """The logits of features that have lost their part along w_z: what a linear classifier then cannot know of class z.

    A − (w_z·A / |w_z|²) w_z, classified, is l_c − (w_c·w_z / |w_z|²)(l_z − b_z): no pass over the features. Class z itself
    is left with its bias.

    Args:
        logits: (N, C, h, w) of a linear classifier.
        weight: its weight (C, K, kh, kw).
        bias: its bias (C,), or None.
        dropped: z, or None: the logits as they are.

    Returns:
        (N, C, h, w).
    """
    if dropped is None:
        return logits
    rows = weight.flatten(1).to(torch.promote_types(weight.dtype, torch.float32))
    squared = rows[dropped].square().sum().clamp_min(torch.finfo(rows.dtype).tiny)
    shares = ((rows @ rows[dropped]) / squared).to(logits.dtype).view(1, -1, 1, 1)
    response = logits[:, dropped, None]
    if bias is not None:
        response = response - bias[dropped].to(logits.dtype)
    return logits - shares * response


def channels_left(weight: Tensor, dropped: int | None) -> Tensor:
    """How much of each channel does not speak for class z: 1 − |w_z| / Σ_c |w_c|, (K,) from a weight (C, K, kh, kw)."""
    strength = weight.sum(dim=(2, 3)).abs()
    if dropped is None:
        return torch.ones_like(strength[0])
    return 1 - strength[dropped] / strength.sum(0).clamp_min(torch.finfo(strength.dtype).tiny)


def disagreement(plain: Tensor, branch: Tensor, dropped: int | None, align_corners: bool | None) -> Tensor:
    """Between the two paths, over the classes that are kept: (KL(p ‖ q) + KL(q ‖ p)) / 2, mean over pixels.

    Both learn from it, as in R-Drop (Liang et al., NeurIPS 2021), where the two paths are two dropout masks.

    Args:
        plain: logits (N, C, H, W) of the network.
        branch: logits (N, C, h, w), resized to (H, W) when they are smaller.
        dropped: z, or None.
        align_corners: of that resize; None means False.

    Returns:
        A scalar, float32.
    """
    plain, branch = plain.float(), branch.float()
    if branch.shape[-2:] != plain.shape[-2:]:
        branch = F.interpolate(branch, plain.shape[-2:], mode="bilinear", align_corners=bool(align_corners))
    kept = [index for index in range(plain.shape[1]) if index != dropped]
    p, q = plain[:, kept].log_softmax(1), branch[:, kept].log_softmax(1)
    return ((p.exp() - q.exp()) * (p - q)).sum(1).mean() / 2
