"""A network shallow enough that float32 noise stays noise: what two processes compute can be held against one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SmallNetwork(nn.Module):
    """Convolution, BatchNorm, ReLU, classifier; and an auxiliary head that no loss looks at."""

    def __init__(self, classes: int, seed: int = 5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.aux = nn.Conv2d(8, 3, 1)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images)
        return {"out": self.head(features), "aux": self.aux(features)}
