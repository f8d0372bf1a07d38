"""The two networks of an artifact behind arrays of images: the one that ends in a mask, the one that ends in logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.serving.logits_resize import resized_logits
from dropclass_deploy.serving.mask_layout import MASK_DTYPES, mask_layout
from dropclass_deploy.serving.runtimes import Runtime, TensorSpec

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Feeds = dict[str, npt.NDArray[Any]]

BYTES_INPUT = "one image uint8 (N, H, W, 3)"
FLOAT_INPUT = "one image float32 (N, 3, H, W)"


class ImageInput:
    """The image input of a network: RGB bytes with the normalisation inside, or normalised planes.

    Attributes:
        takes_bytes: uint8 (N, H, W, 3), else float32 (N, 3, H, W) normalised outside.
        size: static height and width, None where dynamic.
        batch: static N, or None.
    """

    def __init__(self, runtime: Runtime, path: Path, preprocess: Preprocess, *, may_take_bytes: bool) -> None:
        expected = f"{BYTES_INPUT}, or {FLOAT_INPUT}" if may_take_bytes else FLOAT_INPUT
        spec = _single(runtime.inputs, path, expected)
        self.takes_bytes = spec.dtype == "uint8" and may_take_bytes
        channels = 3 if self.takes_bytes else 1
        known = (self.takes_bytes or spec.dtype == "float32") and len(spec.shape) == 4
        if not known or spec.shape[channels] not in (3, None):
            raise ArtifactError(f"{path} has {spec}", expected=expected)
        self._name, self._preprocess = spec.name, preprocess
        self.size = spec.shape[1:3] if self.takes_bytes else spec.shape[2:4]
        self.batch = spec.shape[0]

    def feeds(self, images: Image) -> Feeds:
        """The network's input for images (N, h, w, 3) of its size; a static batch is filled by repeating the last."""
        return self.filled(np.ascontiguousarray(images) if self.takes_bytes else self._preprocess.normalise(images))

    def filled(self, values: npt.NDArray[Any]) -> Feeds:
        """The same of images that are as the network takes them."""
        missing = (self.batch or 0) - len(values)
        return {self._name: np.concatenate([values, *[values[-1:]] * missing]) if missing > 0 else values}


class MaskNetwork:
    """A network that ends in class ids.

    Args:
        runtime: the loaded file; closed by ``close``.
        path: of it, for messages.
        preprocess: used where the normalisation is not inside.
        num_classes: C of the class table.

    Raises:
        ArtifactError: when the file has other tensors than one image and one mask.
    """

    def __init__(self, runtime: Runtime, path: Path, preprocess: Preprocess, num_classes: int) -> None:
        self.runtime = runtime
        self.input = ImageInput(runtime, path, preprocess, may_take_bytes=True)
        expected = f"one mask of {', '.join(MASK_DTYPES)} (N, H, W), (N, H, W, 1) or (N, 1, H, W)"
        output = _single(runtime.outputs, path, expected)
        layout = mask_layout(output)
        if layout is None:
            raise ArtifactError(f"{path} has {output}", expected=expected)
        self.layout, self._output, self._num_classes = layout, output.name, num_classes

    def feeds(self, image: Image) -> Feeds:
        """The input for one image (h, w, 3) of the network's size."""
        return self.input.feeds(image[None])

    def run(self, feeds: Feeds, size: tuple[int, ...]) -> npt.NDArray[Any]:
        """The output as the network gives it. Raises ArtifactError when its mask is not of ``size`` (height, width)."""
        output: npt.NDArray[Any] = self.runtime.run(feeds)[self._output]
        found = tuple(output.shape[axis] for axis, letter in enumerate(self.layout.order) if letter in "HW")
        if found != size:
            raise ArtifactError(f"the network gives a mask of {found} for an image of {size}", expected="the same size")
        return output

    def mask(self, output: npt.NDArray[Any]) -> Mask:
        """uint8 (h, w) of the first image of what ``run`` gave."""
        return self.masks(output, 1)[0]

    def masks(self, output: npt.NDArray[Any], count: int) -> list[Mask]:
        """uint8 (h, w) of each of the first images of what ``run`` gave."""
        return list(self.layout.masks(output[:count], self._num_classes))


class LogitsNetwork:
    """A network that ends in logits: image float32 (N, 3, H, W), normalised → logits float32 (N, C, H, W).

    Raises:
        ArtifactError: when the file has other tensors, or another number of classes.
    """

    def __init__(self, runtime: Runtime, path: Path, preprocess: Preprocess, num_classes: int) -> None:
        self.runtime = runtime
        self.input = ImageInput(runtime, path, preprocess, may_take_bytes=False)
        output = _single(runtime.outputs, path, "one tensor of logits float32 (N, C, H, W)")
        if output.dtype != "float32" or len(output.shape) != 4:
            raise ArtifactError(f"{path} has {output}", expected="one tensor of logits float32 (N, C, H, W)")
        self._output, self._num_classes = output.name, num_classes
        self._check_classes(output.shape[1], str(path))

    def feeds(self, images: Image) -> Feeds:
        """The input for images (N, h, w, 3) of the network's size."""
        return self.input.feeds(images)

    def run(self, feeds: Feeds) -> Floats:
        """Logits float32 (N, C, h', w')."""
        logits: Floats = self.runtime.run(feeds)[self._output]
        self._check_classes(logits.shape[1], "the network")
        return logits

    def run_planes(self, planes: Floats) -> Floats:
        """Logits (n, C, h, w) of normalised images (n, 3, h, w), at their size."""
        logits = self.run(self.input.filled(planes))[: len(planes)]
        if logits.shape[2:] == planes.shape[2:]:
            return logits
        return np.stack([resized_logits(item, planes.shape[2:]) for item in logits])

    def _check_classes(self, channels: int | None, title: str) -> None:
        if channels not in (None, self._num_classes):
            raise ArtifactError(
                f"{title} has {channels} logits a pixel", expected=f"{self._num_classes}, one a class of the manifest"
            )


def fixed_size(
    preprocess: Preprocess, static: tuple[int | None, ...], path: Path
) -> tuple[int | None, int | None] | None:
    """Height and width that every image is brought to; None where each image keeps its own.

    Raises:
        ArtifactError: when the preprocessing and the network's static input disagree.
    """
    seen, maker = preprocess.size, "the preprocessing makes"
    if preprocess.window is not None:
        seen, maker = preprocess.window.size, "the preprocessing has windows of"
    if seen is None:
        return (static[0], static[1]) if any(static) else None
    if any(given not in (None, wanted) for given, wanted in zip(static, seen, strict=True)):
        raise ArtifactError(
            f"{path} takes images of {static[0]}x{static[1]} and {maker} {seen[0]}x{seen[1]}",
            expected="the same size",
            remedy="export the run again",
        )
    return preprocess.size


def _single(specs: tuple[TensorSpec, ...], path: Path, expected: str) -> TensorSpec:
    if len(specs) != 1:
        raise ArtifactError(f"{path} has {', '.join(map(str, specs)) or 'nothing'}", expected=expected)
    return specs[0]
