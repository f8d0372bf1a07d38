from __future__ import annotations

import numpy as np
import torch
from torch import nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data import Dataset
from dropclass_deploy.training.evaluate import evaluate_network


class LeftAndRight(Dataset):
    """One image, 8×16, black on the left and white on the right, with labels of that size."""

    spec, split, classes = "memory:", "val", ClassTable(names=("black", "white"))

    def __len__(self) -> int:
        return 1

    def key(self, index: int) -> str:
        return str(index)

    def image(self, index: int) -> np.ndarray:
        return np.repeat(self.mask(index)[..., None] * np.uint8(255), 3, axis=2)

    def mask(self, index: int) -> np.ndarray:
        del index
        return np.repeat(np.array([[0] * 8 + [1] * 8], np.uint8), 8, axis=0)


class Brightness(nn.Module):
    """Logits (−x, x) of the red channel, which remembers the sizes that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape[2:]))
        return torch.cat([-images[:, :1], images[:, :1]], dim=1)


def test_half_the_size_inside_is_scored_at_the_full_size_of_the_labels() -> None:
    half = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), size=(4, 8))
    network = Brightness()
    result = evaluate_network(network, LeftAndRight(), half, device=torch.device("cpu"))
    assert set(network.seen) == {(4, 8)}
    assert result.truth_pixels.tolist() == [64, 64]
    # The edge lies between two columns of the small picture, and of the labels: its mirror image makes both sides equal.
    assert result.miou == 1.0
