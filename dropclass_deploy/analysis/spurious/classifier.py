"""What the probe asks of a classifier, and a small one.

It fits any module with ``features`` (N, 3, H, W) → (N, K, h, w) and ``classifier``, an ``nn.Linear`` on the mean of each
feature over the places: the form that class activation maps need (Zhou et al., arXiv 1512.04150, section 2).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError


class SmallClassifier(nn.Module):
    """Three convolutions (the second halves the resolution), the mean over the places, and a linear layer."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(3, width, stride=1), *_block(width, 2 * width, stride=2), *_block(2 * width, 2 * width, stride=1)
        )
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W)."""
        return class_logits(self, images)


def _block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def feature_maps(model: nn.Module, images: Tensor) -> Tensor:
    """(N, K, h, w) of images (N, 3, H, W).

    Raises:
        ModelError: when the model has no ``features``, or they are no maps.
    """
    if not hasattr(model, "features"):
        raise ModelError(f"{type(model).__name__} has no 'features'", expected="(N, 3, H, W) → (N, K, h, w)")
    maps = cast("Callable[[Tensor], Tensor]", model.features)(images)
    if maps.ndim != 4:
        raise ModelError(f"the features have shape {tuple(maps.shape)}", expected="maps (N, K, h, w)")
    return maps


def last_layer(model: nn.Module) -> nn.Linear:
    """The linear layer on the pooled features.

    Raises:
        ModelError: when there is none.
    """
    layer = getattr(model, "classifier", None)
    if not isinstance(layer, nn.Linear):
        raise ModelError(
            f"the 'classifier' of {type(model).__name__} is a {type(layer).__name__}", expected="nn.Linear"
        )
    return layer


def pooled(model: nn.Module, images: Tensor) -> Tensor:
    """(N, K): the mean of each feature over the places."""
    return feature_maps(model, images).mean(dim=(2, 3))


def class_logits(model: nn.Module, images: Tensor) -> Tensor:
    """(N, C) of images (N, 3, H, W)."""
    logits: Tensor = last_layer(model)(pooled(model, images))
    return logits


def built(factory: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """A module whose random first weights follow ``generator``; torch's own generator stays as it was."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory()


def with_new_last_layer(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy of ``model`` with untrained weights in its last layer."""
    old, copy = last_layer(model), deepcopy(model)
    copy.classifier = built(lambda: nn.Linear(old.in_features, old.out_features), generator)
    return copy
