"""The segmenter: a decoded image in, the mask of class ids at its source size out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.preprocess import Preprocess, ValueRange, window
from dropclass_deploy.data.images import read_image, resize_image
from dropclass_deploy.serving.artifact import Artifact, open_artifact
from dropclass_deploy.serving.logits_resize import logits_to_mask
from dropclass_deploy.serving.runtimes import Runtime, TensorSpec, open_runtime

Image = npt.NDArray[np.uint8]
AnyImage = npt.NDArray[Any]
Mask = npt.NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True)
class Segmentation:
    """One result.

    Attributes:
        mask: uint8 (H, W) of class ids, at the image's source size.
        class_names: by class id.
        latency_ms: by stage: "decode" (only for encoded bytes), "preprocess", "infer", "mask".
    """

    mask: Mask
    class_names: tuple[str, ...]
    latency_ms: dict[str, float]


class Segmenter:
    """Runs an artifact; safe to call from several threads at once.

    The mask at source size comes from the logits, never from stretching a small mask: an image of the network's own size
    goes through ``models/model.mask.onnx``; any other is resized, goes through ``models/model.onnx``, and the logits are
    resized to the source size before the argmax.

    Attributes:
        artifact: the checked artifact folder.
    """

    def __init__(
        self, artifact: Artifact, runtime: str = "auto", threads: int | None = None, *, allow_fallback: bool = False
    ) -> None:
        self.artifact = artifact
        self._choice = (runtime, threads, allow_fallback)
        self._lock = threading.Lock()
        self._logits_runtime: Runtime | None = None
        self.mask_runtime = self._open(artifact.mask_model)
        self._mask_input = _only(self.mask_runtime.inputs, "uint8", 4, artifact.mask_model)
        self._mask_output = _only(self.mask_runtime.outputs, "uint8", 3, artifact.mask_model)
        self._fixed = _fixed_size(artifact, self._mask_input.shape[1:3])

    @classmethod
    def load(cls, path: str | Path, runtime: str = "auto", threads: int | None = None) -> Self:
        """Open an artifact folder and its network.

        Args:
            path: of the artifact.
            runtime: one of ``serving.runtimes.runtime_names()``.
            threads: of one operator; None leaves the choice to the runtime.

        Raises:
            ArtifactError: when the artifact is incomplete, changed, or holds networks of another layout.
            UserError: for an unknown runtime. MissingExtraError: when its library is not installed.
        """
        return cls(open_artifact(path), runtime, threads)

    @property
    def classes(self) -> ClassTable:
        """Names, colours, rare classes."""
        return self.artifact.classes

    @property
    def preprocess(self) -> Preprocess:
        """What happens between a decoded image and the network."""
        return self.artifact.preprocess

    @property
    def provider(self) -> str:
        """The execution provider that really runs the network."""
        return self.mask_runtime.provider

    @property
    def precision(self) -> str:
        """Of the mask network, as read from its graph."""
        return self.mask_runtime.precision

    def __call__(self, image: AnyImage, *, size: Size | None = None) -> Segmentation:
        """Segment one image.

        Args:
            image: uint8 (H, W, 3), RGB, taken as it is; or raw values (H, W) of any integer or float type, which the
                artifact's ``preprocess.value_range`` turns into such an image.
            size: (height, width) of the mask; the image's own by default.

        Raises:
            UserError: when ``image`` is anything else, raw values hold NaN or the artifact has no value range for them, or
                the network refuses its size.
        """
        latency_ms: dict[str, float] = {}
        mask = self._segment(_checked(image, self.preprocess.value_range), size, latency_ms)
        return Segmentation(mask, self.classes.names, latency_ms)

    def segment_bytes(self, data: bytes) -> Segmentation:
        """Decode an image file's bytes (PNG, JPEG …) under the artifact's value range and segment it.

        Raises:
            DataError: when the bytes are no image, or one that ``data.read_image`` refuses under this range.
        """
        latency_ms: dict[str, float] = {}
        with _timed(latency_ms, "decode"):
            image = self.read_image(data)
        mask = self._segment(image, None, latency_ms)
        return Segmentation(mask, self.classes.names, latency_ms)

    def read_image(self, source: Path | bytes) -> Image:
        """Decode an image file as this artifact wants it: uint8 (H, W, 3), RGB, raw values of one channel windowed.

        Raises:
            DataError: as ``data.read_image``.
        """
        return read_image(source, self.preprocess.value_range)

    def network_image(self, image: Image) -> Image:
        """The image at the size at which the network sees it: uint8 (h, w, 3)."""
        height, width = (fixed or own for fixed, own in zip(self._fixed or (None, None), image.shape[:2], strict=True))
        return image if image.shape[:2] == (height, width) else resize_image(image, (height, width))

    def network_mask(self, image: Image) -> Mask:
        """What ``models/model.mask.onnx`` gives for an image of the network's size: uint8 (h, w)."""
        return self._run_mask(self.mask_feeds(image))

    def network_logits(self, image: Image) -> npt.NDArray[np.float32]:
        """What ``models/model.onnx`` gives for an image of the network's size: float32 (C, h', w')."""
        return self._run_logits(self._logits_feeds(image))

    def mask_feeds(self, image: Image) -> dict[str, npt.NDArray[Any]]:
        """The mask network's input for an image of its size; a static batch is filled by repetition."""
        return {self._mask_input.name: _batch(image[None], self._mask_input)}

    def close(self) -> None:
        """Let the networks go."""
        self.mask_runtime.close()
        if self._logits_runtime is not None:
            self._logits_runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _segment(self, image: AnyImage, size: Size | None, latency_ms: dict[str, float]) -> Mask:
        target = size or (image.shape[0], image.shape[1])
        with _timed(latency_ms, "preprocess"):
            resized = self.network_image(_in_8_bits(image, self.preprocess.value_range))
            direct = resized.shape[:2] == target
            feeds = self.mask_feeds(resized) if direct else self._logits_feeds(resized)
        if direct:
            with _timed(latency_ms, "infer"), _size_named(resized):
                mask = self._run_mask(feeds)
            with _timed(latency_ms, "mask"):
                return np.ascontiguousarray(mask)
        with _timed(latency_ms, "infer"), _size_named(resized):
            logits = self._run_logits(feeds)
        with _timed(latency_ms, "mask"):
            return logits_to_mask(logits, target)

    def _run_mask(self, feeds: dict[str, npt.NDArray[Any]]) -> Mask:
        mask: Mask = self.mask_runtime.run(feeds)[self._mask_output.name][0]
        return mask

    def _run_logits(self, feeds: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        runtime = self.logits_runtime
        logits: npt.NDArray[np.float32] = runtime.run(feeds)[runtime.outputs[0].name][0]
        return logits

    def _logits_feeds(self, image: Image) -> dict[str, npt.NDArray[Any]]:
        spec = self.logits_runtime.inputs[0]
        return {spec.name: _batch(self.preprocess.normalise(image), spec)}

    @property
    def logits_runtime(self) -> Runtime:
        """The network up to its logits; opened when it is first needed."""
        with self._lock:
            if self._logits_runtime is None:
                self._logits_runtime = self._open_logits()
            return self._logits_runtime

    def _open_logits(self) -> Runtime:
        path = self.artifact.logits_model
        runtime = self._open(path)
        _only(runtime.inputs, "float32", 4, path)
        output = _only(runtime.outputs, "float32", 4, path)
        channels = output.shape[1]
        if channels not in (None, len(self.classes)):
            raise ArtifactError(
                f"{path} has {channels} logits a pixel", expected=f"{len(self.classes)}, one a class of the manifest"
            )
        return runtime

    def _open(self, path: Path) -> Runtime:
        runtime, threads, allow_fallback = self._choice
        return open_runtime(path, runtime, threads, allow_fallback=allow_fallback)


@contextmanager
def _size_named(image: Image) -> Iterator[None]:
    """A network that refuses its input nearly always refuses the size: say which one it was."""
    try:
        yield
    except UserError as error:
        height, width = image.shape[:2]
        raise UserError(
            f"the network cannot take an image of {width}×{height} pixels ({error.found})",
            expected="a size it was made for; networks of stride 32 need at least 32 pixels a side",
            remedy="leave the image out, or resize it",
        ) from error


@contextmanager
def _timed(latency_ms: dict[str, float], stage: str) -> Iterator[None]:
    started = perf_counter_ns()
    yield
    latency_ms[stage] = (perf_counter_ns() - started) / 1e6


def _checked(image: AnyImage, value_range: ValueRange | None) -> AnyImage:
    expected = "a uint8 NumPy array (height, width, 3), RGB, not empty"
    if value_range is not None:
        expected += ", or raw values (height, width) of any integer or float type"
    if not isinstance(image, np.ndarray):
        raise UserError(f"the image is a {type(image).__name__}", expected=expected)
    if _is_rgb(image) or (_is_raw(image) and value_range is not None):
        return image
    raise UserError(
        f"the image is {image.dtype} of shape {image.shape}",
        expected=expected,
        remedy="one channel needs an artifact whose preprocessing has a value_range" if _is_raw(image) else "",
    )


def _is_rgb(image: AnyImage) -> bool:
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0


def _is_raw(image: AnyImage) -> bool:
    return image.dtype.kind in "iuf" and image.ndim == 2 and image.size > 0


def _in_8_bits(image: AnyImage, value_range: ValueRange | None) -> Image:
    """A checked image as RGB: raw values windowed, anything else as it is."""
    return image if image.ndim == 3 or value_range is None else window(image, value_range)


def _batch(single: npt.NDArray[Any], spec: TensorSpec) -> npt.NDArray[Any]:
    count = spec.shape[0] or 1
    return np.ascontiguousarray(single if count == 1 else np.repeat(single, count, axis=0))


def _only(specs: tuple[TensorSpec, ...], dtype: str, rank: int, path: Path) -> TensorSpec:
    """The single tensor of an artifact's network, of the type and rank of the artifact format."""
    if len(specs) != 1 or specs[0].dtype != dtype or len(specs[0].shape) != rank:
        found = ", ".join(str(spec) for spec in specs)
        raise ArtifactError(f"{path} has {found}", expected=f"one {dtype} tensor with {rank} dimensions")
    return specs[0]


def _fixed_size(artifact: Artifact, static: tuple[int | None, ...]) -> tuple[int | None, int | None] | None:
    """Height and width that every image is brought to; None where each image keeps its own.

    Raises:
        ArtifactError: when the preprocessing and the network's static input disagree.
    """
    size = artifact.preprocess.size
    if size is None:
        return (static[0], static[1]) if any(static) else None
    if any(given not in (None, wanted) for given, wanted in zip(static, size, strict=True)):
        raise ArtifactError(
            f"{artifact.mask_model} takes images of {static[0]}x{static[1]} and the preprocessing makes {size[0]}x{size[1]}",
            expected="the same size",
            remedy="export the run again",
        )
    return size
