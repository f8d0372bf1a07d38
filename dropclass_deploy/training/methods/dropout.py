"""Dropout of large feature maps, several times a step."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 2**16
"""Of a rate: the nearest multiple of its reciprocal is what is drawn."""


def dropout(features: Tensor, rate: float) -> Tensor:
    """Features of which each is 0 with probability ``rate`` and else divided by 1 − rate, in evaluation mode, too.

    What ``torch.nn.functional.dropout`` gives by other random numbers: one 64-bit draw serves four elements, since on a
    CPU, where they are drawn one after another, torch's own would take longer than all that is done with the result.

    Args:
        features: any shape.
        rate: in [0, 1).

    Returns:
        A tensor as the features.
    """
    values = features.numel()
    bits = torch.empty((values + 3) // 4, dtype=torch.int64, device=features.device).random_(-(2**63), None)
    kept = bits.view(torch.int16)[:values] >= round(rate * LEVELS) - LEVELS // 2
    # In the features' own order in memory, or the product would have to reorder one of the two.
    if features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last):
        batch, channels, height, width = features.shape
        kept = kept.view(batch, height, width, channels).permute(0, 3, 1, 2)
    else:
        kept = kept.view(features.shape)
    return features * (kept.to(features.dtype) / (1.0 - rate))
