"""The naive path as a contender: what a first working deployment usually looks like."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.images import read_image, resize_image
from dropclass_deploy.serving.benchmark.contender import END_TO_END, MODEL, TRANSFER, Query
from dropclass_deploy.serving.logits_resize import logits_to_mask
from dropclass_deploy.serving.runtimes import open_runtime

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
STAGES = ("decode", "preprocess", "infer", "mask")


class NaiveOnnx:
    """A plain ONNX file (normalised floats in, logits out) in ONNX Runtime, with NumPy before and after.

    Decode, ``(x / 255 − mean) / std`` in float32, run, ``argmax(axis=1)``. Where the network has a fixed size, the logits
    are resized to the source size as the artifact's are, so that both make the same product.

    Args:
        path: of the ONNX file, image float32 (N, 3, H, W) → logits float32 (N, C, H, W).
        preprocess: the artifact's.
        threads: of one operator; give every contender the same.

    Raises:
        UserError: when the file has another layout.
    """

    name = "naive"

    def __init__(self, path: str | Path, preprocess: Preprocess, threads: int | None = None) -> None:
        self._runtime = open_runtime(path, "onnxruntime", threads)
        self._preprocess = preprocess
        self.runtime = self._runtime.name
        self.precision = self._runtime.precision
        self.provider = self._runtime.provider
        specs = (*self._runtime.inputs, *self._runtime.outputs)
        if len(specs) != 2 or any(spec.dtype != "float32" or len(spec.shape) != 4 for spec in specs):
            self._runtime.close()
            raise UserError(
                f"{path} has the tensors {', '.join(map(str, specs))}",
                expected="one image float32 (N, 3, H, W) and one output of logits float32 (N, C, H, W)",
            )
        self._image, self._logits = specs

    def prepare(self, encoded: bytes) -> Mapping[str, Query]:
        """The three scopes on one encoded image."""
        image = self._resized(read_image(encoded, self._preprocess.value_range))
        planes = self._normalised(image)
        return {
            MODEL: partial(self._from_planes, planes),
            TRANSFER: partial(self._from_image, image),
            END_TO_END: partial(self._from_bytes, encoded),
        }

    def segment(self, encoded: bytes) -> Mask:
        """The mask at source size, uint8 (H, W): what ``end_to_end`` computes."""
        return self._staged(encoded)[0]

    def close(self) -> None:
        """Let the network go."""
        self._runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _from_planes(self, planes: Floats) -> Mapping[str, float]:
        _ids(self._run(planes))
        return {}

    def _from_image(self, image: Image) -> Mapping[str, float]:
        _ids(self._run(self._normalised(image)))
        return {}

    def _from_bytes(self, encoded: bytes) -> Mapping[str, float]:
        return self._staged(encoded)[1]

    def _staged(self, encoded: bytes) -> tuple[Mask, dict[str, float]]:
        clock = [perf_counter_ns()]
        image = read_image(encoded, self._preprocess.value_range)
        clock.append(perf_counter_ns())
        planes = self._normalised(self._resized(image))
        clock.append(perf_counter_ns())
        logits = self._run(planes)
        clock.append(perf_counter_ns())
        size = (image.shape[0], image.shape[1])
        mask = _ids(logits)[0] if logits.shape[2:] == size else logits_to_mask(logits[0], size)
        clock.append(perf_counter_ns())
        spent = np.diff(np.array(clock, dtype=np.int64)) / 1e6
        return mask, dict(zip(STAGES, spent.tolist(), strict=True))

    def _resized(self, image: Image) -> Image:
        wanted = self._preprocess.size or self._image.shape[2:4]
        height, width = (fixed or own for fixed, own in zip(wanted, image.shape[:2], strict=True))
        return resize_image(image, (height, width))

    def _normalised(self, image: Image) -> Floats:
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self._preprocess.mean, self._preprocess.std))
        values = (image.astype(np.float32) / np.float32(255) - mean) / std
        planes = np.ascontiguousarray(values.transpose(2, 0, 1)[None])
        return np.repeat(planes, self._image.shape[0] or 1, axis=0)

    def _run(self, planes: Floats) -> npt.NDArray[Any]:
        return self._runtime.run({self._image.name: planes})[self._logits.name]


def _ids(logits: npt.NDArray[Any]) -> Mask:
    mask: Mask = logits.argmax(axis=1).astype(np.uint8)
    return mask
