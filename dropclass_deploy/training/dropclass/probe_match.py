"""Whether a module's output is the logits, as it is or resized bilinearly, and by which bilinear resize.

Equal numbers in one pass prove nothing when they are small or all alike: heads that start at zero agree with each other,
and so do the two kinds of resize on a constant map. So a match counts only when it holds twice: with what the network
computes, and with noise in place of the output of every module that gives as many channels as the logits have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.training.dropclass.probe_run import Call, Sight, watch


@dataclass(frozen=True)
class Match:
    """A call whose output is the logits, and the ways of resizing that make it so.

    ``align_corners`` is [None] when nothing is resized, else [False], [True], or both where they cannot be told apart (a
    map of one pixel).
    """

    call: Call
    align_corners: list[bool | None]


def resize_errors(output: Tensor, logits: Tensor) -> dict[bool | None, float]:
    """The bilinear resizes (by align_corners; None for none) that turn ``output`` into ``logits``, with their errors.

    The tolerance is relative to the largest logit: 1e-4, or one unit in the last place of a shorter dtype. A resize in
    another memory layout, fused kernel or dtype may round differently in the last bits, no more.
    """
    if output.ndim != 4 or output.shape[:2] != logits.shape[:2] or not logits.is_floating_point() or not logits.numel():
        return {}
    tolerance = max(1e-4, torch.finfo(logits.dtype).eps) * float(logits.abs().max())
    dtype = torch.promote_types(logits.dtype, torch.float32)
    given, wanted = output.to(dtype), logits.to(dtype)
    ways: list[bool | None] = [None] if output.shape == logits.shape else [False, True]
    errors = {way: float((_resize(given, wanted, way) - wanted).abs().max()) for way in ways}
    return {way: error for way, error in errors.items() if error <= tolerance}


def _resize(output: Tensor, logits: Tensor, align_corners: bool | None) -> Tensor:
    if align_corners is None:
        return output
    return F.interpolate(output, size=logits.shape[-2:], mode="bilinear", align_corners=align_corners)


def confirmed_match(model: nn.Module, images: Tensor, seen: Sight) -> Match | None:
    """The call of a pass that makes its logits, confirmed by a second pass with noise for outputs; None without one.

    Args:
        model: the network.
        images: those of the pass.
        seen: the pass.
    """
    candidates = {call.path: call for call in seen.calls if resize_errors(call.output, seen.logits)}
    if not candidates:
        return None
    # All of them, not the candidates alone: a head that adds zeros today is part of the logits tomorrow.
    heads = {call.path: call.module for call in seen.calls if call.output.shape[:2] == seen.logits.shape[:2]}
    again = watch(model, images, heads, substitute=True)
    found = [(resize_errors(call.output, again.logits), call.path) for call in again.calls if call.path in candidates]
    found = [(errors, path) for errors, path in found if errors]
    if not found:
        return None
    errors, path = min(found, key=lambda pair: min(pair[0].values()))
    return Match(candidates[path], list(errors))


def ways_at(model: nn.Module, images: Tensor, call: Call) -> list[bool | None]:
    """``Match.align_corners`` of a known classifier for other images; [] when it does not make their logits."""
    again = watch(model, images, {call.path: call.module}, substitute=True)
    return list(resize_errors(again.calls[-1].output, again.logits)) if again.calls else []
