"""Any ONNX segmentation network as one side of a comparison.

Taken are an image float32 or float16 (N, 3, H, W), normalised outside, or uint8 (N, H, W, 3), with logits (N, C, h, w) or
a mask of integer ids (N, H, W), (N, 1, H, W) or (N, H, W, 1) as output, under any tensor names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.images import resize_image
from dropclass_deploy.serving.logits_resize import logits_to_mask
from dropclass_deploy.serving.parity.sides import NOT_FINITE, STRETCHED, Prediction, Sample
from dropclass_deploy.serving.runtimes import Runtime, TensorSpec

FLOAT_INPUTS = ("float32", "float16")
FLOATS = ("float32", "float16", "float64")
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
UNKNOWN_RANK = 0

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """Which tensors of a network are used, and how.

    Attributes:
        image: the input.
        output: logits or mask.
        takes_bytes: uint8 NHWC with the normalisation inside, else normalised NCHW floats.
        gives_logits: else class ids.
    """

    image: TensorSpec
    output: TensorSpec
    takes_bytes: bool
    gives_logits: bool

    @property
    def fixed(self) -> tuple[int | None, int | None]:
        """Static height and width of the input, None where dynamic."""
        height, width = self.image.shape[1:3] if self.takes_bytes else self.image.shape[2:4]
        return height, width


def layout_of(runtime: Runtime, title: str) -> Layout:
    """Find image input and mask or logits output.

    Raises:
        UserError: saying what the network has and what is taken.
    """
    if len(runtime.inputs) != 1:
        raise UserError(f"{title} has {len(runtime.inputs)} inputs ({_list(runtime.inputs)})", expected="one image")
    image = runtime.inputs[0]
    takes_bytes = image.dtype == "uint8" and len(image.shape) == 4 and image.shape[3] in (3, None)
    if not takes_bytes and not (image.dtype in FLOAT_INPUTS and len(image.shape) == 4 and image.shape[1] in (3, None)):
        raise UserError(
            f"{title} has the input {image}",
            expected="an image float32 or float16 (N, 3, H, W), or uint8 (N, H, W, 3)",
        )
    logits = [item for item in runtime.outputs if item.dtype in FLOATS and len(item.shape) in (4, UNKNOWN_RANK)]
    masks = [item for item in runtime.outputs if item.dtype in INTEGERS and len(item.shape) in (3, 4, UNKNOWN_RANK)]
    if not logits and not masks:
        raise UserError(
            f"{title} has the outputs {_list(runtime.outputs)}",
            expected="float logits (N, C, H, W), or integer class ids (N, H, W)",
        )
    output = (masks or logits)[0] if takes_bytes else (logits or masks)[0]
    return Layout(image, output, takes_bytes, gives_logits=output in logits)


class NetworkSide:
    """One ONNX file.

    Args:
        runtime: the loaded file.
        title: its name in messages and in the report.
        preprocess: None is enough for a uint8 network, which carries its own.
        num_classes: C of the data.
    """

    def __init__(self, runtime: Runtime, title: str, preprocess: Preprocess | None, num_classes: int) -> None:
        self.title = title
        self._runtime = runtime
        self._layout = layout_of(runtime, title)
        self._preprocess = preprocess
        self._num_classes = num_classes

    def predict(self, sample: Sample) -> Prediction:
        """The network's mask at the label's size; logits at another size are resized before the argmax."""
        output = self._runtime.run({self._layout.image.name: self._input(sample.image)})[self._layout.output.name]
        size = (sample.label.shape[0], sample.label.shape[1])
        return self._from_logits(output, size) if self._layout.gives_logits else self._from_ids(output, size)

    def _input(self, image: Image) -> npt.NDArray[Any]:
        wanted = self._preprocess.size if self._preprocess and self._preprocess.size else self._layout.fixed
        height, width = (fixed or own for fixed, own in zip(wanted, image.shape[:2], strict=True))
        resized = resize_image(image, (height, width))
        batch = np.repeat(resized[None], self._layout.image.shape[0] or 1, axis=0)
        if self._layout.takes_bytes:
            return batch
        if self._preprocess is None:
            raise UserError(f"{self.title} takes normalised images", expected="a preprocessing")
        planes = self._preprocess.normalise(batch)
        return planes.astype(self._layout.image.dtype, copy=False)

    def _from_logits(self, output: npt.NDArray[Any], size: tuple[int, int]) -> Prediction:
        if output.ndim != 4 or output.shape[1] != self._num_classes:
            raise DataError(
                f"{self.title} gives logits of shape {output.shape}",
                expected=f"(N, {self._num_classes}, h, w), one plane a class of the data",
                remedy="name the data that the network was trained for",
            )
        problems = () if np.isfinite(output[0]).all() else (f"{NOT_FINITE} {self.title}",)
        return Prediction(logits_to_mask(output[0], size), problems)

    def _from_ids(self, output: npt.NDArray[Any], size: tuple[int, int]) -> Prediction:
        ids = _plane(output, self.title)
        if ids.size and not (ids.min() >= 0 and ids.max() < self._num_classes):
            raise DataError(
                f"{self.title} gives class ids from {ids.min()} to {ids.max()}",
                expected=f"0 … {self._num_classes - 1}, the classes of the data",
                remedy="name the data that the network was trained for",
            )
        if ids.shape == size:
            return Prediction(ids)
        return Prediction(_nearest(ids, size), notes=(f"{STRETCHED} {self.title}",))


def _plane(output: npt.NDArray[Any], title: str) -> npt.NDArray[np.integer[Any]]:
    """The first (H, W) of (N, H, W), (N, 1, H, W) or (N, H, W, 1)."""
    if output.ndim == 3 or (output.ndim == 4 and 1 in (output.shape[1], output.shape[3])):
        height, width = output.shape[2:] if output.ndim == 4 and output.shape[1] == 1 else output.shape[1:3]
        ids: npt.NDArray[np.integer[Any]] = output[0].reshape(height, width)
        return ids
    raise DataError(f"{title} gives a mask of shape {output.shape}", expected="(N, H, W), (N, 1, H, W) or (N, H, W, 1)")


def _nearest(ids: npt.NDArray[np.integer[Any]], size: tuple[int, int]) -> npt.NDArray[np.integer[Any]]:
    """Ids at another size; each pixel takes the id under its centre."""
    rows, columns = (
        np.minimum((np.arange(target) + 0.5) * (source / target), source - 1).astype(np.intp)
        for source, target in zip(ids.shape, size, strict=True)
    )
    enlarged: npt.NDArray[np.integer[Any]] = ids[np.ix_(rows, columns)]
    return enlarged


def _list(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(str(spec) for spec in specs) or "none"
