"""What the probe found, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.metrics import mean_of, to_json

Figures = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accuracy:
    """Shares of a test set that were recognised, in [0, 1].

    Attributes:
        by_class: float64 (C,), NaN for a class without an image.
        linked: ids of the linked classes.
        follows_second: of the composites whose second source has a linked class and another than the first, the share
            that was taken for the second's class; NaN where there is none. Chance is about 1 / C of the errors.
    """

    by_class: Figures
    linked: tuple[int, ...]
    follows_second: float

    @property
    def mean(self) -> float:
        """Over all classes."""
        return mean_of(self.by_class)

    @property
    def of_linked(self) -> float:
        """Mean over the linked classes; NaN when there is none."""
        return mean_of(self.by_class[list(self.linked)])

    @property
    def of_others(self) -> float:
        """Mean over the classes that are not linked."""
        return mean_of(np.delete(self.by_class, list(self.linked)))

    def as_json(self) -> dict[str, Any]:
        """JSON values, null for NaN."""
        return {
            "mean": to_json(self.mean),
            "linked": to_json(self.of_linked),
            "others": to_json(self.of_others),
            "follows_second": to_json(self.follows_second),
            "by_class": [to_json(float(value)) for value in self.by_class],
        }


@dataclass(frozen=True)
class Attention:
    """Mean share of the class activation map's positive values, over unbiased test composites of linked classes.

    Attributes:
        on_first: in the cell of the first source, which gives the class.
        on_second: in the cell of the other. An even map gives 1 / grid² to each.
    """

    on_first: float
    on_second: float

    def as_json(self) -> dict[str, Any]:
        """JSON values, null for NaN."""
        return {"on_first": to_json(self.on_first), "on_second": to_json(self.on_second)}


@dataclass(frozen=True)
class Translation:
    """Accuracy on unbiased composites where the first source was trained, and in the other cells.

    Attributes:
        at_home: in the cell of training.
        moved: in the other cells, without training there.
        moved_after_tuning: in the other cells, after the last layer learned one epoch there.
    """

    at_home: Accuracy
    moved: Accuracy
    moved_after_tuning: Accuracy

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "at_home": self.at_home.as_json(),
            "moved": self.moved.as_json(),
            "moved_after_tuning": self.moved_after_tuning.as_json(),
        }


@dataclass(frozen=True)
class NetworkFindings:
    """Of one network: accuracy on composites with the link and without, class activation maps, translation."""

    biased: Accuracy
    unbiased: Accuracy
    attention: Attention
    translation: Translation

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "biased": self.biased.as_json(),
            "unbiased": self.unbiased.as_json(),
            "attention": self.attention.as_json(),
            "translation": self.translation.as_json(),
        }


@dataclass(frozen=True)
class ProbeResult:
    """The three networks of the probe.

    Attributes:
        biased: trained on composites with the link.
        tuned: the features of ``biased``, under a new last layer trained on composites without it.
        scratch: trained from its first weights on those same composites.
    """

    biased: NetworkFindings
    tuned: NetworkFindings
    scratch: NetworkFindings

    def as_json(self) -> dict[str, Any]:
        """JSON values by network."""
        networks = {"biased": self.biased, "tuned": self.tuned, "scratch": self.scratch}
        return {name: network.as_json() for name, network in networks.items()}
