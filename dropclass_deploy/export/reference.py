"""The PyTorch network as the reference, and its masks stored beside the artifact for the parity gate.

``reference/<first 24 hex of the image's digest>.png`` is the mask at the label's size; ``reference/index.json`` says for
which image (its digest) and label each one is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.files import write_json
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import array_digest, write_png
from dropclass_deploy.export.networks import ResizedLogits, deployable
from dropclass_deploy.training.evaluate import TorchSegmenter

FOLDER = "reference"
INDEX = "index.json"
_DIGITS = 24

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]


class TorchReference:
    """A PyTorch network as image uint8 (H, W, 3) RGB → mask uint8 (H, W) at the image's size, in float32 on the CPU.

    The image is resized to ``preprocess.size`` when there is one and normalised; the logits at the network's input size,
    the output of ``models/model.onnx``, are resized to the image's size (bilinear, half-pixel centres) before the argmax.
    Where the preprocessing has a window, those logits are blended of its windows, as the ``Segmenter`` blends them.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess) -> None:
        self._segment = TorchSegmenter(ResizedLogits(deployable(model)).eval(), preprocess)

    def __call__(self, image: Image) -> Mask:
        """Mask of one image."""
        return self._segment(image)


def write_references(
    folder: Path,
    dataset: Dataset,
    reference: TorchReference,
    advance: Advance | None = None,
    limit: int | None = None,
) -> int:
    """Store the reference's masks of a data set below ``folder``.

    Args:
        folder: the artifact; ``reference/`` is made in it.
        dataset: images and labels.
        reference: image → mask.
        advance: told after each image.
        limit: at most so many images, the first ones.

    Returns:
        How many images were covered.

    Raises:
        DataError: when the data set is empty.
    """
    total = len(dataset) if limit is None else min(limit, len(dataset))
    if total == 0:
        raise DataError(f"split {dataset.split!r} of {dataset.spec} holds no image", expected="at least one")
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    masks: dict[str, dict[str, Any]] = {}
    for index in range(total):
        image, label = dataset.image(index), dataset.mask(index)
        digest = array_digest(image)
        name = f"{FOLDER}/{digest[:_DIGITS]}.png"
        write_png(folder / name, reference(image))
        masks[digest] = {"label": array_digest(label), "file": name}
        if advance is not None:
            advance(index + 1, total, dataset.key(index))
    content = {"data": dataset.spec, "split": dataset.split, "images": total, "masks": masks}
    write_json(folder / FOLDER / INDEX, content)
    return total
