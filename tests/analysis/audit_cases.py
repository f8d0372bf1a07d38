"""Data and networks small enough to audit by hand, and one shallow network that learns the street in a minute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.analysis.subject import Subject
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.training import TorchSegmenter

PLAIN = Preprocess(mean=(0, 0, 0), std=(1, 1, 1))
GREEN, RED = (0, 255, 0), (255, 0, 0)


class ListedData(Dataset):
    """Images and masks as they are given."""

    def __init__(self, pairs: Sequence[tuple[Pixels, Pixels]], names: Sequence[str]) -> None:
        self.spec, self.split, self.classes = "listed:", "val", ClassTable(names=tuple(names))
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def key(self, index: int) -> str:
        return f"image_{index}"

    def image(self, index: int) -> Pixels:
        return self._pairs[index][0].copy()

    def mask(self, index: int) -> Pixels:
        return self._pairs[index][1].copy()


class RedNeedsGreen(nn.Module):
    """Class 1 where it is red and there is pure green somewhere in the picture, class 0 everywhere else."""

    def forward(self, images: Tensor) -> Tensor:
        red, green = images[:, 0], images[:, 1]
        company = (green.amax(dim=(1, 2), keepdim=True) > 0.9).float()
        return torch.stack([torch.full_like(red, 0.5), (red > 0.9).float() * company], dim=1)


class Counting(nn.Module):
    """Another network, and how many images it was asked for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.images = network, 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return self.network(images)


class WideView(nn.Module):
    """Random weights; every pixel sees its neighbours and, through their mean, the whole picture."""

    def __init__(self, classes: int, seed: int = 0) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.near = nn.Parameter(torch.randn(8, 3, 5, 5, generator=draws))
        self.classifier = nn.Conv2d(8, classes, 1)
        with torch.no_grad():
            self.classifier.weight.copy_(torch.randn(classes, 8, 1, 1, generator=draws))
            self.classifier.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        features = F.conv2d(images - 0.5, self.near, padding=2)
        return self.classifier(torch.relu(features - features.mean(dim=(2, 3), keepdim=True)))


class Shallow(nn.Module):
    """Logits at a quarter of the resolution, from a field that reaches the ground under a cyclist."""

    def __init__(self, classes: int, width: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_block(3, width, stride=2),
            *_block(width, width, stride=2),
            *_block(width, 2 * width),
            *_block(2 * width, 2 * width, dilation=2),
            *_block(2 * width, 2 * width, dilation=4),
        )
        self.classifier = nn.Conv2d(2 * width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.classifier(self.body(images))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def shallow(num_classes: int) -> nn.Module:
    return Shallow(num_classes)


def _block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def subject_of(model: nn.Module, names: Sequence[str], preprocess: Preprocess = PLAIN, name: str = "run") -> Subject:
    """A subject without a run folder: the parts under test never look at it."""
    segment = TorchSegmenter(model.eval(), preprocess)
    return Subject(name, segment, ClassTable(names=tuple(names)), None, None, "not looked for")  # type: ignore[arg-type]


def random_pairs(sizes: Sequence[tuple[int, int]], ids: Sequence[Sequence[int]]) -> list[tuple[Pixels, Pixels]]:
    """Noise images, each with a mask out of the ids named for it."""
    draws = np.random.default_rng(7)
    return [
        (draws.integers(0, 256, (*size, 3), dtype=np.uint8), draws.choice(np.array(some, dtype=np.uint8), size))
        for size, some in zip(sizes, ids, strict=True)
    ]
