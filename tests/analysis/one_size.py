"""A user's network that takes images of 32×48 and no others."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OneSize(nn.Module):
    """A value is added at each place, as position embeddings are."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, padding=1)
        self.places = nn.Parameter(torch.randn(1, 6, 32, 48))
        self.head = nn.Conv2d(6, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(images) + self.places))


def build(num_classes: int) -> nn.Module:
    return OneSize(num_classes)
