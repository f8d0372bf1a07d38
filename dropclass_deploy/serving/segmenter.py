"""The segmenter: a decoded image in, the mask of class ids at its source size out."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.model_files import DENSE, LOGITS, model_file
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import central_window
from dropclass_deploy.data.images import ImageLimits, read_image
from dropclass_deploy.serving.artifact import Artifact, open_artifact
from dropclass_deploy.serving.auto.choice import DEFAULT, Configuration, judged_runtime, stored_choice
from dropclass_deploy.serving.images_given import AnyImage, checked_image, checked_size, in_8_bits
from dropclass_deploy.serving.network_file import network_file
from dropclass_deploy.serving.network_size import NetworkSize
from dropclass_deploy.serving.networks import LogitsNetwork, MaskNetwork, fixed_size
from dropclass_deploy.serving.runtimes import Runtime, open_runtime
from dropclass_deploy.serving.runtimes.registry import AUTO
from dropclass_deploy.serving.segmentation import Mask, Segmentation
from dropclass_deploy.serving.stages import timed
from dropclass_deploy.serving.whole_images import alike, masks_from_logits, masks_of_mask_network
from dropclass_deploy.serving.windows import segment_windows

Image = npt.NDArray[np.uint8]
Size = tuple[int, int]
Network = TypeVar("Network", MaskNetwork, LogitsNetwork)


class Segmenter:
    """Runs an artifact; safe to call from several threads at once.

    The mask at source size comes from the logits, never from stretching a small mask: an image of the network's own size
    goes through the mask file (``models/model.mask.onnx``); any other is resized, goes through the logits file of the same
    precision (``models/model.onnx``), and the logits are resized to the source size before the argmax. Where the
    preprocessing has a window, the logits file runs window by window, unless the image is exactly one window.

    Attributes:
        artifact: the checked artifact folder.
        mask_file: path of the mask network below it.
        logits_file: path of the network that gives logits; opened when it is first needed, and then it must be there.
        configuration: what was asked for, or chosen; the runtime has the name that opens it again.
        stored_choice: whether ``dropclass auto`` chose the configuration.
    """

    def __init__(
        self,
        artifact: Artifact,
        runtime: str = "auto",
        threads: int | None = None,
        *,
        precision: str = "fp32",
        head: str = DENSE,
        allow_fallback: bool = False,
    ) -> None:
        if head == LOGITS:
            raise UserError("the head 'logits' gives no mask", expected="'dense' or 'sparse'")
        self.artifact = artifact
        self.mask_file, self.logits_file = model_file(head, precision), model_file(LOGITS, precision)
        self._file_precision = precision
        self._choice = (runtime, threads, allow_fallback)
        self._lock = threading.Lock()
        self._closed = False
        self._logits: LogitsNetwork | None = None
        self.stored_choice = False
        self._mask = self._opened(head, MaskNetwork)
        with ExitStack() as undo:
            undo.callback(self.close)
            opened = self.mask_runtime.name if runtime == AUTO else runtime
            self.configuration = Configuration(runtime=opened, precision=precision, head=head, threads=threads)
            static = self._mask.input.size
            self._size = NetworkSize(fixed_size(artifact.preprocess, static, artifact.folder / self.mask_file))
            if artifact.preprocess.window is not None:
                # Better found now than at the first large image.
                logits = self._logits_network.input.size
                fixed_size(artifact.preprocess, logits, artifact.folder / self.logits_file)
            undo.pop_all()

    @classmethod
    def load(
        cls,
        path: str | Path,
        runtime: str = "auto",
        threads: int | None = None,
        *,
        precision: str | None = None,
        head: str | None = None,
    ) -> Self:
        """Open an artifact folder and its network.

        Args:
            path: of the artifact.
            runtime: one of ``serving.runtimes.runtime_names()``. "auto", with nothing else named, takes what ``dropclass
                auto`` found to be the fastest to pass the gate on such a machine, else (or where that cannot be run any
                more) float32 on ONNX Runtime.
            threads: of one operator; None leaves the choice to the runtime.
            precision: of the network file, one of ``core.model_files.PRECISIONS``; default "fp32".
            head: of the mask network, "dense" (the default) or "sparse".

        Raises:
            ArtifactError: when the artifact is incomplete, changed, holds networks of another layout, or has no file of
                this precision and head.
            UserError: for an unknown runtime, precision or head. MissingExtraError: when the runtime's library is not
                installed.
        """
        artifact = open_artifact(path)
        if runtime == AUTO and threads is None and precision is None and head is None:
            return cls._chosen(artifact)
        if runtime == AUTO and precision not in (None, DEFAULT.precision):
            runtime = judged_runtime(artifact, precision, head or DEFAULT.head) or DEFAULT.runtime
        return cls(artifact, runtime, threads, precision=precision or DEFAULT.precision, head=head or DEFAULT.head)

    @classmethod
    def _chosen(cls, artifact: Artifact) -> Self:
        """With the stored choice, or the default where there is none or this machine cannot run it any more."""
        found = stored_choice(artifact)
        if found is not None:
            with suppress(UserError):
                segmenter = cls(artifact, found.runtime, found.threads, precision=found.precision, head=found.head)
                segmenter.stored_choice = True
                return segmenter
        return cls(artifact, DEFAULT.runtime, DEFAULT.threads, precision=DEFAULT.precision, head=DEFAULT.head)

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

    @property
    def mask_runtime(self) -> Runtime:
        """The network up to its mask."""
        return self._mask.runtime

    def __call__(self, image: AnyImage, *, size: Size | None = None) -> Segmentation:
        """Segment one image.

        Args:
            image: uint8 (H, W, 3), RGB, taken as it is; or raw values (H, W) of any integer or float type, which the
                artifact's ``preprocess.value_range`` turns into such an image.
            size: (height, width) of the mask; the image's own by default.

        Raises:
            UserError: when ``image`` is anything else, raw values hold NaN or the artifact has no value range for them,
                ``size`` is none that a mask can have, the network refuses the image's size, or the segmenter is closed.
        """
        latency_ms: dict[str, float] = {}
        checked = checked_image(image, self.preprocess.value_range)
        mask = self._segment([checked], None if size is None else checked_size(size), latency_ms)[0]
        return Segmentation(mask, self.classes.names, latency_ms)

    def segment_batch(self, images: Sequence[AnyImage]) -> list[Segmentation]:
        """Segment images of any sizes, those that make one batch for the network (see ``batch_key``) together.

        Returns:
            Results in the images' order. A batch may round differently: near a tie of two classes a pixel can differ.

        Raises:
            UserError: as for a single image; none of the images then has a result.
        """
        checked = [checked_image(image, self.preprocess.value_range) for image in images]
        results: dict[int, Segmentation] = {}
        for members in alike([self.batch_key(image) for image in checked]):
            latency_ms: dict[str, float] = {}
            masks = self._segment([checked[index] for index in members], None, latency_ms)
            for index, mask in zip(members, masks, strict=True):
                results[index] = Segmentation(mask, self.classes.names, dict(latency_ms))
        return [results[index] for index in range(len(images))]

    def batch_key(self, image: AnyImage) -> Hashable:
        """Equal for images that the network can run on together."""
        height, width = image.shape[:2]
        seen = self._size.of((height, width))
        return seen, seen == (height, width)

    def segment_bytes(self, data: bytes) -> Segmentation:
        """Decode an image file's bytes (PNG, JPEG …) under the artifact's value range and segment it.

        Raises:
            DataError: when the bytes are no image, or one that ``data.read_image`` refuses under this range.
        """
        latency_ms: dict[str, float] = {}
        with timed(latency_ms, "decode"):
            image = self.read_image(data)
        mask = self._segment([image], None, latency_ms)[0]
        return Segmentation(mask, self.classes.names, latency_ms)

    def read_image(self, source: Path | bytes, limits: ImageLimits | None = None) -> Image:
        """Decode an image file as this artifact wants it: uint8 (H, W, 3), RGB, raw values of one channel windowed.

        Raises:
            DataError: as ``data.read_image``.
        """
        return read_image(source, self.preprocess.value_range, limits or ImageLimits())

    def network_image(self, image: Image) -> Image:
        """The image at the size at which the network sees it, uint8 (h, w, 3); with a window: the one in its middle."""
        resized, window = self._size.resized(image), self.preprocess.window
        if window is None or resized.shape[:2] == window.size:
            return resized
        return central_window(resized, window, self.preprocess.mean)

    def network_mask(self, image: Image) -> Mask:
        """What the mask file gives for an image of the network's size, whatever its layout: uint8 (h, w)."""
        return self._mask.mask(self._mask.run(self.mask_feeds(image), image.shape[:2]))

    def network_logits(self, image: Image) -> npt.NDArray[np.float32]:
        """What the logits file gives for an image of the network's size: float32 (C, h', w')."""
        network = self._logits_network
        logits: npt.NDArray[np.float32] = network.run(network.feeds(image[None]))[0]
        return logits

    def mask_feeds(self, image: Image) -> dict[str, npt.NDArray[Any]]:
        """The mask network's input for an image of its size; a static batch is filled by repetition."""
        return self._mask.feeds(image)

    def close(self) -> None:
        """Let the networks go; a closed segmenter refuses images."""
        with self._lock:
            self._closed, logits = True, self._logits
        self.mask_runtime.close()
        if logits is not None:
            logits.runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _segment(self, images: Sequence[AnyImage], size: Size | None, latency_ms: dict[str, float]) -> list[Mask]:
        """Masks of images of one batch key, at ``size`` or their own."""
        self._check_open()
        targets = [(image.shape[0], image.shape[1]) if size is None else size for image in images]
        with timed(latency_ms, "preprocess"):
            resized = [self._size.resized(in_8_bits(image, self.preprocess.value_range)) for image in images]
        window, shape = self.preprocess.window, resized[0].shape[:2]
        try:
            if window is not None and shape != window.size:
                network = self._logits_network
                return [
                    segment_windows(image, window, network, self.preprocess, target, latency_ms)
                    for image, target in zip(resized, targets, strict=True)
                ]
            if all(target == shape for target in targets):
                return masks_of_mask_network(self._mask, resized, latency_ms)
            return masks_from_logits(self._logits_network, resized, targets, latency_ms)
        except UserError:
            # Closed by another thread meanwhile: the network's refusal would be blamed on the image.
            self._check_open()
            raise

    @property
    def _logits_network(self) -> LogitsNetwork:
        with self._lock:
            self._check_open()
            if self._logits is None:
                self._logits = self._opened(LOGITS, LogitsNetwork)
            return self._logits

    def _opened(self, head: str, kind: type[Network]) -> Network:
        runtime, threads, allow_fallback = self._choice
        # Before any runtime sees the file: what it asks for is not the runtime's to refuse.
        path = network_file(self.artifact, head, self._file_precision)
        with ExitStack() as undo:
            opened = undo.enter_context(open_runtime(path, runtime, threads, allow_fallback=allow_fallback))
            network = kind(opened, path, self.preprocess, len(self.classes))
            undo.pop_all()
        return network

    def _check_open(self) -> None:
        if self._closed:
            raise UserError("the segmenter is closed", remedy="load it again before using it")
