"""The sample image of an artifact, and the gate at export: ONNX Runtime against torch on that image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dropclass_deploy.core.errors import GateRefusedError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import central_window
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import resize_image
from dropclass_deploy.export.mask_head import MaskModel
from dropclass_deploy.export.shapes import Shape
from dropclass_deploy.serving.runtimes.registry import open_runtime

MAX_DISAGREEMENT = 1e-4
"""Share of pixels, as the float32 rule of the parity gate: a few near-ties may fall the other way."""

_PROCEDURAL_SIZE = (192, 256)

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]


def sample_image(dataset: Dataset | None, preprocess: Preprocess) -> Image:
    """uint8 (H, W, 3): the first image of ``dataset``, or a drawn one, as the network sees it.

    It is resized to ``preprocess.size`` where there is one; with a window it is the window in its middle.
    """
    size, window = preprocess.size, preprocess.window
    drawn = size or (window.size if window else _PROCEDURAL_SIZE)
    image = dataset.image(0) if dataset is not None and len(dataset) else procedural_image(drawn)
    image = image if size is None else resize_image(image, size)
    return image if window is None else central_window(image, window, preprocess.mean)


def procedural_image(size: tuple[int, int]) -> Image:
    """A fixed test picture uint8 (H, W, 3): colour gradients, a disc and a grid, the same on every machine."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    down, across = rows / max(height - 1, 1), columns / max(width - 1, 1)
    picture = np.stack([255 * down, 255 * across, 255 * (1 - down) * (1 - across)], axis=-1)
    disc = (down - 0.5) ** 2 + (across - 0.5) ** 2 < 0.09
    picture[disc] = 255 - picture[disc]
    picture[(rows % 16 == 0) | (columns % 16 == 0)] //= 2
    return picture.astype(np.uint8)


@dataclass(frozen=True)
class SampleCheck:
    """What the gate at export measured on the sample.

    Attributes:
        mask: uint8 (H, W), what ``models/model.mask.onnx`` gives.
        disagreement: share of its pixels that differ from torch.
        logits_disagreement: share of pixels where the argmax of ``models/model.onnx`` differs from torch.
        largest_difference: largest absolute difference of a logit.
        sparse_differing: pixels at which the sparse head's mask is not the dense one's; None without a sparse head.
    """

    mask: Mask
    disagreement: float
    logits_disagreement: float
    largest_difference: float
    sparse_differing: int | None = None


def check_sample(
    network: nn.Module,
    preprocess: Preprocess,
    shape: Shape,
    image: Image,
    logits_file: Path,
    mask_files: Sequence[Path],
) -> SampleCheck:
    """Run the ONNX files on ``image`` and hold them against the torch network.

    Args:
        network: (N, 3, H, W) → logits (N, C, H, W) at the input's size, float32 on the CPU in eval mode.
        image: uint8 (H, W, 3) of a size that the files take.
        mask_files: the dense head's, then the sparse head's when there is one.

    Raises:
        GateRefusedError: when they disagree on more than 1e-4 of the pixels, or a logit is not finite.
    """
    batch = np.repeat(image[None], shape[0] or 1, axis=0)
    pixels = preprocess.normalise(batch)
    with torch.inference_mode():
        expected_logits = network(torch.from_numpy(pixels)).numpy()
        expected = MaskModel(network, preprocess).eval()(torch.from_numpy(batch)).numpy()
    with open_runtime(logits_file) as runtime:
        logits = runtime.run({"image": pixels})["logits"]
    if not np.isfinite(logits).all():
        raise GateRefusedError("the exported network gives NaN or infinite logits on the sample image")
    masks = [_run_mask(path, batch, pixels).reshape(expected.shape) for path in mask_files]
    result = SampleCheck(
        mask=np.asarray(masks[0][0], dtype=np.uint8),
        disagreement=float((masks[0] != expected).mean()),
        logits_disagreement=float((logits.argmax(axis=1) != expected).mean()),
        largest_difference=float(np.abs(logits - expected_logits).max()),
        sparse_differing=int((masks[1] != masks[0]).sum()) if len(masks) > 1 else None,
    )
    _judge(result, expected.size)
    return result


def _run_mask(path: Path, batch: Image, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.integer[Any]]:
    with open_runtime(path) as runtime:
        mask: npt.NDArray[np.integer[Any]] = runtime.run(
            {"image": batch if runtime.inputs[0].dtype == "uint8" else pixels}
        )["mask"]
        return mask


def _judge(check: SampleCheck, total: int) -> None:
    shares = {"model.mask.onnx": check.disagreement, "model.onnx": check.logits_disagreement}
    for name, share in shares.items():
        if share > MAX_DISAGREEMENT:
            raise GateRefusedError(
                f"the export is refused: {name} under ONNX Runtime and the torch model disagree on {share:.4%} of the "
                f"sample's pixels (at most {MAX_DISAGREEMENT:.2%}); largest logit difference "
                f"{check.largest_difference:.3g}"
            )
    if (check.sparse_differing or 0) > MAX_DISAGREEMENT * total:
        raise GateRefusedError(
            f"the export is refused: the sparse and the dense mask head disagree on {check.sparse_differing} of the "
            f"sample's {total} pixels (at most {MAX_DISAGREEMENT:.2%})"
        )
