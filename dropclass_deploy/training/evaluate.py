"""Pooled evaluation of a PyTorch network, at the labels' own resolution."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from dropclass_deploy.core.average_precision import PrecisionHistogram
from dropclass_deploy.core.errors import DataError, ModelError, first_line
from dropclass_deploy.core.metrics import Scores, confusion_matrix, scores
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.core.sliding_window import blended_rows
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import resize_image
from dropclass_deploy.models.modes import evaluating
from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.training.batches.ahead import decoded_ahead
from dropclass_deploy.training.parallel.processes import Processes


@dataclass(frozen=True)
class TorchSegmenter:
    """A PyTorch network as image → mask: the reference that an artifact is held against.

    Attributes:
        model: (N, 3, H, W) → logits; put into eval mode by the caller.
        preprocess: between the decoded image and the network.
        device: where the model is.
    """

    model: nn.Module
    preprocess: Preprocess
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Mask uint8 (H, W) of an RGB image uint8 (H, W, 3), at the image's size.

        The logits are resized to it (bilinear, half-pixel centres), then the argmax is taken; ties go to the lowest id.
        Where the preprocessing has a window, those are the blended logits of its windows, and all of them are held at the
        size of the resized image.
        """
        return _mask_of(self.logits(image))

    @torch.inference_mode()
    def logits(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Logits float32 (1, C, H, W) of an RGB image uint8 (H, W, 3), at the image's size."""
        resized = image if self.preprocess.size is None else resize_image(image, self.preprocess.size)
        return _resized(self._image_logits(resized), image.shape[:2])

    def _image_logits(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """(1, C, H, W) of an image uint8 (H, W, 3), at its size."""
        window, normalise = self.preprocess.window, self.preprocess.normalise
        # An image of the window's size is one window whole: the weights cancel.
        if window is None or image.shape[:2] == window.size:
            return self._input_logits(torch.from_numpy(normalise(image)).to(self.device))
        strips = blended_rows(image, window, normalise, self._window_logits)
        return torch.from_numpy(np.concatenate(list(strips), axis=1)[None])

    def _window_logits(self, planes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = self._input_logits(torch.from_numpy(planes).to(self.device)).cpu().numpy()
        return logits

    def _input_logits(self, tensor: torch.Tensor) -> torch.Tensor:
        """Logits at the size of the network's input, as ``models/model.onnx`` gives them."""
        return _resized(self._logits(tensor), tensor.shape[-2:])

    def _logits(self, tensor: torch.Tensor) -> torch.Tensor:
        try:
            return logits_of(self.model(tensor)).float()
        except RuntimeError as error:
            reason = first_line(error)
            if not _is_about_size(reason):
                raise
            height, width = tensor.shape[-2:]
            raise ModelError(
                f"the network cannot take an image of {width}×{height} pixels ({reason})",
                expected="a network that takes the images to evaluate as they are",
                remedy="set preprocess.size: [height, width] to the size that it takes",
            ) from error


@torch.inference_mode()
def _mask_of(logits: torch.Tensor) -> npt.NDArray[np.uint8]:
    mask: npt.NDArray[np.uint8] = logits.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
    return mask


@torch.inference_mode()
def _probabilities_of(logits: torch.Tensor) -> npt.NDArray[np.float32]:
    """(C, P) softmax of logits (1, C, H, W)."""
    probabilities: npt.NDArray[np.float32] = logits.softmax(dim=1)[0].flatten(start_dim=1).cpu().numpy()
    return probabilities


def _resized(logits: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _is_about_size(reason: str) -> bool:
    """Whether torch's words are about shapes that do not fit, and not about memory or a device."""
    return any(word in reason.lower() for word in ("size of tensor", "sizes of tensors", "shape", "output size"))


class EvaluationStoppedError(Exception):
    """An evaluation was asked to stop and has no result."""


def evaluate_network(
    model: nn.Module,
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    device: torch.device | None = None,
    rare: tuple[int, ...] = (),
    advance: Advance | None = None,
    processes: Processes | None = None,
    stop: Callable[[], bool] | None = None,
    ranking: PrecisionHistogram | None = None,
) -> Scores:
    """Pooled scores of ``model`` over every image of ``dataset``; the model's training mode is restored.

    In float32, as it is exported; files are decoded ahead, in threads.

    Args:
        rare: ids of the rare classes (of the *training* pixels).
        processes: those that share the images; each image is evaluated by one of them and counted once, and all get the
            scores of the whole. Default this one alone.
        stop: asked after each image; when it says yes on any process, all leave off.
        ranking: an empty histogram that gets the class probabilities of every labelled pixel, of all processes.

    Raises:
        DataError: when the data set is empty.
        EvaluationStoppedError: when it was stopped.
    """
    if len(dataset) == 0:
        raise DataError(f"split {dataset.split!r} of {dataset.spec} holds no image", expected="at least one")
    segment = TorchSegmenter(model, preprocess, device or next(model.parameters()).device)
    count = len(dataset.classes)
    total = np.zeros((count, count), dtype=np.int64)
    processes = processes or Processes()
    part, stopped = processes.part(len(dataset)), False
    with evaluating(model), closing(decoded_ahead(dataset, part)) as pairs:
        for done, (image, truth) in enumerate(pairs, start=1):
            logits = segment.logits(image)
            total += confusion_matrix(truth, _mask_of(logits), count, dataset.classes.ignore_index)
            if ranking is not None:
                ranking.update(_probabilities_of(logits), truth.ravel())
            if advance is not None:
                advance(done, len(part))
            stopped = stop is not None and stop()
            if stopped:
                break
    if stop is not None and processes.any(stopped):
        raise EvaluationStoppedError
    if ranking is not None:
        ranking.counts = processes.total_counts(ranking.counts)
    return scores(processes.total_counts(total), rare)
