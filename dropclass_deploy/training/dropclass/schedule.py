"""Schedules and the draw of the dropped class, as functions of the training progress.

Paper: the probability of dropping and the weight λ both grow linearly from 0 to 1 over training (section 3.3); the
authors' code steps both once an epoch. Here: linear in progress, each with a maximum of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dropclass_deploy.core.errors import UserError


def linear(progress: float, maximum: float = 1.0) -> float:
    """``maximum · progress``.

    Args:
        progress: share of training done, in [0, 1].
        maximum: value at the end.

    Raises:
        UserError: when progress lies outside [0, 1].
    """
    if not 0.0 <= progress <= 1.0:
        raise UserError(f"the training progress is {progress}", expected="a number from 0 to 1")
    return maximum * progress


def sample_dropped(
    num_classes: int, probability: float, generator: torch.Generator, *, among: Tensor | None = None
) -> int | None:
    """Draw z, one class for the whole batch, or None (Algorithm 1).

    Args:
        num_classes: C.
        probability: of dropping a class at all.
        generator: CPU generator; equal seeds on all processes give all the same class.
        among: label ids (any shape); z is then drawn among the classes that occur in them (an option, neither the
            paper's nor the code's). No class in it: nothing is dropped.

    Returns:
        z uniform over the classes with the given probability, else None.
    """
    # Both numbers are drawn always, so that the stream does not depend on the outcome.
    chance = torch.rand((), generator=generator).item()
    position = torch.rand((), generator=generator).item()
    if chance >= probability:
        return None
    candidates = list(range(num_classes))
    if among is not None:
        present = set(torch.unique(among).tolist())
        candidates = [index for index in candidates if index in present]
    return candidates[int(position * len(candidates))] if candidates else None
