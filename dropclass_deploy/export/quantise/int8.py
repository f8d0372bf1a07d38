"""INT8 of a network: every method tried until the probes pass, and mixed precision where none does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import resize_image
from dropclass_deploy.export.graphs import Model
from dropclass_deploy.export.graphs.core_and_tail import join_tail, split_tail
from dropclass_deploy.export.graphs.quantised import blocks_of, with_float_nodes
from dropclass_deploy.export.quantise.evaluator import Evaluator, passes, slack, worst
from dropclass_deploy.export.quantise.mixed import Search, Verdicts
from dropclass_deploy.export.quantise.static import METHODS, Batch, quantised

CALIBRATION_IMAGES, PROBE_IMAGES = 32, 64
"""Ranges settle with a few dozen images; the probes are to tell classes apart, which takes more."""


@dataclass(frozen=True)
class Tried:
    """One method on the probe images."""

    method: str
    core: Model
    verdicts: Verdicts


class Int8:
    """A network on its way to 8 bits.

    Args:
        network: the float32 logits graph.
        evaluator: judges candidates on the probe images.
        batches: calibration images (N, 3, H, W), normalised.
    """

    def __init__(self, network: Model, evaluator: Evaluator, batches: Sequence[Batch]) -> None:
        self.network, self.evaluator = network, evaluator
        self._core, self._tail = split_tail(network)
        self._batches = batches
        self._blocks = blocks_of(self._core)

    def best(self, reporter: Reporter, deadline: float | None) -> Tried:
        """The first method that passes on the probe images, else the one with the most slack.

        Raises:
            UserError: when no method can quantise the network, the first one's reason.
        """
        tried: list[Tried] = []
        problems: list[UserError] = []
        for method in METHODS:
            if tried and deadline is not None and monotonic() > deadline:
                break
            with reporter.phase(f"INT8 by {method}"):
                try:
                    core = quantised(self._core, self._batches, method)
                    tried.append(Tried(method, core, self.evaluator(join_tail(core, self._tail))))
                except UserError as error:
                    # Cannot be made, or made and not run by the engine: the next method may do better.
                    problems.append(error)
                    reporter.note(f"INT8 by {method} is passed over: {error}")
                    continue
            least = worst(tried[-1].verdicts)
            name, points = least.figures.name, 100 * slack(least)
            reporter.note(f"INT8 by {method}: least slack {points:+.2f} points of IoU ({name}) on the probe images")
            if passes(tried[-1].verdicts):
                return tried[-1]
        if not tried:
            raise problems[0]
        return max(tried, key=lambda item: slack(worst(item.verdicts)))

    def network_of(self, tried: Tried, kept: Sequence[str] = ()) -> Model:
        """The logits graph in 8 bits, with some blocks in float32."""
        names = [name for block in kept for name in self._blocks[block]]
        core = with_float_nodes(tried.core, self._core, names) if names else tried.core
        return join_tail(core, self._tail)

    def search(self, tried: Tried, deadline: float | None) -> Search:
        """A mixed-precision search that starts from one method's result."""
        return Search(tuple(self._blocks), lambda kept: self.evaluator(self.network_of(tried, kept)), deadline)


def calibration_batches(images: Dataset, preprocess: Preprocess, batch: int) -> list[Batch]:
    """The first images as the network takes them: float32 (batch, 3, H, W), each repeated to fill a static batch."""
    batches = []
    for index in range(min(len(images), CALIBRATION_IMAGES)):
        image = images.image(index)
        if preprocess.size is not None:
            image = resize_image(image, preprocess.size)
        batches.append(np.repeat(preprocess.normalise(image), batch, axis=0))
    return batches
