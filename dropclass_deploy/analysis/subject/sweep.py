"""One pass of a network over a split, watched by whoever counts something."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dropclass_deploy.analysis.subject.subject import Subject
from dropclass_deploy.core.metrics import confusion_matrix
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.training.batches.ahead import decoded_ahead


@dataclass(frozen=True)
class Seen:
    """One image as the network saw it.

    Attributes:
        index: in the split.
        image: uint8 (H, W, 3), RGB.
        truth: uint8 (H, W) class ids.
        logits: float32 (C, H, W), at the image's size, on the network's device.
        mask: uint8 (H, W), the predicted ids.
    """

    index: int
    image: Pixels
    truth: Pixels
    logits: Tensor
    mask: Pixels


class Observer(Protocol):
    """What counts something of every image."""

    def observe(self, seen: Seen) -> None:
        """Take an image into account."""


def sweep(
    subject: Subject,
    dataset: Dataset,
    indices: Sequence[int],
    observers: Sequence[Observer] = (),
    advance: Advance | None = None,
) -> npt.NDArray[np.int64]:
    """Run the network once over the images; files are decoded ahead.

    Returns:
        int64 (N, C, C): each image's confusion matrix, rows are the truth, in the order of ``indices``.
    """
    count = len(subject.classes)
    confusions = np.zeros((len(indices), count, count), dtype=np.int64)
    with closing(decoded_ahead(dataset, indices)) as pairs:
        for place, (image, truth) in enumerate(pairs):
            seen = _seen(subject, indices[place], image, truth)
            confusions[place] = confusion_matrix(truth, seen.mask, count, subject.classes.ignore_index)
            for observer in observers:
                observer.observe(seen)
            if advance is not None:
                advance(place + 1, len(indices))
    return confusions


@torch.inference_mode()
def _seen(subject: Subject, index: int, image: Pixels, truth: Pixels) -> Seen:
    logits = subject.segment.logits(image)[0]
    mask: Pixels = logits.argmax(dim=0).to(torch.uint8).cpu().numpy()
    return Seen(index, image, truth, logits, mask)
