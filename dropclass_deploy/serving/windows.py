"""Large images through windows: the logits file of an artifact, run as ``preprocess.window`` says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import WINDOWS_AT_ONCE, Window, blended_rows
from dropclass_deploy.serving.logits_resize import argmax_of_classes, logits_to_mask
from dropclass_deploy.serving.networks import LogitsNetwork
from dropclass_deploy.serving.stages import size_named, timed

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def segment_windows(
    image: Image,
    window: Window,
    network: LogitsNetwork,
    preprocess: Preprocess,
    target: tuple[int, int],
    latency_ms: dict[str, float],
) -> Mask:
    """Mask uint8 of ``target`` = (height, width) of an image uint8 (H, W, 3).

    At the image's own size the logits exist only for the rows that windows still reach, float32 (C, window's height, W);
    for another size all of them, (C, H, W), are held and resized before the argmax.

    Args:
        image: as resized to ``preprocess.size``.
        window: what slides over it.
        network: takes images of the window's size.
        preprocess: normalises each window.
        target: size of the mask.
        latency_ms: the time goes to "preprocess", "infer" and "mask", summed over all windows.
    """

    def _normalised(pixels: Image) -> Floats:
        with timed(latency_ms, "preprocess"):
            return preprocess.normalise(pixels)

    def _inferred(planes: Floats) -> Floats:
        with timed(latency_ms, "infer"), size_named(planes.shape[2:]):
            return network.run_planes(planes)

    # Stages in the order in which a reader expects them.
    latency_ms.setdefault("infer", 0.0)
    with timed(latency_ms, "mask"), np.errstate(invalid="ignore", over="ignore"):
        strips = blended_rows(image, window, _normalised, _inferred, network.input.batch or WINDOWS_AT_ONCE)
        if image.shape[:2] == target:
            return np.concatenate([argmax_of_classes(strip) for strip in strips])
        return logits_to_mask(np.concatenate(list(strips), axis=1), target)
