"""Contenders of the benchmark that need torch: eager PyTorch, and the file for the naive path."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.images import read_image, resize_image
from dropclass_deploy.export.networks import ResizedLogits, deployable
from dropclass_deploy.export.shapes import DYNAMIC, Shape
from dropclass_deploy.export.to_onnx import plain_export
from dropclass_deploy.serving.benchmark.contender import END_TO_END, MODEL, TRANSFER, Query

Mask = npt.NDArray[np.uint8]


class TorchEager:
    """The network as most people run it after training: eager float32 PyTorch under ``inference_mode``, then argmax.

    Args:
        model: (N, 3, H, W) → logits; copied to the CPU, its memory format as it is.
        preprocess: between the decoded image and the network.
        threads: of one operator; None leaves torch's own choice.
    """

    name = "torch eager"
    runtime = "torch"
    precision = "fp32"
    provider = "CPU"

    def __init__(self, model: nn.Module, preprocess: Preprocess, threads: int | None = None) -> None:
        self._model = ResizedLogits(deployable(model)).eval()
        self._preprocess = preprocess
        self._threads = threads

    def prepare(self, encoded: bytes) -> Mapping[str, Query]:
        """The three scopes on one encoded image."""
        image = self._resized(read_image(encoded, self._preprocess.value_range))
        tensor = torch.from_numpy(self._preprocess.normalise(image))
        return {
            MODEL: partial(self._from_tensor, tensor),
            TRANSFER: partial(self._from_image, image),
            END_TO_END: partial(self._from_bytes, encoded),
        }

    def segment(self, encoded: bytes) -> Mask:
        """Mask uint8 (H, W) at the source size of an encoded image: what ``end_to_end`` computes."""
        mask, _ = self._staged(encoded)
        return mask

    def _resized(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return image if self._preprocess.size is None else resize_image(image, self._preprocess.size)

    def _from_tensor(self, tensor: Tensor) -> Mapping[str, float]:
        with _inference(self._threads):
            _ids(self._model(tensor))
        return {}

    def _from_image(self, image: npt.NDArray[np.uint8]) -> Mapping[str, float]:
        with _inference(self._threads):
            _ids(self._model(torch.from_numpy(self._preprocess.normalise(image)))).numpy()
        return {}

    def _from_bytes(self, encoded: bytes) -> Mapping[str, float]:
        _, stages = self._staged(encoded)
        return stages

    def _staged(self, encoded: bytes) -> tuple[Mask, dict[str, float]]:
        clock = [time.perf_counter_ns()]
        image = read_image(encoded, self._preprocess.value_range)
        clock.append(time.perf_counter_ns())
        tensor = torch.from_numpy(self._preprocess.normalise(self._resized(image)))
        clock.append(time.perf_counter_ns())
        with _inference(self._threads):
            logits = self._model(tensor)
            clock.append(time.perf_counter_ns())
            if logits.shape[-2:] != image.shape[:2]:
                logits = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
            mask: Mask = _ids(logits)[0].numpy()
        clock.append(time.perf_counter_ns())
        spent = np.diff(np.array(clock, dtype=np.int64)) / 1e6
        return mask, dict(zip(("decode", "preprocess", "infer", "mask"), spent.tolist(), strict=True))


def _ids(logits: Tensor) -> Tensor:
    return logits.argmax(dim=1).to(torch.uint8)


@contextmanager
def _inference(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is not None and threads != before:
        torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def export_naive(model: nn.Module, path: Path, shape: Shape = DYNAMIC) -> None:
    """Write the file of the naive path: ``torch.onnx.export`` of the network and nothing else.

    ``image`` float32 (N, 3, H, W), normalised by the caller → ``logits`` float32 (N, C, H, W).

    Raises:
        ModelError: when the network cannot be exported.
    """
    plain_export(model, path, shape)
