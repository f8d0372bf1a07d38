"""What one training pass of a network shows: all that a loss may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dropclass_deploy.training.losses import Resize, resize_logits


@dataclass
class View:
    """One pass of the plain network, and the labels it is held against.

    Attributes:
        head: its logits, at the classifier's resolution where training can stop there.
        labels: (N, H, W).
        features: A (N, K, h, w), the classifier's input; None when training cannot see it.
        classify: the network's own classifier, from features to logits (N, C, h, w); None with the features.
        align_corners: of the network's own resize of its logits, see ``Classifier``.
        beside: logit of an output for pixels without a label, (N, 1) and of the size of ``head.logits``, or None.
    """

    head: Resize
    labels: Tensor
    features: Tensor | None = None
    classify: Callable[[Tensor], Tensor] | None = None
    align_corners: bool | None = None
    beside: Tensor | None = None

    @cached_property
    def outputs(self) -> Tensor:
        """The logits with the one beside the classes, (N, C + 1, h, w); without one those of ``head``."""
        logits = self.head.logits
        return logits if self.beside is None else torch.cat([logits, self.beside.to(logits.dtype)], dim=1)

    @cached_property
    def logits(self) -> Tensor:
        """Float32 (N, C, H, W) at the labels' size, made once for all losses that need whole maps."""
        return resize_logits(self.head.logits, self.labels, align_corners=self.head.align_corners)
