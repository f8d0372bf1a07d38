"""One artifact being served: its segmenter behind a bounded queue, and whether it is fit to answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dropclass_deploy.serving.segmenter import Segmentation, Segmenter

Image = npt.NDArray[np.uint8]


class HostedModel:
    """A model by name.

    Attributes:
        name: the artifact's folder name.
        segmenter: what runs it now; replaced after a failure.
        version: of the model, as the protocol wants one.
    """

    name: str
    segmenter: Segmenter
    version = "1"

    @property
    def ready(self) -> bool:
        """Whether the network answers."""
        raise NotImplementedError

    async def segment(self, images: Sequence[Image], timeout_s: float | None = None) -> list[Segmentation]:
        """The masks of decoded images, uint8 (H, W, 3) each, in their order; all of them or an error.

        Args:
            timeout_s: from now; None means the setting's.

        Raises:
            RefusedRequestError: 429 when the queue is full, 503 when the deadline passed or the model failed; 400 for an
                image that the network refuses.
        """
        raise NotImplementedError
