"""Losses and changes of logits by chance or by class frequency: dropout's spread, BLV, logit adjustment."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.training.losses.full_size import widened


def uncertainty_loss(maps: Tensor, background: Tensor | None = None) -> Tensor:
    """How much several dropout passes over the same images differ: the mean of their variance.

    Args:
        maps: (P, N, C, h, w) logits of P ≥ 2 passes; the variance is the unbiased one over P, averaged over C.
        background: (N, h, w) probability of the background, or None: the variance counts times 1 − p. Without gradient.

    Returns:
        A scalar, the mean over N, h and w; float32 (float64 for float64 logits); 0 for an empty batch.

    Raises:
        DataError: for maps of fewer than two passes, or a background of another size.
    """
    if maps.ndim != 5 or maps.shape[0] < 2:
        raise DataError(f"maps have shape {tuple(maps.shape)}", expected="(P, N, C, h, w) with two passes P at least")
    if not maps.numel():
        return widened(maps).sum()
    spread = widened(maps).var(0).mean(1)
    if background is not None:
        if background.shape != spread.shape:
            raise DataError(
                f"background has shape {tuple(background.shape)}", expected=f"{tuple(spread.shape)}, as the maps"
            )
        spread = spread * (1.0 - background.detach().to(spread))
    return spread.mean()


def balanced_variation(
    logits: Tensor, log_inverse_frequency: Tensor, *, sigma: float, generator: torch.Generator | None = None
) -> Tensor:
    """Logits with noise that is stronger the rarer the class: l + |clamp(ε, −1, 1)| · f/max f with ε from N(0, σ²).

    Balancing logit variation (Wang et al., CVPR 2023, arXiv 2306.02061), for training only. f_c = log(Σ n / n_c) is the
    paper's; the authors' code has log(max n / n_c), which leaves the commonest class without noise.

    Args:
        logits: (N, C, h, w), at the classifier's own resolution.
        log_inverse_frequency: f (C,) ≥ 0; a class that never occurs may have infinity, and is given the largest f of the
            others.
        sigma: σ ≥ 0 (the paper's code: 4).
        generator: of the noise, on the logits' device.

    Returns:
        (N, C, h, w), float32 (float64 for float64 logits).

    Raises:
        DataError: when f does not belong to the logits.
        UserError: for a σ that is no number ≥ 0.
    """
    if log_inverse_frequency.shape != logits.shape[1:2]:
        raise DataError(
            f"log_inverse_frequency has shape {tuple(log_inverse_frequency.shape)}",
            expected=f"({logits.shape[1]},), one number a class",
        )
    if not 0.0 <= sigma < math.inf:
        raise UserError(f"sigma is {sigma}", expected="a number from 0 on")
    wide = widened(logits)
    rarity = log_inverse_frequency.detach().to(wide)
    known = rarity.isfinite()
    largest = rarity.where(known, 0.0).max()
    # A single class has f = 0: no noise, not 0 ÷ 0.
    share = rarity.where(known, largest) / largest.where(largest > 0, 1.0)
    noise = torch.randn(wide.shape, generator=generator, dtype=wide.dtype, device=wide.device)
    return wide + (noise * sigma).abs().clamp(max=1.0) * share[:, None, None]


def logit_shift(frequency: Tensor, tau: float) -> Tensor:
    """What logit adjustment adds to the logits in training: τ · log π (Menon et al., arXiv 2007.07314, Eq. 10).

    Args:
        frequency: (C,) pixels or shares of the classes, ≥ 0; π is their share of the sum. A class that never occurs has
            the shift of the rarest class that does: log 0 would forbid it.
        tau: τ (the paper's 1).

    Returns:
        float32 (C,), on the frequencies' device.

    Raises:
        DataError: for frequencies that are negative, not finite, or all 0.
        UserError: for a τ that is not finite.
    """
    counts = frequency.detach().double()
    if counts.ndim != 1 or not bool((counts.isfinite() & (counts >= 0)).all()) or not bool((counts > 0).any()):
        raise DataError(
            f"the class frequencies are {frequency.tolist()}", expected="(C,) numbers from 0 on, one of them above 0"
        )
    if not math.isfinite(tau):
        raise UserError(f"tau is {tau}", expected="a finite number (1 in the paper)")
    occurs = counts > 0
    rarest = counts.where(occurs, math.inf).min()
    return (tau * (counts.where(occurs, rarest) / counts.sum()).log()).float()
