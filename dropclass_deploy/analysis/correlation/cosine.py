"""Cosine similarities of a classifier's weight vectors (DropClass, arXiv 2111.00531, Table 5 and Figure 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from dropclass_deploy.analysis.subject import Subject

Figures = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """Of one run.

    Attributes:
        name: of the run.
        cosine: float64 (C, C), 1 on the diagonal, NaN in row and column of a class whose weights are all 0; None when the
            network has no linear classifier.
        reason: why there is none, in one sentence.
        classifier: its path in the network; None without one.
    """

    name: str
    cosine: Figures | None
    reason: str = ""
    classifier: str | None = None


@torch.no_grad()
def weight_cosines(weight: torch.Tensor) -> Figures:
    """Cosine similarity of each pair of classes.

    Args:
        weight: (C, K, kh, kw), or any (C, …): a class's vector is all of its K·kh·kw weights. Biases are left out.

    Returns:
        float64 (C, C), symmetric, in [−1, 1]; NaN for a class whose weights are all 0, which point nowhere.
    """
    vectors = F.normalize(weight.detach().flatten(1).double().cpu(), dim=1, eps=0.0)  # (C, K·kh·kw), NaN for zeros
    cosine: Figures = (vectors @ vectors.T).clamp(-1, 1).numpy()
    np.fill_diagonal(cosine, np.where(np.isnan(np.diag(cosine)), np.nan, 1.0))
    return cosine


def off_diagonal_sums(cosine: Figures) -> tuple[Figures, Figures]:
    """Signed and absolute row sums (C,) of cosines (C, C), each class's own 1 left out; classes without figure add 0.

    Returns:
        NaN for a class that has no figure of its own.
    """
    others = cosine.copy()
    np.fill_diagonal(others, 0.0)
    nowhere = np.isnan(np.diag(cosine))
    signed, absolute = np.nansum(others, axis=1), np.nansum(np.abs(others), axis=1)
    return np.where(nowhere, np.nan, signed), np.where(nowhere, np.nan, absolute)


def correlation_of(subject: Subject) -> Correlation:
    """The classifier of the deployed network; nothing is run."""
    classifier = subject.classifier
    if classifier is None:
        return Correlation(subject.name, None, subject.no_classifier or "no classifier was found")
    module = subject.model.get_submodule(classifier.path)
    if not classifier.linear or not isinstance(module, nn.Conv2d):
        reason = f"the head {classifier.path!r} is not one linear convolution: it has no weight vector a class"
        return Correlation(subject.name, None, reason)
    return Correlation(subject.name, weight_cosines(module.weight), classifier=classifier.path)
