"""The two sides of a comparison: who makes the masks, image by image, at the size of the label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from dropclass_deploy.core.errors import ArtifactError, DataError
from dropclass_deploy.data.images import array_digest, read_mask
from dropclass_deploy.serving.artifact import Artifact
from dropclass_deploy.serving.logits_resize import logits_to_mask
from dropclass_deploy.serving.segmenter import Segmenter

Ids = npt.NDArray[np.integer[Any]]
Image = npt.NDArray[np.uint8]
MaskFunction = Callable[[Image], Ids]

REFERENCE_INDEX = "reference/index.json"
NOT_FINITE = "NaN or infinity in the logits of"
OTHER_LABEL = "the label is not the one that stood beside the stored reference mask"
STRETCHED = "its masks were enlarged by nearest neighbour, because it gives no logits and not the size of the label:"


@dataclass(frozen=True)
class Sample:
    """One image of the comparison: its name, uint8 (H, W, 3) RGB, and its label of class ids (h, w)."""

    key: str
    image: Image
    label: Ids


@dataclass(frozen=True)
class Prediction:
    """What one side gives for one image.

    Attributes:
        mask: class ids at the label's size.
        problems: what makes the gate fail whatever the figures say, as the beginning of a sentence.
        notes: what a reader should know.
        logits_differing: pixels at which the argmax of the logits file is not the mask file's mask.
        logits_pixels: pixels at which that was looked at.
    """

    mask: Ids
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    logits_differing: int = 0
    logits_pixels: int = 0


class Side(Protocol):
    """The reference or the candidate."""

    title: str

    def predict(self, sample: Sample) -> Prediction:
        """The mask of one image at the size of its label."""
        ...


FIRST, EVERY = 8, 4
"""An artifact's logits file is held against its mask file on the first images and on every fourth one: the two are one
graph with two ends, and to run both on every image would make the gate twice as long as the evaluation of the artifact."""


class ArtifactSide:
    """An artifact through the ``Segmenter``, with its logits file held against its mask file now and then."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._count = 0
        self.title = segmenter.mask_file

    def predict(self, sample: Sample) -> Prediction:
        """The segmenter's mask; a logit that is not finite is a problem."""
        size = (sample.label.shape[0], sample.label.shape[1])
        mask = self._segmenter(sample.image, size=size).mask
        self._count += 1
        if self._count > FIRST and self._count % EVERY:
            return Prediction(mask)
        resized = self._segmenter.network_image(sample.image)
        own = mask if resized.shape[:2] == size else self._segmenter.network_mask(resized)
        logits = self._segmenter.network_logits(resized)
        problems = () if np.isfinite(logits).all() else (f"{NOT_FINITE} {self._segmenter.logits_file}",)
        differing = int(np.count_nonzero(logits_to_mask(logits, own.shape) != own))
        return Prediction(mask, problems, (), differing, int(own.size))


class FunctionSide:
    """Any function image uint8 (H, W, 3) → class ids (H, W), such as a PyTorch network."""

    def __init__(self, function: MaskFunction, title: str = "PyTorch") -> None:
        self._function = function
        self.title = title

    def predict(self, sample: Sample) -> Prediction:
        """The function's mask, which must have the label's size."""
        return Prediction(_of_size(np.asarray(self._function(sample.image)), sample, self.title))


class _StoredMask(BaseModel):
    label: str
    file: str


class _Index(BaseModel):
    masks: dict[str, _StoredMask]


class StoredReference:
    """The PyTorch network's masks that were stored in the artifact at export, found by the image's digest.

    Args:
        artifact: checked against its manifest.
        fallback: asked for an image without a stored mask; without it such an image is an ArtifactError.
    """

    def __init__(self, artifact: Artifact, fallback: FunctionSide | None = None) -> None:
        self._artifact = artifact
        self._fallback = fallback
        self._masks = _stored_masks(artifact)
        self.title = "PyTorch masks stored in reference/" if self._masks or fallback is None else fallback.title

    def predict(self, sample: Sample) -> Prediction:
        """The stored mask; another label than at export is a problem."""
        stored = self._masks.get(array_digest(sample.image))
        if stored is None:
            return self._ask(sample)
        mask = read_mask(self._artifact.folder / stored.file)
        same = stored.label == array_digest(sample.label)
        return Prediction(_of_size(mask, sample, self.title), () if same else (OTHER_LABEL,))

    def _ask(self, sample: Sample) -> Prediction:
        if self._fallback is None:
            raise ArtifactError(
                f"{self._artifact.folder} has no reference mask for image {sample.key}",
                expected="masks of the PyTorch model on these data",
                remedy="export again with --data naming them, or compare two files with --reference and --candidate",
            )
        return self._fallback.predict(sample)


def _stored_masks(artifact: Artifact) -> Mapping[str, _StoredMask]:
    """The index by image digest; empty when the artifact was exported without references.

    Only files whose hash stands in the manifest are taken: the index cannot point anywhere else.
    """
    if REFERENCE_INDEX not in artifact.manifest.files:
        return {}
    path = artifact.folder / REFERENCE_INDEX
    try:
        masks = _Index.model_validate_json(path.read_bytes()).masks
    except ValidationError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.errors()[0]['msg']}", remedy="export the run again"
        ) from error
    foreign = [item.file for item in masks.values() if item.file not in artifact.manifest.files]
    if foreign:
        raise ArtifactError(
            f"{path} names {foreign[0]!r}", expected="files of the manifest", remedy="export the run again"
        )
    return masks


def _of_size(mask: Ids, sample: Sample, title: str) -> Ids:
    if mask.shape != sample.label.shape:
        raise DataError(
            f"the mask of {title} for image {sample.key} has shape {mask.shape}",
            expected=f"the label's {sample.label.shape}",
        )
    return mask
