"""A small classification loop: the whole network, or its last layer alone on features that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.analysis.spurious.classifier import class_logits, last_layer, pooled
from dropclass_deploy.analysis.spurious.composites import Composites
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.metrics import ratio
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.models.modes import evaluating

_BATCH_OF_EVALUATION = 500  # images; bounds the memory, changes no figure


@dataclass(frozen=True)
class Fitting:
    """How long and how fast Adam learns.

    Attributes:
        epochs: over the composites, for the whole network and for a new last layer.
        batch_size: images.
        learning_rate: of the whole network; it falls to 0 along a cosine, so that the last batches do not decide.
        last_layer_rate: of the last layer alone.
    """

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 3e-3
    last_layer_rate: float = 1e-2

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or min(self.learning_rate, self.last_layer_rate) <= 0:
            raise DataError(
                f"the probe is to learn with {self}",
                expected="epochs ≥ 1, batch_size ≥ 2 (BatchNorm needs two images) and rates above 0",
            )


def tensor_of(images: npt.NDArray[np.uint8]) -> Tensor:
    """float32 (n, 3, H, W) in [−1, 1] of grey images uint8 (n, H, W)."""
    return (torch.from_numpy(images).float() / 127.5 - 1)[:, None].expand(-1, 3, -1, -1)


def train_network(
    model: nn.Module,
    composites: Composites,
    fitting: Fitting,
    generator: torch.Generator,
    advance: Advance,
) -> None:
    """Train every weight in place; the model ends in eval mode."""
    images, labels = tensor_of(composites.images), torch.from_numpy(composites.labels)
    model.train()
    _descend(
        list(model.parameters()),
        lambda chosen: F.cross_entropy(class_logits(model, images[chosen]), labels[chosen]),
        len(labels),
        fitting,
        fitting.learning_rate,
        generator,
        advance,
    )
    model.eval()


def tuned_last_layer(
    model: nn.Module, composites: Composites, fitting: Fitting, generator: torch.Generator, advance: Advance
) -> nn.Module:
    """A copy of ``model`` (in eval mode) whose last layer goes on learning, on features that stay as they are."""
    copy = deepcopy(model).eval()
    layer, labels = last_layer(copy), torch.from_numpy(composites.labels)
    # They do not change, so they are computed once.
    features = torch.cat([pooled(copy, images).detach() for images in _batches(composites.images)])
    _descend(
        list(layer.parameters()),
        lambda chosen: F.cross_entropy(layer(features[chosen]), labels[chosen]),
        len(labels),
        fitting,
        fitting.last_layer_rate,
        generator,
        advance,
    )
    return copy


def _descend(
    weights: list[nn.Parameter],
    loss_of: Callable[[Tensor], Tensor],
    count: int,
    fitting: Fitting,
    rate: float,
    generator: torch.Generator,
    advance: Advance,
) -> None:
    """Lower ``loss_of`` (the ids of a batch's images) with Adam."""
    optimiser = torch.optim.Adam(weights, lr=rate)
    # The last images of an epoch that fill no batch are left out; another order leaves out others.
    steps = max(count // fitting.batch_size, 1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, fitting.epochs * steps)
    for epoch in range(fitting.epochs):
        order = torch.randperm(count, generator=generator)
        for step in range(steps):
            loss = loss_of(order[step * fitting.batch_size : (step + 1) * fitting.batch_size])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
        advance(epoch + 1, fitting.epochs)


@torch.inference_mode()
def predictions(model: nn.Module, composites: Composites) -> npt.NDArray[np.int64]:
    """(n,) the most likely class of each composite."""
    with evaluating(model):
        found = [class_logits(model, images).argmax(dim=1) for images in _batches(composites.images)]
    ids: npt.NDArray[np.int64] = torch.cat(found).numpy()
    return ids


def accuracy_by_class(
    predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.float64]:
    """(C,) share of the images of each class that are recognised; NaN for a class without an image."""
    hits = np.bincount(labels[predicted == labels], minlength=num_classes)
    return ratio(hits, np.bincount(labels, minlength=num_classes))


def _batches(images: npt.NDArray[np.uint8]) -> Iterator[Tensor]:
    for start in range(0, len(images), _BATCH_OF_EVALUATION):
        yield tensor_of(images[start : start + _BATCH_OF_EVALUATION])
